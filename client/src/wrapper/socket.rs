//! The daemon's Unix socket: where it is, whether its folder can be trusted, and a connection that cannot hang.

use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::geteuid;
use thiserror::Error;

use super::settings::WrapperSettings;

/// Longest path that fits in a Unix socket's address, in bytes.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Why the daemon can't be asked.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The path does not fit.
    #[error("the socket path {path} has {length} bytes, {MAX_SOCKET_PATH_BYTES} are the most\nhint: set BUILDBEE_SOCKET to a shorter path", path = path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Somebody else could put a socket there.
    #[error("the folder {folder} is not safe for a socket ({problem})\nhint: remove it, or set BUILDBEE_SOCKET to a path in a folder of your own", folder = folder.display())]
    UnsafeFolder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nobody listens.
    #[error("no daemon listens at {path}", path = path.display())]
    Nobody {
        /// The path.
        path: PathBuf,
    },
    /// Nobody listens, and the daemon that was to be started said why it does not. Its words end with a hint.
    #[error("there is no daemon: {said}")]
    NotStarted {
        /// The path.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// Another user answers.
    #[error("the daemon at {path} belongs to user {uid}\nhint: unset BUILDBEE_SOCKET or let it name a socket of your own", path = path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Anything else.
    #[error("cannot connect to the daemon at {path}: {errno}\nhint: `buildbee doctor` looks for the cause", path = path.display())]
    Connect {
        /// The path.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
    },
}

/// Where the daemon's socket is: as `named`, else in the user's `runtime` folder, else in a folder of user `uid` in `/tmp`. The
/// command line and the daemon ask here too.
pub fn place(named: Option<&Path>, runtime: Option<&Path>, uid: u32) -> PathBuf {
    match (named, runtime) {
        (Some(path), _) => path.to_owned(),
        (None, Some(runtime)) => runtime.join("buildbee/daemon.sock"),
        (None, None) => PathBuf::from(format!("/tmp/buildbee-{uid}/daemon.sock")),
    }
}

/// Where sessions of user `uid` have their runtime folder, if there is one: for callers whose environment was cleared.
pub fn session_folder(uid: u32) -> Option<PathBuf> {
    let folder = PathBuf::from(format!("/run/user/{uid}"));
    folder.symlink_metadata().is_ok_and(|found| found.is_dir() && found.uid() == uid).then_some(folder)
}

/// Where the daemon's socket is, if it can be there and its folder is to be trusted.
pub fn path(settings: &WrapperSettings) -> Result<PathBuf, SocketError> {
    let uid = geteuid().as_raw();
    let runtime = match (&settings.socket, &settings.runtime_dir) {
        (None, None) => session_folder(uid),
        (_, runtime) => runtime.clone(),
    };
    let path = place(settings.socket.as_deref(), runtime.as_deref(), uid);
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_SOCKET_PATH_BYTES {
        return Err(SocketError::TooLong { path, length });
    }
    if settings.socket.is_none()
        && let Some(folder) = path.parent()
    {
        check_folder(folder)?;
    }
    Ok(path)
}

/// A folder that only this user can write to. Made if it is not there; a path that the user gave is not checked, that is theirs.
pub fn check_folder(folder: &Path) -> Result<(), SocketError> {
    // A failure shows in what is found below.
    let _ = std::fs::DirBuilder::new().mode(0o700).create(folder);
    let problem = match folder.symlink_metadata() {
        Err(_) => "it can't be made",
        Ok(found) if !found.is_dir() => "it is not a folder",
        Ok(found) if found.uid() != geteuid().as_raw() => "it belongs to another user",
        Ok(found) if found.mode() & 0o022 != 0 => "others can write to it",
        Ok(_) => return Ok(()),
    };
    Err(SocketError::UnsafeFolder { folder: folder.to_owned(), problem })
}

/// A connection to this user's daemon. Neither connecting, nor a later read or write of it, blocks for longer than `patience` at a
/// time: a daemon that is frozen with a full queue must not freeze the build.
pub fn connect_to(path: &Path, patience: Duration) -> Result<UnixStream, SocketError> {
    let failed = |errno| match errno {
        Errno::ENOENT | Errno::ECONNREFUSED => SocketError::Nobody { path: path.to_owned() },
        errno => SocketError::Connect { path: path.to_owned(), errno },
    };
    let descriptor = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let time = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
    setsockopt(&descriptor, sockopt::SendTimeout, &time).map_err(failed)?;
    setsockopt(&descriptor, sockopt::ReceiveTimeout, &time).map_err(failed)?;
    let address = UnixAddr::new(path).map_err(failed)?;
    loop {
        match connect(descriptor.as_raw_fd(), &address) {
            Ok(()) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    let peer = nix::sys::socket::getsockopt(&descriptor, sockopt::PeerCredentials).map_err(failed)?;
    if peer.uid() != geteuid().as_raw() {
        return Err(SocketError::Foreign { path: path.to_owned(), uid: peer.uid() });
    }
    Ok(UnixStream::from(descriptor))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    fn settings(socket: Option<&Path>, runtime: Option<&Path>) -> WrapperSettings {
        WrapperSettings::from_lookup(|name| match name {
            "BUILDBEE_SOCKET" => socket.map(|path| path.as_os_str().to_owned()),
            "XDG_RUNTIME_DIR" => runtime.map(|path| path.as_os_str().to_owned()),
            _ => None,
        })
    }

    #[test]
    fn places_in_order() {
        let runtime = tempfile::tempdir().unwrap();
        assert_eq!(
            path(&settings(Some(Path::new("/x/s")), Some(runtime.path()))).unwrap(),
            Path::new("/x/s"),
            "the variable wins and is not checked"
        );
        assert_eq!(path(&settings(None, Some(runtime.path()))).unwrap(), runtime.path().join("buildbee/daemon.sock"));
        let mode = runtime.path().join("buildbee").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn folders_open_to_others_are_refused() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = runtime.path().join("buildbee");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = path(&settings(None, Some(runtime.path()))).unwrap_err().to_string();
        assert!(error.contains("others can write") && error.contains("hint:"), "{error}");
        std::fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink("/tmp", &folder).unwrap();
        assert!(matches!(path(&settings(None, Some(runtime.path()))), Err(SocketError::UnsafeFolder { .. })));
    }

    #[test]
    fn long_paths_are_named() {
        let long = PathBuf::from(format!("/{}", "s".repeat(MAX_SOCKET_PATH_BYTES)));
        let error = path(&settings(Some(&long), None)).unwrap_err().to_string();
        assert!(error.contains("108 bytes") && error.contains("hint:"), "{error}");
    }

    #[test]
    fn nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert!(matches!(connect_to(&path, Duration::from_secs(1)), Err(SocketError::Nobody { .. })));
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(connect_to(&path, Duration::from_secs(1)), Err(SocketError::Nobody { .. })));
    }

    #[test]
    fn a_full_queue_does_not_hang() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let patience = Duration::from_millis(50);
        let start = Instant::now();
        let waiting: Vec<_> = (0..4).map(|_| connect_to(&path, patience)).collect();
        assert!(waiting.iter().any(|result| matches!(result, Err(SocketError::Connect { errno: Errno::EAGAIN, .. }))));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
