//! What ccache starts to keep its results on the farm; see [`buildbee::storage_helper`].

use std::process::ExitCode;

fn main() -> ExitCode {
    buildbee::storage_helper::main()
}
