//! Can this host run commands in the sandbox? Tries it for real, and says why not and what to do.
//!
//! Used by the agent before it lends, and by `doctor`. Changes nothing on the host beyond a folder that it removes again.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use buildbee_proto::path::RelPath;
use nix::errno::Errno;
use nix::sys::utsname::uname;
use nix::unistd::geteuid;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::attempt::{Exit, SandboxError};
use crate::cleanup::{CleanupError, remove_scratch};
use crate::launcher::{Launcher, StartError};
use crate::seccomp;
use crate::spec::{HostParts, Limits, SandboxSpec};
use crate::wire::Step;

/// What the sandbox on this host can do beyond the minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// [`Limits::processes`] holds. The kernel holds every user to it but user 0 of the host.
    pub process_limit: bool,
    /// System calls are filtered, too.
    pub call_filter: bool,
}

/// Why this host can't run commands in the sandbox.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// The helper or bubblewrap is missing.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A setting of the kernel forbids user namespaces.
    #[error(
        "user namespaces are turned off ({setting} is {value})\nhint: as root, run `sysctl -w {setting}={wanted}` and put the line `{setting} = {wanted}` into /etc/sysctl.d/60-buildbee.conf"
    )]
    UserNamespacesOff {
        /// The setting.
        setting: &'static str,
        /// What it is.
        value: u64,
        /// What it should be.
        wanted: u64,
    },
    /// `AppArmor` restricts user namespaces and no profile allows them to the helper.
    #[error(
        "AppArmor keeps unprivileged programs from using user namespaces\nhint: as root, run `dpkg-reconfigure buildbee-agent` where it came as a package, else put share/buildbee/apparmor/buildbee-agent of the installation into /etc/apparmor.d and load it with apparmor_parser; or run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
    )]
    AppArmor,
    /// Some other limit or container forbids user namespaces.
    #[error(
        "the kernel refuses a user namespace: {source}\nhint: inside a container, allow nested user namespaces (a seccomp profile that permits unshare and mount); else look for a limit on namespaces of this user"
    )]
    UserNamespaces {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel is too old for an overlay in a user namespace.
    #[error(
        "the kernel ({release}) refuses an overlay in a user namespace: {source}\nhint: Linux 5.11 or newer is needed"
    )]
    OverlayRefused {
        /// Release of the kernel.
        release: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has no overlayfs.
    #[error(
        "the kernel has no overlay file system\nhint: as root, run `modprobe overlay` and put `overlay` into /etc/modules-load.d/buildbee.conf"
    )]
    OverlayMissing,
    /// The file system of the scratch folder can't carry an overlay.
    #[error(
        "no overlay can be mounted with its upper folder in {folder:?}: {source}\nhint: put the agent's folder onto a local file system such as ext4, xfs or btrfs"
    )]
    OverlayFolder {
        /// The folder.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Parts of `/proc` are covered, as containers do, so that the kernel refuses a new one.
    #[error(
        "/proc is partly covered, so none can be mounted in the sandbox: {message}\nhint: inside a container, run it with an uncovered /proc (docker and podman: `--security-opt systempaths=unconfined`)"
    )]
    ProcMasked {
        /// What bubblewrap said.
        message: String,
    },
    /// The test program for this processor is not known.
    #[error("the sandbox can't be tried on processors of kind {0}\nhint: lend from another machine")]
    Architecture(&'static str),
    /// The folder could not be used.
    #[error(
        "cannot use {folder:?}: {source}\nhint: check that the agent's user may write there and that the disk is not full"
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What the trial left could not be removed.
    #[error("{0}\nhint: remove the folder by hand")]
    Cleanup(#[from] CleanupError),
    /// The program ran, but not as it must.
    #[error("the trial program ended with {0:?}\nhint: run `buildbee doctor` and report what it prints")]
    Exit(Exit),
    /// Anything else.
    #[error("{0}\nhint: run `buildbee doctor` and report what it prints")]
    Other(SandboxError),
}

/// Runs a trial program in the sandbox, with the scratch folder in `folder`, where the agent's scratch folders will be.
pub async fn probe(helper: &Path, bwrap: &Path, folder: &Path) -> Result<Capabilities, ProbeFailure> {
    let trial = folder.join(format!("probe-{}", std::process::id()));
    remove_scratch(&trial)?;
    let outcome = try_in(helper, bwrap, &trial).await;
    remove_scratch(&trial)?;
    match outcome? {
        Exit::Code(0) => {
            Ok(Capabilities { process_limit: !geteuid().is_root(), call_filter: !seccomp::filters().is_empty() })
        }
        exit => Err(ProbeFailure::Exit(exit)),
    }
}

async fn try_in(helper: &Path, bwrap: &Path, trial: &Path) -> Result<Exit, ProbeFailure> {
    let (layer, scratch) = (trial.join("layer"), trial.join("scratch"));
    let program = trial_program(std::env::consts::ARCH).ok_or(ProbeFailure::Architecture(std::env::consts::ARCH))?;
    write_trial(&layer, &scratch, &program)
        .map_err(|source| ProbeFailure::Folder { folder: trial.to_owned(), source })?;
    let host = HostParts { group: None, folders: trial.parent().map(Path::to_owned).into_iter().collect() };
    let launcher = Launcher::with(helper, bwrap, host).await?;
    let spec = SandboxSpec {
        layers: vec![layer],
        scratch,
        argv: vec![format!("/{PROGRAM}")],
        env: Vec::new(),
        working_directory: RelPath::root(),
        make_directories: Vec::new(),
        stderr_is_terminal: false,
        job_tokens: None,
        limits: Limits::default(),
    };
    let completed = launcher.run(spec, CancellationToken::new()).await;
    completed.map(|completed| completed.exit).map_err(|error| diagnose(error, &Host::look(), trial))
}

const PROGRAM: &str = "trial";

fn write_trial(layer: &Path, scratch: &Path, program: &[u8]) -> io::Result<()> {
    for folder in [layer, scratch] {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(layer.join(PROGRAM))?;
    io::Write::write_all(&mut file, program)
}

/// A program that exits with status 0 and needs no library: an ELF header, one segment, three instructions.
fn trial_program(arch: &str) -> Option<Vec<u8>> {
    const BASE: u64 = 0x40_0000;
    const HEADERS_BYTES: u16 = 64 + 56;
    let (machine, code): (u16, &[u8]) = match arch {
        // mov eax, 60; xor edi, edi; syscall
        "x86_64" => (62, &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]),
        // mov x8, 93; mov x0, 0; svc 0
        "aarch64" => (183, &[0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 1, 0, 0, 0xd4]),
        // li a7, 93; li a0, 0; ecall
        "riscv64" => (243, &[0x93, 0x08, 0xd0, 0x05, 0x13, 0x05, 0, 0, 0x73, 0, 0, 0]),
        _ => return None,
    };
    let length = u64::from(HEADERS_BYTES) + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // Executable, machine, version.
    elf.extend([2_u16, machine].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    // Entry, segment table, no section table.
    elf.extend([BASE + u64::from(HEADERS_BYTES), 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    // Flags; sizes of header and segment entry, one segment, no sections.
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // Loadable, readable and executable; offset, addresses, sizes, alignment.
    elf.extend([1_u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend([0, BASE, BASE, length, length, 0x1_0000].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(code);
    Some(elf)
}

/// What the host says about itself; `None` where a setting does not exist.
#[derive(Clone, Debug, Default)]
struct Host {
    release: String,
    max_user_namespaces: Option<u64>,
    unprivileged_userns_clone: Option<u64>,
    apparmor_restrict: Option<u64>,
    is_root: bool,
}

impl Host {
    fn look() -> Self {
        let setting = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        Self {
            release: uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default(),
            max_user_namespaces: setting("/proc/sys/user/max_user_namespaces"),
            unprivileged_userns_clone: setting("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restrict: setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            is_root: geteuid().is_root(),
        }
    }

    /// The setting that forbids user namespaces.
    fn forbids(&self) -> Option<ProbeFailure> {
        if self.max_user_namespaces == Some(0) {
            let setting = "user.max_user_namespaces";
            return Some(ProbeFailure::UserNamespacesOff { setting, value: 0, wanted: 15_000 });
        }
        if self.is_root {
            return None;
        }
        if self.unprivileged_userns_clone == Some(0) {
            let setting = "kernel.unprivileged_userns_clone";
            return Some(ProbeFailure::UserNamespacesOff { setting, value: 0, wanted: 1 });
        }
        (self.apparmor_restrict == Some(1)).then_some(ProbeFailure::AppArmor)
    }

    /// Major and minor number of the kernel are those of one that can't mount an overlay in a user namespace.
    fn is_before_overlay(&self) -> bool {
        let mut numbers = self.release.split(['.', '-']).map(str::parse::<u32>);
        matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (5, 11))
    }
}

/// What stands behind `error` on `host`.
fn diagnose(error: SandboxError, host: &Host, folder: &Path) -> ProbeFailure {
    match error {
        SandboxError::Helper(error) => ProbeFailure::Start(error),
        SandboxError::Step { step: Step::Namespaces | Step::IdMaps | Step::PrivateMounts, source } => {
            host.forbids().unwrap_or(ProbeFailure::UserNamespaces { source })
        }
        SandboxError::Step { step: Step::Overlay, source } => overlay(source, host, folder),
        SandboxError::Setup { message } if message.contains("mount proc") => ProbeFailure::ProcMasked { message },
        SandboxError::Setup { message } if message.contains("namespace") || message.contains("uid map") => {
            host.forbids().unwrap_or(ProbeFailure::UserNamespaces { source: io::Error::other(message) })
        }
        other => ProbeFailure::Other(other),
    }
}

fn overlay(source: io::Error, host: &Host, folder: &Path) -> ProbeFailure {
    let refused = matches!(source.raw_os_error().map(Errno::from_raw), Some(Errno::EPERM | Errno::EACCES));
    match host.forbids() {
        _ if source.raw_os_error() == Some(Errno::ENODEV as i32) => ProbeFailure::OverlayMissing,
        _ if host.is_before_overlay() => ProbeFailure::OverlayRefused { release: host.release.clone(), source },
        Some(forbidden) if refused => forbidden,
        None if refused => ProbeFailure::OverlayRefused { release: host.release.clone(), source },
        _ => ProbeFailure::OverlayFolder { folder: folder.to_owned(), source },
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
