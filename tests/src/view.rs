//! A mount namespace in which a folder is seen at another path: what several clients on machines of their own have, who check the same thing out
//! to the same place.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::plain;

/// Puts the first folder at the second one's path, says so, and waits.
const HOLD: &str = "mount --bind \"$1\" \"$2\" && echo ready && exec sleep 600";
/// Runs the rest in a folder as it is seen there.
const RUN: &str = "cd \"$1\" && shift && exec \"$@\"";

/// The namespace. It ends with this.
#[derive(Debug)]
pub struct View {
    holder: Child,
    path: PathBuf,
}

impl View {
    /// `folder`, seen at `path`.
    ///
    /// # Errors
    ///
    /// Where this user may make no namespaces.
    pub fn make(folder: &Path, path: &Path) -> io::Result<Self> {
        let mut hold = plain("unshare");
        hold.args(["--map-root-user", "--mount", "sh", "-c", HOLD, "sh"]).arg(folder).arg(path);
        let mut view = Self { holder: hold.stdout(Stdio::piped()).spawn()?, path: path.to_owned() };
        let mut line = String::new();
        if let Some(said) = view.holder.stdout.take() {
            BufReader::new(said).read_line(&mut line)?;
        }
        if line.trim() == "ready" { Ok(view) } else { Err(io::Error::other("no mount namespace")) }
    }

    /// `program`, run in the folder.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = plain("nsenter");
        command.args(["--user", "--mount", "--preserve-credentials", "--target", &self.holder.id().to_string()]);
        command.args(["sh", "-c", RUN, "sh"]).arg(&self.path).arg(program);
        command
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
