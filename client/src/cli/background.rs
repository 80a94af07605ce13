//! `buildbee daemon`: in this terminal, or in the background for the wrapper.
//!
//! In the background means three processes for a moment: the starter (a child of whoever needed a daemon) starts the daemon proper,
//! waits until that listens, and ends. So the daemon is nobody's child, holds nothing open that a build waits for the end of, and is
//! in a session of its own.

use std::io::Read;
use std::os::fd::RawFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::config::Settings;
use crate::daemon::{self, DaemonError};
use crate::exit::{ENVIRONMENT, Failure, SUCCESS};
use crate::wrapper::link::MAX_SILENCE;
use crate::wrapper::socket;
use crate::wrapper::start::{MAX_LAST_WORDS_BYTES, START_PATIENCE};

/// Pause between two looks at whether it listens.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// The daemon, here.
pub fn in_foreground(settings: &Settings) -> Result<u8, Failure> {
    daemon::run(settings).map_err(Failure::environment)?;
    Ok(SUCCESS)
}

/// The daemon, as started by [`start`].
pub fn detached(settings: &Settings) -> Result<u8, Failure> {
    // Fails only where it is so already.
    let _ = nix::unistd::setsid();
    match daemon::run(settings) {
        // Somebody else was faster: there is a daemon, which is what was wanted.
        Ok(()) | Err(DaemonError::Running(_)) => Ok(SUCCESS),
        Err(error) => Err(Failure::environment(error)),
    }
}

/// Starts the daemon in the background. Success once it listens.
pub fn start(settings: &Settings) -> Result<u8, Failure> {
    close_inherited();
    let child = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args(["daemon", "--detached"])
            .env("BUILDBEE_SOCKET", &settings.socket)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Read where it fails; once it listens it writes to its log only.
            .stderr(Stdio::piped())
            .spawn()
    });
    match child {
        Ok(child) => wait_until_it_listens(settings, child),
        Err(error) => Err(Failure::environment(format!(
            "cannot start the daemon: {error}\nhint: the system may be out of processes or memory"
        ))),
    }
}

fn wait_until_it_listens(settings: &Settings, mut child: Child) -> Result<u8, Failure> {
    let deadline = Instant::now() + START_PATIENCE;
    while Instant::now() < deadline {
        let ended = child.try_wait().ok().flatten();
        if socket::connect_to(&settings.socket, MAX_SILENCE).is_ok() {
            return Ok(SUCCESS);
        }
        if let Some(status) = ended
            && !status.success()
        {
            let text = last_words(&mut child).unwrap_or_else(|| {
                format!("the daemon ended: {status}\nhint: its log is {}", settings.log_file().display())
            });
            return Err(Failure::environment(text));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(ENVIRONMENT)
}

/// What a daemon that did not start wrote on its standard error.
fn last_words(child: &mut Child) -> Option<String> {
    let mut said = String::new();
    child.stderr.take()?.take(MAX_LAST_WORDS_BYTES).read_to_string(&mut said).ok()?;
    let said = said.trim();
    (!said.is_empty()).then(|| said.strip_prefix("error: ").unwrap_or(said).to_owned())
}

/// Descriptors that the build leaked to this process: a jobserver's pipe, a log. Whoever waits for their end must not wait for a daemon.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // One of them was the listing's own and is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}
