//! The command line and the daemon behind it. The wrapper `buildbee` hands over to this executable; see [`buildbee::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    buildbee::cli::main()
}
