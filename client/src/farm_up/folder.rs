//! The one folder of a throw-away farm: who keeps what where, and what its processes are told by their environment.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use buildbee_sandbox::cleanup::remove_scratch;

use super::error::FarmError;
use crate::cli::programs::in_path;
use crate::wrapper::output;
use crate::wrapper::program::OWN_NAME;
use crate::wrapper::settings::{NESTED_VARIABLE, WrapperSettings};
use crate::wrapper::socket::MAX_SOCKET_PATH_BYTES;

/// Made for one farm, mode 0700.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Where the executables are.
    programs: PathBuf,
}

impl Folder {
    /// In the folder for temporary files, beside nothing that another farm uses.
    pub(super) fn make() -> Result<Self, FarmError> {
        let parent = std::env::temp_dir();
        let failed = |error| FarmError::Folder { path: parent.clone(), error };
        let parent_path = parent.canonicalize().map_err(failed)?;
        let path = nix::unistd::mkdtemp(&parent_path.join("bee-XXXXXX")).map_err(|errno| failed(errno.into()))?;
        let programs = std::env::current_exe().map_err(failed)?.parent().unwrap_or(Path::new("/")).to_owned();
        let folder = Self { path, programs };
        if folder.socket().as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            let path = folder.path.clone();
            // It is empty.
            let _ = fs::remove_dir(&path);
            return Err(FarmError::Deep { path });
        }
        folder.furnish().map_err(|error| FarmError::Folder { path: folder.path.clone(), error })?;
        Ok(folder)
    }

    fn furnish(&self) -> io::Result<()> {
        for name in ["bin", "logs", "run"] {
            DirBuilder::new().mode(0o700).create(self.path.join(name))?;
        }
        // The members' settings are those given here, not the ones of whoever runs this.
        File::create(self.no_settings())?;
        // A folder of its own in PATH, so that nothing else that lies beside the executables changes what is found.
        symlink(self.programs.join(OWN_NAME), self.path.join("bin").join(OWN_NAME))
    }

    /// An executable of buildbee: beside this one, or, where each comes from a package of its own, in `PATH`.
    pub(super) fn program(&self, name: &'static str) -> Result<PathBuf, FarmError> {
        let beside = Some(self.programs.join(name)).filter(|program| program.is_file());
        let found = beside.or_else(|| in_path(name, WrapperSettings::from_environment().path.as_deref()?));
        found.ok_or_else(|| FarmError::NotInstalled { program: name, folder: self.programs.clone() })
    }

    /// Of the client's daemon.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("run/daemon.sock")
    }

    /// A member's own folder.
    pub(super) fn state(&self, member: &str) -> PathBuf {
        self.path.join(member)
    }

    /// What a member says.
    pub(super) fn log(&self, member: &str) -> PathBuf {
        self.path.join("logs").join(member)
    }

    /// Appears when a member is ready.
    pub(super) fn ready_file(&self, member: &str) -> PathBuf {
        self.path.join("run").join(format!("{member}.ready"))
    }

    /// An empty settings file.
    pub(super) fn no_settings(&self) -> PathBuf {
        self.path.join("no-settings.toml")
    }

    /// Makes `command` a client of this farm: the wrapper in its PATH, and everything of the daemon's in this folder.
    pub(super) fn client<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let mut path: OsString = self.path.join("bin").into();
        if let Some(rest) = WrapperSettings::from_environment().path {
            path.push(":");
            path.push(rest);
        }
        command
            .env("PATH", path)
            .env("BUILDBEE_SOCKET", self.socket())
            .env("BUILDBEE_STATE_DIR", self.state("client"))
            .env("BUILDBEE_CACHE_DIR", self.path.join("client-cache"))
            .env("BUILDBEE_CONFIG", self.no_settings())
            .env("BUILDBEE_MDNS", "off")
            .env_remove(NESTED_VARIABLE)
    }

    /// Leaves it, and says where it is.
    pub(super) fn keep(self) {
        output::write_all(std::io::stderr(), format!("farm: kept {}\n", self.path.display()).as_bytes());
    }

    /// Removes it, whatever modes a sandbox left in it.
    pub(super) fn remove(self) -> Result<(), FarmError> {
        Ok(remove_scratch(&self.path)?)
    }
}
