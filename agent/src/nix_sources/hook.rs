//! The owner's command that makes store paths be there (`nix_hook`).
//!
//! It gets the full names of the paths that are lacking, one a line, on standard input. It may put them in place itself, and it may print, one
//! a line, folders that stand for them: the last component says for which. Its standard error is the agent's.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::lacking::Lacking;

/// Bytes that it may print.
const MAX_PRINTED_BYTES: u64 = 4 << 20;

/// Ends the command with all that it started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs `command` for `paths`, and returns where each of them is, as far as it says. Dropped, it ends the command.
pub async fn run(command: &[String], paths: &[Lacking]) -> io::Result<Vec<Option<PathBuf>>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(vec![None; paths.len()]) };
    let mut starting = Command::new(program);
    starting.args(arguments).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = starting.process_group(0).kill_on_drop(true).spawn()?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let names: String = paths.iter().flat_map(|path| ["/nix/store/", &path.name, "\n"]).collect();
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let asking = async {
        if let Some(mut stdin) = stdin {
            // It need not read them.
            drop(stdin.write_all(names.as_bytes()).await);
        }
    };
    let listening = async {
        let mut printed = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_PRINTED_BYTES).read_to_end(&mut printed).await?;
        }
        Ok::<_, io::Error>(printed)
    };
    let ((), printed) = tokio::join!(asking, listening);
    let status = child.wait().await?;
    drop(group);
    if !status.success() {
        return Err(io::Error::other(format!("{program} ended with {status}")));
    }
    Ok(places(&String::from_utf8_lossy(&printed?), paths))
}

/// Where `paths` are by what was printed. Pure.
fn places(printed: &str, paths: &[Lacking]) -> Vec<Option<PathBuf>> {
    let said: Vec<&Path> = printed.lines().map(Path::new).filter(|place| place.is_absolute()).collect();
    let place = |path: &Lacking| {
        let named = |place: &&&Path| place.file_name().is_some_and(|name| name == path.name.as_str());
        said.iter().find(named).map(|place| place.to_path_buf())
    };
    paths.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Vec<Lacking> {
        ["a", "b"].map(|name| Lacking { name: name.to_owned(), files: [].into() }).to_vec()
    }

    #[tokio::test]
    async fn it_is_told_names_and_says_places() {
        let said = |script: &str| ["sh", "-c", script].map(str::to_owned);
        let places = run(&said("sed 's,^/nix,/mnt/nix,' | head -n1; echo relative/b; echo noise"), &paths()).await;
        assert_eq!(places.unwrap(), [Some("/mnt/nix/store/a".into()), None]);
        assert_eq!(run(&said("exit 0"), &paths()).await.unwrap(), [None, None]);
        assert!(run(&said("echo /x/a; exit 1"), &paths()).await.is_err());
        assert!(run(&["/nowhere".to_owned()], &paths()).await.is_err());
        assert_eq!(run(&[], &paths()).await.unwrap(), [None, None]);
    }
}
