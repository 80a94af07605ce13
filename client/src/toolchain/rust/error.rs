//! Why a program is no rustc that the farm can use.

use std::path::PathBuf;

use thiserror::Error;

use crate::toolchain::capture::CaptureError;
use crate::toolchain::parts::GatherError;

/// Why a program is no rustc that the farm can use.
#[derive(Debug, Error)]
pub enum RustError {
    /// It could not be asked, is a script, or another wrapper.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Its files can't be made a tree.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// A name that is not one of rustc's.
    #[error("{path} is neither rustc nor clippy-driver", path = .0.display())]
    Unknown(PathBuf),
    /// It says that its sysroot is another one's.
    #[error("{program} is not the compiler of {sysroot}, which it names as its sysroot\nhint: name the compiler itself in RUSTC", program = program.display(), sysroot = sysroot.display())]
    Elsewhere {
        /// What was called.
        program: PathBuf,
        /// What it names.
        sysroot: PathBuf,
    },
    /// Its answer lacks something.
    #[error("{program} does not say its {what}", program = program.display())]
    Wordless {
        /// The compiler.
        program: PathBuf,
        /// What it does not say.
        what: &'static str,
    },
    /// The sysroot has no library for the target.
    #[error("{sysroot} has no library for the target {target}\nhint: `rustup target add {target}`", sysroot = sysroot.display())]
    NoTarget {
        /// Where.
        sysroot: PathBuf,
        /// The target's name.
        target: String,
    },
    /// No such linker.
    #[error("the linker {name} is not found\nhint: install it (`apt install gcc`), or name another one with -C linker=", name = .0.display())]
    NoLinker(PathBuf),
    /// A linker that nobody here can ask for its parts.
    #[error("what the linker {path} needs is not known\nhint: gcc and clang are known", path = .0.display())]
    UnknownLinker(PathBuf),
    /// Its output tells where its inputs stood, and not as a text that could be found.
    #[error("what the linker {path} writes depends on where its inputs stand\nhint: use lld, mold or GNU ld", path = .0.display())]
    Wayward(PathBuf),
    /// An argument for the linker that makes it read what can't be told beforehand.
    #[error("what {0} makes the linker read is not known")]
    UnknownLinkArgument(String),
    /// A library asked for by name.
    #[error("the library {0} is not found where the linker looks")]
    NoLibrary(String),
    /// The task that looked at it was cut off.
    #[error("interrupted")]
    Interrupted,
}

impl RustError {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Capture(CaptureError::Script(_)) => "wrapper-script",
            Self::Capture(CaptureError::Wrapper(_)) => "another-wrapper",
            Self::Capture(CaptureError::Io { .. }) | Self::Gather(_) => "unreadable-compiler",
            Self::NoTarget { .. } => "missing-target",
            Self::NoLinker(_) | Self::UnknownLinker(_) | Self::Wayward(_) | Self::UnknownLinkArgument(_) => {
                "unknown-linker"
            }
            Self::NoLibrary(_) => "missing-library",
            Self::Capture(_)
            | Self::Unknown(_)
            | Self::Elsewhere { .. }
            | Self::Wordless { .. }
            | Self::Interrupted => "unknown-compiler",
        }
    }
}
