//! Results shared between checkouts: the same compile in another folder has the same result, if the folder's name is not in it.
//!
//! Actions run at their real path, so that bytes are exact, and an action's digest holds that path. Beside it stands a *portable key*:
//! the digest that the action would have with the project's folders (`root`; mostly it is one) in no particular place (`template`). Under that
//! key peers keep hints: folders where the compile was done before. A client puts such folders into its own command and its own input tree and
//! believes the hint only if that makes the action that the hint names; then it takes that action's signed result, looks for the
//! foreign folders in it ([`carry`]), and writes its own into the dependency file.
//!
//! Looking at the bytes is the second line only: a folder's name can be hashed, measured or cut into pieces and leave no trace. So what
//! could read it (`__FILE__` under an absolute path, macros that hold it, options that hide text) is an [`Obstacle`] beforehand.
//!
//! Pure, but for what [`FileHashes`](crate::inputs::filehash::FileHashes) remembers of texts. Who asks peers and stores results is
//! `daemon::elsewhere`.

pub mod carry;
mod depfile;
pub mod leak;
mod names;
mod options;
#[cfg(test)]
mod output_tests;
pub mod respell;
mod root;
pub mod template;
mod tree;

use buildbee_proto::path::{PathError, RelPath};
use thiserror::Error;

pub use template::Template;

/// Why the folder of a compile matters.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Obstacle {
    /// An option writes text so that it can't be found again, or makes something of a path that can't be seen.
    #[error("{0} may hide the folder in the result")]
    Hidden(String),
    /// What no other machine may run, is known to this one alone.
    #[error("{0}")]
    Machine(String),
    /// Only objects and dependency files are understood.
    #[error("it writes other files than an object and a dependency file")]
    Outputs,
    /// The working directory is a system's, or too near to the file system's root, or is reached through a symlink.
    #[error("its folder {0} is no project's")]
    Root(String),
    /// Its name has characters that are escaped in some places.
    #[error("the name of its folder {0} has unusual characters")]
    Unusual(String),
    /// A macro or the like.
    #[error("{0} holds the folder's name")]
    Argument(String),
    /// `-fcanonical-system-headers`.
    #[error("gcc names headers below {0} (-isystem) by the shorter of two paths, one of which holds the folder")]
    Shortened(String),
    /// `comp_dir`.
    #[error("debug information holds the working directory (-g without -ffile-prefix-map; BUILDBEE_BASE_DIR adds it)")]
    Debug,
    /// `__FILE__` and its kin, where paths are absolute.
    #[error("{0} may use its own name (__FILE__), and paths are absolute (BUILDBEE_BASE_DIR helps)")]
    OwnName(RelPath),
    /// A text names a file by a path that means something else elsewhere.
    #[error("{0} includes a file by a path that leads out of the project")]
    FarName(RelPath),
    /// Something was looked for at a place that is neither the project's nor the system's.
    #[error("it looks at {0}, outside of its project")]
    Outside(RelPath),
    /// What a text says is not known any more.
    #[error("what {0} says is not known any more")]
    Forgotten(RelPath),
    /// The folder was found in what came out.
    #[error("{0} holds the folder's name")]
    Leak(&'static str),
    /// A path would be too long.
    #[error(transparent)]
    Path(#[from] PathError),
}
