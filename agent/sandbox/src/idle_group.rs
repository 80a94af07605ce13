//! A group of the scheduler's that gives way, for commands that do.
//!
//! The idle class of a process counts among the members of its group alone. Where sessions are groups (`sched_autogroup_enabled`) each
//! command is one of its own, since bubblewrap begins a session for it, and so has as much right to the processor as each session of the
//! owner's. No niceness of such a group helps: a group that runs keeps the processor for a slice (3 ms) before another one's wakeup counts. Only
//! an idle group (`cpu.idle`) is left at once, and that takes a control group.
//!
//! Best effort: where no group can be made commands run without. Not here: groups of services, which whoever starts those has to make idle.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Where control groups are, by convention.
const ROOT: &str = "/sys/fs/cgroup";
/// The group's name. All agents that were started in one group share it.
const NAME: &str = "buildbee-lent";
/// Another helper may remove an empty group that is just being joined.
const MAX_TRIES: usize = 3;

/// Where a group for commands could be, for [`HostParts`](crate::spec::HostParts).
pub fn place() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    candidates(&own).into_iter().find(|folder| has_processor(folder)).map(|folder| folder.join(NAME))
}

/// Folders of this process's own group where the processor may be divided, by what the kernel says of it.
fn candidates(own: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            found.push(Path::new(ROOT).join(path));
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            found.extend([controllers, "cpu"].map(|name| Path::new(ROOT).join(name).join(path)));
        }
    }
    found
}

fn has_processor(folder: &Path) -> bool {
    let divides = fs::read_to_string(folder.join("cgroup.subtree_control"));
    let is_first_version = || folder.join("cpu.shares").exists();
    divides.map_or_else(|_| is_first_version(), |controllers| controllers.split_whitespace().any(|it| it == "cpu"))
}

/// The group, while the helper lives. Reached from the folder that it is in, which may be out of the helper's sight.
#[derive(Debug)]
pub(crate) struct IdleGroup {
    parent: OwnedFd,
    name: OsString,
}

impl IdleGroup {
    /// Makes it, or takes the one that is there.
    pub(crate) fn make(folder: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let group = Self { parent: open(parent, flags, Mode::empty())?, name: name.to_owned() };
        match group.make_folder() {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => group.write("cpu.idle", "1")?,
        }
        Ok(group)
    }

    fn make_folder(&self) -> io::Result<()> {
        Ok(mkdirat(&self.parent, self.name.as_os_str(), Mode::from_bits_truncate(0o755))?)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.parent, &Path::new(&self.name).join(file), flags, Mode::empty())?;
        File::from(file).write_all(text.as_bytes())
    }

    /// Puts the calling process, with what it starts from now on, into it. Quick on a process that does not run a command yet: the kernel lets all
    /// others pass first.
    pub(crate) fn join(&self) {
        for _ in 0..MAX_TRIES {
            if self.write("cgroup.procs", "0").is_ok() {
                return;
            }
            let made = self.make_folder().and_then(|()| self.write("cpu.idle", "1"));
            if made.is_err() {
                return;
            }
        }
    }
}

impl Drop for IdleGroup {
    fn drop(&mut self) {
        // Fails while another helper's commands are in it: that one does it.
        let _ = unlinkat(&self.parent, self.name.as_os_str(), UnlinkatFlags::RemoveDir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_may_divide_the_processor() {
        let of = |text| candidates(text).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(of("0::/user.slice/a:b.scope\n"), ["/sys/fs/cgroup/user.slice/a:b.scope"]);
        assert_eq!(
            of("9:memory:/m\n2:cpuacct:/x\n1:cpu,cpuacct:/\n"),
            ["/sys/fs/cgroup/cpu,cpuacct/", "/sys/fs/cgroup/cpu/"]
        );
        assert!(of("3:cpuset:/\nnonsense\n").is_empty());
    }

    #[test]
    fn a_group_is_idle_while_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(NAME);
        // What the kernel puts into a group.
        let files = ["cpu.idle", "cgroup.procs"].map(|name| place.join(name));
        fs::create_dir(&place).unwrap();
        for file in &files {
            fs::write(file, "").unwrap();
        }
        let group = IdleGroup::make(&place).unwrap();
        group.join();
        assert_eq!(files.map(|file| fs::read_to_string(file).unwrap()), ["1", "0"]);
        assert!(IdleGroup::make(&folder.path().join("no/group")).is_err());
    }
}
