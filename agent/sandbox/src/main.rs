//! The helper program of the agent: see [`buildbee_sandbox::zygote`]. Not for people: the agent starts it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use buildbee_sandbox::spec::HostParts;
use buildbee_sandbox::zygote;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(bwrap), Some(group)) = (arguments.next(), arguments.next()) else {
        return fail("buildbee-sandbox is started by buildbee-agent\nhint: run `buildbee-agent serve`");
    };
    let host = HostParts {
        group: Some(group).filter(|group| !group.is_empty()).map(PathBuf::from),
        folders: arguments.map(PathBuf::from).collect(),
    };
    match zygote::serve(PathBuf::from(bwrap), &host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&format!("buildbee-sandbox: {error}\nhint: this program is started by buildbee-agent, not by hand"))
        }
    }
}

fn fail(message: &str) -> ExitCode {
    // With standard error gone there is nobody to tell; the exit status remains.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}
