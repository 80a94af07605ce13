//! The processes of a throw-away farm: started in order, waited for, taken down in the opposite order.
//!
//! Coordinator and agents are in process groups of their own, so that Ctrl-C reaches the command first and the farm is still there
//! while the command ends.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use buildbee_proto::local::AdminCall;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::Deserialize;

use super::error::FarmError;
use super::folder::Folder;
use crate::cli::arguments::FarmUp;
use crate::cli::ask::{Start, ask};
use crate::cli::documents;
use crate::wrapper::signals::Signals;

/// How long a member may take to be ready.
const READY_TIME: Duration = Duration::from_secs(10);

/// How long members may take to end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// Pause between two looks at either.
const PAUSE: Duration = Duration::from_millis(5);

/// Of a log that is shown when something failed.
const SHOWN_LOG_BYTES: usize = 4 << 10;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) n_agents: u16,
    pub(super) n_slots: u16,
}

impl Plan {
    pub(super) fn new(up: &FarmUp) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = u16::try_from(threads / usize::from(up.agents.max(1))).unwrap_or(u16::MAX).max(1);
        Self { n_agents: up.agents, n_slots: up.slots.unwrap_or(share) }
    }
}

/// What a ready file says. A coordinator says more.
#[derive(Debug, Deserialize)]
struct Ready {
    addresses: Vec<String>,
}

#[derive(Debug)]
struct Member {
    name: String,
    child: Child,
}

/// Those that run.
#[derive(Debug, Default)]
pub(super) struct Members {
    coordinator: Option<Member>,
    agents: Vec<Member>,
    /// The last one that did something, for its log.
    latest: Option<String>,
}

impl Members {
    /// Starts coordinator, agents and the client's daemon, and enrols them.
    pub(super) fn start(&mut self, plan: Plan, folder: &Folder, signals: &Signals) -> Result<(), FarmError> {
        let address = self.start_coordinator(folder, signals)?;
        for number in 1..=plan.n_agents {
            self.start_agent(&format!("agent-{number}"), plan, folder, &address, signals)?;
        }
        for number in 1..=plan.n_agents {
            let name = format!("agent-{number}");
            let ready =
                wait_until_ready(&name, folder, self.agents.iter_mut().find(|agent| agent.name == name), signals);
            self.latest = Some(name);
            ready?;
        }
        self.start_client(folder, &address)
    }

    fn start_coordinator(&mut self, folder: &Folder, signals: &Signals) -> Result<String, FarmError> {
        let name = "coordinator";
        let mut command = Command::new(folder.program("buildbee-coordinator")?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--status", "off", "--no-mdns"]);
        self.coordinator = Some(self.spawn_member(name, &mut command, folder)?);
        let ready = wait_until_ready(name, folder, self.coordinator.as_mut(), signals)?;
        ready
            .addresses
            .into_iter()
            .next()
            .ok_or_else(|| FarmError::Failed { what: name.to_owned(), status: "it listens nowhere".to_owned() })
    }

    fn start_agent(
        &mut self,
        name: &str,
        plan: Plan,
        folder: &Folder,
        coordinator: &str,
        signals: &Signals,
    ) -> Result<(), FarmError> {
        let program = folder.program("buildbee-agent")?;
        let ticket = self.invite(folder, "agent", coordinator)?;
        let mut join = Command::new(&program);
        join.args(["join", &ticket, "--name", name]).arg("--state-dir").arg(folder.state(name));
        join.arg("--config").arg(folder.no_settings());
        self.output_of(&format!("{name} join"), &mut join, folder)?;
        if let Some(signal) = signals.take() {
            return Err(FarmError::Interrupted(signal));
        }
        let mut serve = Command::new(&program);
        let slots = plan.n_slots.to_string();
        serve.args([
            "serve",
            "--mode",
            "dedicated",
            "--listen",
            "127.0.0.1:0",
            "--no-mdns",
            "--name",
            name,
            "--slots",
            &slots,
        ]);
        let member = self.spawn_member(name, &mut serve, folder)?;
        self.agents.push(member);
        Ok(())
    }

    /// Enrols the client and starts its daemon.
    fn start_client(&mut self, folder: &Folder, coordinator: &str) -> Result<(), FarmError> {
        let ticket = self.invite(folder, "client", coordinator)?;
        let program = folder.program("buildbee-cli")?;
        let mut join = Command::new(&program);
        folder.client(join.args(["join", &ticket, "--name", "client"]));
        self.output_of("client join", &mut join, folder)?;
        let mut daemon = Command::new(&program);
        folder.client(daemon.args(["daemon", "--background"]));
        self.output_of("client daemon", &mut daemon, folder)?;
        Ok(())
    }

    fn invite(&mut self, folder: &Folder, role: &str, address: &str) -> Result<String, FarmError> {
        let mut invite = Command::new(folder.program("buildbee-coordinator")?);
        invite.args(["invite", "--role", role, "--address", address]);
        invite.arg("--state-dir").arg(folder.state("coordinator")).arg("--config").arg(folder.no_settings());
        Ok(self.output_of("invite", &mut invite, folder)?.trim().to_owned())
    }

    /// Runs `command` to its end and returns what it printed.
    fn output_of(&mut self, what: &str, command: &mut Command, folder: &Folder) -> Result<String, FarmError> {
        self.latest = Some(what.to_owned());
        let start = |error| FarmError::Start { what: what.to_owned(), error };
        let log = log(folder, what).map_err(start)?;
        let output = command.stdin(Stdio::null()).stderr(log).output().map_err(start)?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(FarmError::Failed { what: what.to_owned(), status: output.status.to_string() })
        }
    }

    fn spawn_member(&mut self, name: &str, command: &mut Command, folder: &Folder) -> Result<Member, FarmError> {
        self.latest = Some(name.to_owned());
        let start = |error| FarmError::Start { what: name.to_owned(), error };
        let log = log(folder, name).map_err(start)?;
        let child = command
            .arg("--state-dir")
            .arg(folder.state(name))
            .arg("--ready-file")
            .arg(folder.ready_file(name))
            .arg("--config")
            .arg(folder.no_settings())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(start)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(start)?;
        Ok(Member { name: name.to_owned(), child })
    }

    /// The end of what the member at fault said.
    pub(super) fn last_words(&self, folder: &Folder) -> Option<String> {
        let log = std::fs::read(folder.log(self.latest.as_ref()?)).ok()?;
        let end = &log[log.len().saturating_sub(SHOWN_LOG_BYTES)..];
        (!end.is_empty()).then(|| String::from_utf8_lossy(end).into_owned())
    }

    /// Ends everything: the daemon, then agents, then the coordinator; asked first, killed later.
    pub(super) fn take_down(&mut self, folder: &Folder) {
        let daemon = stop_daemon(folder);
        let deadline = Instant::now() + GRACE;
        if let Some(daemon) = daemon {
            end_adopted(daemon, deadline);
        }
        for agent in &self.agents {
            signal_group(agent, Signal::SIGTERM);
        }
        for agent in &mut self.agents {
            end(agent, deadline);
        }
        if let Some(coordinator) = &mut self.coordinator {
            signal_group(coordinator, Signal::SIGTERM);
            end(coordinator, deadline.max(Instant::now() + GRACE / 5));
        }
    }
}

/// Asks the daemon to leave. Its process.
fn stop_daemon(folder: &Folder) -> Option<Pid> {
    #[derive(Deserialize)]
    struct Stopping {
        pid: i32,
    }
    let json = ask(&folder.socket(), AdminCall::Stop, Start::Never).ok()?;
    let stopping: Stopping = serde_json::from_value(documents::parse(&json)?).ok()?;
    // Never a group, never everything.
    (stopping.pid > 1).then(|| Pid::from_raw(stopping.pid))
}

/// Waits for a process that is not this one's own child but was adopted.
fn end_adopted(pid: Pid, deadline: Instant) {
    let gone = || !matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(nix::sys::wait::WaitStatus::StillAlive));
    while !gone() {
        if Instant::now() > deadline {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn end(member: &mut Member, deadline: Instant) {
    while member.child.try_wait().is_ok_and(|status| status.is_none()) {
        if Instant::now() > deadline {
            signal_group(member, Signal::SIGKILL);
            let _ = member.child.wait();
        }
        std::thread::sleep(PAUSE);
    }
    // What it may have left in its group.
    signal_group(member, Signal::SIGKILL);
}

fn signal_group(member: &Member, signal: Signal) {
    if let Ok(group) = i32::try_from(member.child.id()) {
        let _ = killpg(Pid::from_raw(group), signal);
    }
}

fn log(folder: &Folder, name: &str) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(folder.log(name))
}

fn wait_until_ready(
    name: &str,
    folder: &Folder,
    member: Option<&mut Member>,
    signals: &Signals,
) -> Result<Ready, FarmError> {
    let deadline = Instant::now() + READY_TIME;
    let mut member = member;
    loop {
        if let Some(ready) = read_ready(&folder.ready_file(name)) {
            return Ok(ready);
        }
        if let Some(member) = member.as_deref_mut()
            && let Ok(Some(status)) = member.child.try_wait()
        {
            return Err(FarmError::Failed { what: name.to_owned(), status: status.to_string() });
        }
        if Instant::now() > deadline {
            return Err(FarmError::NotReady { what: name.to_owned(), seconds: READY_TIME.as_secs() });
        }
        if let Some(signal) = signals.take() {
            return Err(FarmError::Interrupted(signal));
        }
        std::thread::sleep(PAUSE);
    }
}

fn read_ready(file: &Path) -> Option<Ready> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}
