//! The namespaces of one command that need not know the command: user, mounts, network, IPC, host name. Called in a process of its own.
//!
//! Made before the command is there, since a network namespace can take tens of milliseconds to appear while another one goes. The rest
//! (processes, control groups, a second user namespace that has no right over these) is bubblewrap's.

#![expect(unsafe_code, reason = "an interface is brought up by an ioctl, which has no safe wrapper")]

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{getegid, geteuid, sethostname};

use crate::launch::step;
use crate::wire::{Step, StepFailure};

/// Host name that every command sees.
const HOST_NAME: &str = "buildbee";
const LOOPBACK: &[u8] = b"lo";

/// Leaves the host's namespaces for new ones. The caller must have one thread.
pub(crate) fn enter() -> Result<(), StepFailure> {
    let (uid, gid) = (geteuid(), getegid());
    let new = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(new).map_err(step(Step::Namespaces))?;
    write_map("/proc/self/setgroups", "deny").map_err(step(Step::IdMaps))?;
    write_map("/proc/self/uid_map", &format!("{uid} {uid} 1")).map_err(step(Step::IdMaps))?;
    write_map("/proc/self/gid_map", &format!("{gid} {gid} 1")).map_err(step(Step::IdMaps))?;
    make_mounts_private().map_err(step(Step::PrivateMounts))?;
    sethostname(HOST_NAME).map_err(step(Step::Network))?;
    raise_loopback().map_err(step(Step::Network))
}

fn write_map(path: &str, content: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(content.as_bytes())
}

fn make_mounts_private() -> nix::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// Programs that talk to themselves by network find what they find anywhere.
fn raise_loopback() -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: zeroes are a valid request: a name that is empty, and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(LOOPBACK) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the request outlives the call, which reads it.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }).map(|_| ())
}
