//! Forks processes that wait for a command, in namespaces of their own, and turn into bubblewrap with the command's overlay below it.
//! Called by [`crate::zygote`] alone.
//!
//! The only place of the project that forks without executing at once. It is sound because the helper has one thread and opens
//! no file for writing: the child may allocate, and its copies of descriptors hurt nobody. The only files written are
//! the child's own id maps in `/proc`, and the list of the group that it joins.

#![expect(unsafe_code, reason = "fork, wait4, setpriority and signal dispositions have no safe wrappers")]

use std::convert::Infallible;
use std::ffi::{CStr, CString, NulError};
use std::fs::{self, DirBuilder};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, execve, fork, getpid, getppid, setpgid, write,
};

use crate::descriptors::{Packet, close_all_but, packet_pair, read_memory_file, receive, send};
use crate::idle_group::IdleGroup;
use crate::jobserver;
use crate::namespaces;
use crate::plan::Plan;
use crate::spec::Limits;
use crate::status::report;
use crate::wire::{Launch, MAX_PLAN_BYTES, N_FIXED_DESCRIPTORS, Step, StepFailure};
use crate::world::DEVICES;

/// A process that waits for a command. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The process, which becomes bubblewrap under the same id.
    pub(crate) pid: Pid,
    socket: OwnedFd,
    /// The network namespace that it is in, or why there is none.
    pub(crate) network: Result<OwnedFd, StepFailure>,
}

impl Waiting {
    /// Forks it. `bwrap` is the program bubblewrap, `null` is `/dev/null`, open for reading, `group` what it joins; without a `network`
    /// it reports why. The caller must have one thread.
    pub(crate) fn fork(
        bwrap: &CStr,
        null: BorrowedFd<'_>,
        group: Option<&IdleGroup>,
        network: Result<OwnedFd, StepFailure>,
    ) -> nix::Result<Self> {
        let parent = getpid();
        let (ours, theirs) = packet_pair()?;
        // SAFETY: the helper has a single thread, so the child may do whatever the parent may.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                // Also done by the child, whichever comes first: a kill must never miss the group.
                let _ = setpgid(child, child);
                Ok(Self { pid: child, socket: ours, network })
            }
            ForkResult::Child => {
                // A panic must not unwind into the copy of the helper's loop.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    if let Some(group) = group {
                        group.join();
                    }
                    wait_and_become(bwrap, null, &network, &theirs, parent);
                }));
                // SAFETY: ends the process at once, without the parent's exit handlers.
                unsafe { libc::_exit(127) }
            }
        }
    }

    /// Has it become bubblewrap, or report on the status pipe why not. `descriptors`: the status pipe's write end, then those of
    /// [`Launch`] without the channel.
    pub(crate) fn give(&self, launch: &Launch, descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
        send(self.socket.as_fd(), launch, descriptors)
    }
}

fn wait_and_become(
    bwrap: &CStr,
    null: BorrowedFd<'_>,
    network: &Result<OwnedFd, StepFailure>,
    socket: &OwnedFd,
    parent: Pid,
) {
    let ready = network.as_ref().map_err(|failure| *failure).and_then(|network| namespaces::enter(network.as_fd()));
    // Without the helper that forked it nobody would ever end this process: it holds the other end of its socket until here.
    if own_process(null, socket.as_fd(), parent).is_err() {
        return;
    }
    let Some((status, order)) = receive_order(socket.as_fd()) else { return };
    let Err(failure) = ready.and_then(|()| become_bubblewrap(bwrap, order, &status));
    // Nobody is left to tell if even this fails; the helper then sees an end without a status.
    let _ = write(status, &report(failure));
}

/// Everything that one command is started with.
struct Order {
    plan: OwnedFd,
    /// Bubblewrap's options.
    options: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    filters: Vec<OwnedFd>,
}

/// Waits for the command; `None` if none will come. With it, the write end of its status pipe.
fn receive_order(socket: BorrowedFd<'_>) -> Option<(OwnedFd, Order)> {
    loop {
        match poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    let Ok(Packet::Message(_, mut descriptors)) = receive::<Launch>(socket) else { return None };
    if descriptors.len() < N_FIXED_DESCRIPTORS {
        return None;
    }
    let filters = descriptors.split_off(N_FIXED_DESCRIPTORS);
    let [status, plan, options, stdout, stderr] = <[OwnedFd; N_FIXED_DESCRIPTORS]>::try_from(descriptors).ok()?;
    Some((status, Order { plan, options, stdout, stderr, filters }))
}

/// The error number of a step that failed.
pub(crate) fn step<E: Into<io::Error>>(step: Step) -> impl FnOnce(E) -> StepFailure {
    move |error| StepFailure { step, errno: error.into().raw_os_error().unwrap_or(libc::EINVAL) }
}

fn become_bubblewrap(bwrap: &CStr, order: Order, status: &OwnedFd) -> Result<Infallible, StepFailure> {
    dup2_stdout(&order.stdout).map_err(step(Step::Process))?;
    dup2_stderr(&order.stderr).map_err(step(Step::Process))?;
    let plan = read_memory_file(order.plan, MAX_PLAN_BYTES).map_err(step(Step::Plan))?;
    let plan: Plan = serde_json::from_slice(&plan).map_err(step(Step::Plan))?;
    mount_overlay(&plan).map_err(step(Step::Overlay))?;
    mount_devices(&plan).map_err(step(Step::Devices))?;
    apply_limits(&plan.limits).map_err(step(Step::Limits))?;
    if let Some(n_tokens) = plan.job_tokens {
        jobserver::open(n_tokens).map_err(step(Step::Process))?;
    }
    if plan.limits.gives_way {
        give_way().map_err(step(Step::Limits))?;
    }
    for descriptor in order.filters.iter().chain([status, &order.options]) {
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).map_err(step(Step::Process))?;
    }
    let arguments = arguments(status, &order.options, &order.filters, plan.argv).map_err(step(Step::Plan))?;
    execve(bwrap, &arguments, &[] as &[CString]).map_err(step(Step::Bubblewrap))
}

/// Own process group, dies with the helper, default signals, no input, no umask, no descriptor of the helper but `socket`.
fn own_process(null: BorrowedFd<'_>, socket: BorrowedFd<'_>, parent: Pid) -> nix::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(Errno::ESRCH);
    }
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    for number in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()?;
    dup2_stdin(null)?;
    umask(Mode::empty());
    close_all_but(socket)
}

fn mount_overlay(plan: &Plan) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("overlay"), plan.merged.as_str(), Some("overlay"), flags, Some(plan.overlay_options.as_str()))
}

/// The helper's devices, on the overlay before bubblewrap takes it as a whole: each mount of its own has it look through all mounts there are.
fn mount_devices(plan: &Plan) -> io::Result<()> {
    let folder = Path::new(&plan.merged).join("dev");
    match DirBuilder::new().mode(0o755).create(&folder) {
        // A layer has an empty one.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Ok(mount(Some(DEVICES), &folder, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}

fn apply_limits(limits: &Limits) -> nix::Result<()> {
    let cpu_seconds = limits.cpu.as_secs().saturating_add(u64::from(limits.cpu.subsec_nanos() > 0));
    let wanted = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_CPU, cpu_seconds),
        (Resource::RLIMIT_AS, limits.memory_bytes),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, limits.open_files),
    ];
    for (resource, value) in wanted {
        // A limit of the service itself may be lower, and can't be raised.
        let (_, hard) = getrlimit(resource)?;
        let value = value.min(hard);
        setrlimit(resource, value, value)?;
    }
    if limits.niceness != 0 {
        // SAFETY: takes and returns plain numbers.
        let current = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        // SAFETY: as above.
        Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, current.saturating_add(limits.niceness)) })?;
    }
    Ok(())
}

/// Behind everybody else, for processor, disk and memory. What is started from here inherits it, and can't undo it: the niceness is
/// what keeps a process without rights from leaving this class.
fn give_way() -> io::Result<()> {
    const LEAST_PRIORITY: libc::c_int = 19;
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: takes and returns plain numbers.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LEAST_PRIORITY) })?;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call, which reads them.
    Errno::result(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) })?;
    // SAFETY: takes and returns plain numbers. Kernels without it have nothing that it would change.
    unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE) };
    fs::write("/proc/self/oom_score_adj", "1000")
}

/// Bubblewrap's own argument list. The command can't come with the options: bubblewrap takes it from here alone.
fn arguments(
    status: &OwnedFd,
    options: &OwnedFd,
    filters: &[OwnedFd],
    argv: Vec<String>,
) -> Result<Vec<CString>, NulError> {
    let mut arguments = vec!["bwrap".to_owned()];
    let numbered = filters.iter().map(|filter| ("--add-seccomp-fd", filter));
    for (option, descriptor) in numbered.chain([("--json-status-fd", status), ("--args", options)]) {
        arguments.push(option.to_owned());
        arguments.push(descriptor.as_raw_fd().to_string());
    }
    arguments.push("--".to_owned());
    arguments.into_iter().chain(argv).map(CString::new).collect()
}

/// How a process that was waited for has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessEnd {
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Processor time, with that of the processes it has waited for.
    pub(crate) cpu: Duration,
    /// Largest resident set among those.
    pub(crate) peak_memory_bytes: u64,
}

/// Reaps `child` if it has ended. [`Errno::ECHILD`] if there is no such child (any more).
pub(crate) fn reap(child: Pid) -> nix::Result<Option<ProcessEnd>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writes of their types.
    let reaped =
        Errno::result(unsafe { libc::wait4(child.as_raw(), &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) })?;
    if reaped == 0 {
        return Ok(None);
    }
    // SAFETY: all bit patterns are valid for these numbers, and they were zeroed before the call.
    let usage = unsafe { usage.assume_init() };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs()) + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    Ok(Some(ProcessEnd {
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        peak_memory_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
    }))
}

/// Kills the group that was started, and its leader.
pub(crate) fn kill_group(leader: Pid) {
    // They may have ended already; that they are ours and not yet reaped is the caller's promise.
    let _ = kill(Pid::from_raw(-leader.as_raw()), Signal::SIGKILL);
    let _ = kill(leader, Signal::SIGKILL);
}
