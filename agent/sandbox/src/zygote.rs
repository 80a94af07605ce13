//! The helper's loop: keeps processes ready for commands, hands commands to them, waits until every process of each is gone, and kills on
//! request.
//!
//! One thread, no asynchronous runtime, no file open for writing. It lives as long as the agent holds the other end of the
//! control socket; then it kills what is left and ends. If it dies itself, the kernel kills bubblewrap and with it
//! everything inside (each is told to die with its parent).
//!
//! A command is gone when bubblewrap is reaped *and* the first process inside is. Bubblewrap leaves as soon as the
//! command's main process has ended; the first process inside is then ours (we are the subreaper), and the kernel lets it
//! end only after all others in its process namespace, those that called `setsid` included.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, pipe2};
use thiserror::Error;

use crate::descriptors::{Packet, borrow_all, close_from, receive, send};
use crate::hold;
use crate::idle_group::IdleGroup;
use crate::launch::{ProcessEnd, Waiting, kill_group, reap};
use crate::spec::HostParts;
use crate::status::{MAX_STATUS_BYTES, Status, parse};
use crate::wire::{
    Ended, Event, Hello, Launch, MAX_FILTERS, MAX_LAUNCHES, N_FIXED_DESCRIPTORS, Refusal, Request, StepFailure,
};
use crate::world::World;

/// Why the helper can't work.
#[derive(Debug, Error)]
pub enum ZygoteError {
    /// Standard input is not the agent's socket.
    #[error("cannot talk to the agent: {0}")]
    Control(Errno),
    /// The kernel refused something that every kernel has.
    #[error("cannot set up: {0}")]
    Setup(#[from] io::Error),
}

/// Serves the agent whose control socket is standard input, until it closes. `bwrap` is the program bubblewrap.
pub fn serve(bwrap: PathBuf, host: &HostParts) -> Result<(), ZygoteError> {
    // Whatever the agent had open without closing it on exec must not get into the forked children.
    close_from(3).map_err(io::Error::from)?;
    set_child_subreaper(true).map_err(io::Error::from)?;
    // Only the end of the agent ends the helper, not a signal meant for a terminal's whole group.
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        blocked.add(signal);
    }
    blocked.thread_block().map_err(io::Error::from)?;
    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    // These are out of sight afterwards. Without the group commands yield a little later.
    let null = File::open("/dev/null")?.into();
    let group = host.group.as_deref().and_then(|group| IdleGroup::make(group).ok());
    let world = World::enter(&bwrap, &host.folders);
    let mut zygote = Zygote {
        bwrap: CString::new(bwrap.into_os_string().into_vec()).map_err(io::Error::from)?,
        null,
        control: io::stdin().as_fd().try_clone_to_owned()?,
        children: SignalFd::with_flags(&watched, flags).map_err(io::Error::from)?,
        world,
        group,
        waiting: VecDeque::new(),
        running: Vec::new(),
        strays: Vec::new(),
        held: false,
        closing: false,
    };
    let kept_mounts = zygote.world.as_ref().ok().and_then(|world| world.kept_mounts.clone());
    let hello = Hello { version: env!("CARGO_PKG_VERSION").to_owned(), kept_mounts };
    send(zygote.control.as_fd(), &hello, &[]).map_err(ZygoteError::Control)?;
    zygote.prepare();
    zygote.run()
}

/// How often commands that are held are looked at: soon after one was seen to run, else rarely.
const LOOK_SOON_MS: u16 = 5;
const LOOK_AGAIN_MS: u16 = 100;
/// Processes that wait for commands: enough that one command after the other finds one. In a burst the others are forked as they are needed.
const N_WAITING: usize = 2;

struct Zygote {
    bwrap: CString,
    null: OwnedFd,
    control: OwnedFd,
    children: SignalFd,
    /// What all commands share, or why they can't run.
    world: Result<World, StepFailure>,
    /// What processes for commands are in.
    group: Option<IdleGroup>,
    /// Processes for the next commands. At most [`N_WAITING`].
    waiting: VecDeque<Waiting>,
    /// At most [`MAX_LAUNCHES`].
    running: Vec<Running>,
    /// Adopted processes of commands whose bubblewrap was killed before it could name them, and processes that waited for a command and
    /// did not take one.
    strays: Vec<Pid>,
    /// All commands are stopped where they are.
    held: bool,
    /// The agent is gone.
    closing: bool,
}

/// A command, from its fork until all of it is gone.
struct Running {
    /// The agent's end is the right to let it live.
    channel: OwnedFd,
    /// Read end of the status pipe.
    status: OwnedFd,
    bubblewrap: Pid,
    /// Goes on to another command when all of this one is gone.
    network: Option<OwnedFd>,
    killed: bool,
    /// Bubblewrap's end, with what it told.
    ended: Option<(ProcessEnd, Status)>,
    /// The first process inside, while it must be waited for.
    init: Option<Pid>,
    cpu: Duration,
    peak_memory_bytes: u64,
}

impl Zygote {
    fn run(mut self) -> Result<(), ZygoteError> {
        while !(self.closing && self.running.is_empty()) {
            let patience = self.hold();
            let (control, children, channels) = self.wait(patience)?;
            for index in channels {
                self.running[index].kill();
            }
            if children {
                while let Ok(Some(_)) = self.children.read_signal() {}
                self.reap();
            }
            if control {
                self.receive();
            }
        }
        // A group with a process in it can't be removed.
        for waiting in self.waiting.drain(..) {
            kill_group(waiting.pid);
            let _ = waitpid(waiting.pid, None);
        }
        Ok(())
    }

    /// Sees to it that what is held does not run. How long that can be left alone.
    fn hold(&self) -> PollTimeout {
        if !self.held || self.running.is_empty() {
            return PollTimeout::NONE;
        }
        let stopped: Vec<bool> = self.alive().map(hold::stop).collect();
        PollTimeout::from(if stopped.contains(&true) { LOOK_SOON_MS } else { LOOK_AGAIN_MS })
    }

    /// The first process of each command of which something may be left.
    fn alive(&self) -> impl Iterator<Item = Pid> {
        let first = |running: &Running| if running.ended.is_none() { Some(running.bubblewrap) } else { running.init };
        self.running.iter().filter_map(first)
    }

    /// Waits until something happens: on the control socket, among the children, on the channels of these commands.
    fn wait(&self, patience: PollTimeout) -> Result<(bool, bool, Vec<usize>), ZygoteError> {
        let watched: Vec<usize> = (0..self.running.len()).filter(|index| !self.running[*index].killed).collect();
        let interest = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut polled = vec![interest(self.children.as_fd())];
        polled.extend(watched.iter().map(|index| interest(self.running[*index].channel.as_fd())));
        if !self.closing {
            polled.push(interest(self.control.as_fd()));
        }
        match poll(&mut polled, patience) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let happened: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let channels = watched.iter().zip(&happened[1..]).filter(|(_, happened)| **happened).map(|(index, _)| *index);
        let control = !self.closing && happened.last().copied().unwrap_or(false);
        Ok((control, happened[0], channels.collect()))
    }

    fn receive(&mut self) {
        match receive::<Request>(self.control.as_fd()) {
            Ok(Packet::Message(Request::Launch(launch), descriptors)) => self.launch(&launch, descriptors),
            // The next round stops them.
            Ok(Packet::Message(Request::Hold, _)) => self.held = true,
            Ok(Packet::Message(Request::Release, _)) => {
                self.held = false;
                self.alive().for_each(hold::release);
            }
            // Nothing of a malformed request can be answered; dropping its descriptors tells the agent.
            Ok(Packet::Malformed) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(Packet::Closed) | Err(_) => {
                self.closing = true;
                self.running.iter_mut().for_each(Running::kill);
            }
        }
    }

    fn launch(&mut self, launch: &Launch, mut descriptors: Vec<OwnedFd>) {
        let n_filters = usize::from(launch.n_filters);
        if n_filters > MAX_FILTERS || descriptors.len() != N_FIXED_DESCRIPTORS + n_filters {
            return;
        }
        let channel = descriptors.remove(0);
        let started = if self.running.len() >= MAX_LAUNCHES {
            Err(Refusal::Full)
        } else {
            self.start(launch, &descriptors).map_err(|error| Refusal::Kernel(error as i32))
        };
        match started {
            Ok((waiting, status)) => {
                tell(channel.as_fd(), &Event::Started);
                self.running.push(Running::new(channel, status, waiting));
            }
            Err(refusal) => tell(channel.as_fd(), &Event::Refused(refusal)),
        }
        self.prepare();
    }

    /// Hands a command to a process that waits for one, and returns it with the read end of its status pipe.
    fn start(&mut self, launch: &Launch, descriptors: &[OwnedFd]) -> nix::Result<(Waiting, OwnedFd)> {
        let (status, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let given: Vec<BorrowedFd<'_>> = [write.as_fd()].into_iter().chain(borrow_all(descriptors)).collect();
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.give(launch, &given).is_ok() {
                return Ok((waiting, status));
            }
            self.dismiss(&waiting);
        }
        let fresh = self.fork()?;
        match fresh.give(launch, &given) {
            Ok(()) => Ok((fresh, status)),
            Err(error) => {
                self.dismiss(&fresh);
                Err(error)
            }
        }
    }

    fn dismiss(&mut self, waiting: &Waiting) {
        kill_group(waiting.pid);
        self.strays.push(waiting.pid);
    }

    fn fork(&mut self) -> nix::Result<Waiting> {
        let network = self.world.as_mut().map_err(|failure| *failure).and_then(World::network);
        Waiting::fork(&self.bwrap, self.null.as_fd(), self.group.as_ref(), network)
    }

    /// Has processes wait for the next commands. Where that fails, it is tried again when a command is there.
    fn prepare(&mut self) {
        while self.waiting.len() < N_WAITING {
            match self.fork() {
                Ok(waiting) => self.waiting.push_back(waiting),
                Err(_) => return,
            }
        }
    }

    /// Takes note of what has ended, and reports the commands of which nothing is left.
    fn reap(&mut self) {
        for running in &mut self.running {
            running.reap();
        }
        if self.running.iter().any(Running::may_have_left_strays) {
            self.adopt_strays();
        }
        self.waiting.retain(|waiting| matches!(reap(waiting.pid), Ok(None)));
        self.strays.retain(|stray| matches!(reap(*stray), Ok(None)));
        if !self.strays.is_empty() {
            // Whose they are is not known: commands that may have left them wait for all of them.
            return self.finish(|running| !running.may_have_left_strays());
        }
        self.finish(|_| true);
    }

    fn finish(&mut self, allowed: impl Fn(&Running) -> bool) {
        for mut running in self.running.extract_if(.., |running| running.is_gone() && allowed(running)) {
            running.report();
            if let (Ok(world), Some(network)) = (&mut self.world, running.network.take()) {
                world.reuse(network);
            }
        }
    }

    /// Kills children that nobody knows: they lost their bubblewrap before it had said that they exist.
    fn adopt_strays(&mut self) {
        let path = format!("/proc/self/task/{}/children", getpid());
        let Ok(children) = fs::read_to_string(path) else { return };
        for child in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw) {
            let waits = self.waiting.iter().any(|waiting| waiting.pid == child);
            if !waits && !self.strays.contains(&child) && !self.running.iter().any(|running| running.knows(child)) {
                let _ = kill(child, Signal::SIGKILL);
                self.strays.push(child);
            }
        }
    }
}

impl Running {
    fn new(channel: OwnedFd, status: OwnedFd, waiting: Waiting) -> Self {
        let (cpu, peak_memory_bytes) = (Duration::ZERO, 0);
        let (bubblewrap, network) = (waiting.pid, waiting.network.ok());
        Self { channel, status, bubblewrap, network, killed: false, ended: None, init: None, cpu, peak_memory_bytes }
    }

    fn kill(&mut self) {
        self.killed = true;
        if self.ended.is_none() {
            kill_group(self.bubblewrap);
        }
    }

    fn reap(&mut self) {
        if self.ended.is_none() {
            match reap(self.bubblewrap) {
                Ok(None) => return,
                Ok(Some(end)) => self.bubblewrap_ended(end),
                Err(_) => self.bubblewrap_ended(ProcessEnd { signal: None, cpu: Duration::ZERO, peak_memory_bytes: 0 }),
            }
        }
        if let Some(init) = self.init {
            match reap(init) {
                // Alive and ours: whatever the command left running in the background ends with it.
                Ok(None) => drop(kill(init, Signal::SIGKILL)),
                Ok(Some(end)) => {
                    self.count(end);
                    self.init = None;
                }
                // Bubblewrap has waited for it.
                Err(_) => self.init = None,
            }
        }
    }

    fn bubblewrap_ended(&mut self, end: ProcessEnd) {
        let status = self.read_status();
        self.init = status.init.map(Pid::from_raw);
        self.count(end);
        self.ended = Some((end, status));
    }

    fn count(&mut self, end: ProcessEnd) {
        self.cpu += end.cpu;
        self.peak_memory_bytes = self.peak_memory_bytes.max(end.peak_memory_bytes);
    }

    fn read_status(&self) -> Status {
        let mut bytes = Vec::new();
        if let Ok(pipe) = self.status.try_clone() {
            // Ends with "would block" while a process inside holds the other end: what came before counts.
            let _ = File::from(pipe).take(MAX_STATUS_BYTES as u64).read_to_end(&mut bytes);
        }
        parse(&bytes)
    }

    fn is_gone(&self) -> bool {
        self.ended.is_some() && self.init.is_none()
    }

    /// Bubblewrap died without having named the first process inside, which may exist all the same.
    fn may_have_left_strays(&self) -> bool {
        self.ended.as_ref().is_some_and(|(_, status)| status.init.is_none() && status.failure.is_none())
    }

    fn knows(&self, child: Pid) -> bool {
        self.init == Some(child) || (self.ended.is_none() && self.bubblewrap == child)
    }

    fn report(&self) {
        let Some((end, status)) = &self.ended else { return };
        let ended = Ended {
            failure: status.failure,
            code: status.code,
            wrapper_signal: end.signal,
            cpu: self.cpu,
            peak_memory_bytes: self.peak_memory_bytes,
        };
        tell(self.channel.as_fd(), &Event::Ended(ended));
    }
}

/// Sends `event`; an agent that has closed the channel does not want it, and two small packets always fit.
fn tell(channel: BorrowedFd<'_>, event: &Event) {
    let _ = send(channel, event, &[]);
}
