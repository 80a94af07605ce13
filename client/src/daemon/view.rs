//! Which files a process sees. A wrapper in a container or a chroot may reach the socket, but what it calls `/usr` is another folder.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Root folder and mount namespace, by device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    root: (u64, u64),
    mounts: (u64, u64),
}

impl View {
    /// Of this process. `None` where there is no `/proc`.
    pub fn own() -> Option<Self> {
        Self::of("self")
    }

    /// Of another one. `None` where it has ended, or is in another process namespace (where its number is 0).
    pub fn of_process(pid: i32) -> Option<Self> {
        if pid > 0 { Self::of(&pid.to_string()) } else { None }
    }

    fn of(process: &str) -> Option<Self> {
        let look = |name: &str| {
            let found = fs::metadata(format!("/proc/{process}/{name}")).ok()?;
            Some((found.dev(), found.ino()))
        };
        Some(Self { root: look("root")?, mounts: look("ns/mnt")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_what_it_sees_and_nobody_sees_nothing() {
        let own = View::own();
        assert!(own.is_some());
        assert_eq!(View::of_process(std::process::id().cast_signed()), own);
        assert_eq!(View::of_process(0), None);
    }
}
