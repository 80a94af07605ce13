//! What the commands of one helper share, made once before the first of them: a user namespace, a `/dev` that nobody can change, a host
//! name, network namespaces that are used again, and few mounts ([`crate::narrow`]). Called by [`crate::zygote`] alone.
//!
//! Bubblewrap's own `--dev` mounts nine times for every command, a quarter of its processor time; and to make a network namespace takes as
//! long as to start a program. A network namespace has nothing of a command once all of its processes are gone: their sockets are closed,
//! and no command has a right over it, since it belongs to the helper's user namespace. Two commands never have the same one at once.

#![expect(unsafe_code, reason = "an interface is brought up by an ioctl, which has no safe wrapper")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{getegid, geteuid, sethostname};

use crate::launch::step;
use crate::narrow;
use crate::wire::{Step, StepFailure};

/// Where the helper has the commands' `/dev`: a folder that every system has, and that no command and no layer needs.
pub(crate) const DEVICES: &str = "/sys";
/// Host name that every command sees.
const HOST_NAME: &str = "buildbee";
const LOOPBACK: &[u8] = b"lo";
/// Devices of every command, the host's own.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links beside them. What is shared memory elsewhere is in the command's own folder for temporary files.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("shm", "/tmp"),
];
/// Network namespaces kept for further commands.
const MAX_NETWORKS: usize = 64;

/// The helper is in these namespaces from here on.
#[derive(Debug)]
pub(crate) struct World {
    /// At most [`MAX_NETWORKS`].
    networks: Vec<OwnedFd>,
    /// Why all of the host's mounts are still here, if few were wanted.
    pub(crate) kept_mounts: Option<String>,
}

impl World {
    /// Leaves the host's namespaces, and what of its folders neither `bwrap` nor commands in `folders` need. The caller must have one
    /// thread.
    pub(crate) fn enter(bwrap: &Path, folders: &[PathBuf]) -> Result<Self, StepFailure> {
        become_owner(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
        let devices_in = |root: &Path| make_devices(&root.join(DEVICES.trim_start_matches('/')));
        let kept_mounts = if folders.is_empty() {
            devices_in(Path::new("/")).map_err(step(Step::Devices))?;
            None
        } else {
            let narrowed = narrow::enter(bwrap, folders, devices_in);
            if narrowed.is_err() {
                devices_in(Path::new("/")).map_err(step(Step::Devices))?;
            }
            narrowed.err().map(|error| error.to_string())
        };
        sethostname(HOST_NAME).map_err(step(Step::Network))?;
        Ok(Self { networks: Vec::new(), kept_mounts })
    }

    /// A network namespace in which nobody is.
    pub(crate) fn network(&mut self) -> Result<OwnedFd, StepFailure> {
        if let Some(network) = self.networks.pop() {
            return Ok(network);
        }
        // The helper has no use for a network: where it is itself does not matter.
        unshare(CloneFlags::CLONE_NEWNET).map_err(step(Step::Network))?;
        raise_loopback().map_err(step(Step::Network))?;
        Ok(File::open("/proc/self/ns/net").map_err(step(Step::Network))?.into())
    }

    /// Takes back the network namespace of a command of which nothing is left.
    pub(crate) fn reuse(&mut self, network: OwnedFd) {
        if self.networks.len() < MAX_NETWORKS {
            self.networks.push(network);
        }
    }
}

/// Makes a user namespace with all rights over the `others` and the same user and group in it, and no mount that gets out.
pub(crate) fn become_owner(others: CloneFlags) -> Result<(), StepFailure> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | others).map_err(step(Step::Namespaces))?;
    write_map("/proc/self/setgroups", "deny").map_err(step(Step::IdMaps))?;
    write_map("/proc/self/uid_map", &format!("{uid} {uid} 1")).map_err(step(Step::IdMaps))?;
    write_map("/proc/self/gid_map", &format!("{gid} {gid} 1")).map_err(step(Step::IdMaps))?;
    make_mounts_private().map_err(step(Step::PrivateMounts))
}

fn write_map(path: &str, content: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(content.as_bytes())
}

fn make_mounts_private() -> nix::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// Fills `folder` with what programs expect in `/dev`, and closes it for writing.
fn make_devices(folder: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some("mode=755,size=64k"))?;
    for name in NODES {
        let node = folder.join(name);
        File::create(&node)?;
        mount(Some(&Path::new("/dev").join(name)), &node, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        // A device takes what is written to it all the same. But its owner, who is root where the agent is, could change its mode.
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
        mount(None::<&str>, &node, None::<&str>, read_only, None::<&str>)?;
    }
    for (name, target) in LINKS {
        symlink(target, folder.join(name))?;
    }
    fs::create_dir(folder.join("pts"))?;
    let remount = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
    Ok(mount(None::<&str>, folder, None::<&str>, remount, None::<&str>)?)
}

/// Programs that talk to themselves by network find what they find anywhere.
fn raise_loopback() -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: zeroes are a valid request: a name that is empty, and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(LOOPBACK) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the request outlives the call, which reads it.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }).map(|_| ())
}
