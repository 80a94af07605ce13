//! Compilers out of stores of paths that never change (Nix's, Guix's, any folder that the settings name): their closure in place of a
//! capture. So the compiler may be a script, since whatever it runs and reads is named with it, and is part of the toolchain.
//!
//! [`closure`] asks the store's own tool, once for each store path; [`wrapper`] says which scripts can be trusted to do the same on a
//! machine that has the closure and nothing else. The rest is done as for any compiler ([`identify`](super::identify)).

pub mod closure;
pub mod wrapper;

use std::path::PathBuf;

use thiserror::Error;

pub use closure::{Store, Stores};

/// Why a compiler out of a store runs locally. Each names the store path or the script.
#[derive(Debug, Error)]
pub enum OutboardError {
    /// The tool that knows the closure can't be run.
    #[error("cannot run {tool}, which knows what {path} needs: {error}\nhint: put it into PATH, or name another one as `outboard` in config.toml", path = path.display())]
    Tool {
        /// What was to be run.
        tool: String,
        /// For which path.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It does not know the path, or its answer makes no sense.
    #[error("{tool} does not tell what {path} needs: {said}", path = path.display())]
    Unlisted {
        /// What was run.
        tool: String,
        /// For which path.
        path: PathBuf,
        /// Its last words.
        said: String,
    },
    /// A script that reads what no agent would be told.
    #[error("{path} is a script that depends on {what}", path = path.display())]
    Script {
        /// Which.
        path: PathBuf,
        /// On what.
        what: String,
    },
    /// It does other things with another `PATH`.
    #[error("{path} does other things where PATH is another", path = .0.display())]
    Path(PathBuf),
    /// It adds an argument that reads or writes a file nobody here knows of.
    #[error("{path} adds {argument}, which is not followed", path = path.display())]
    Adds {
        /// The compiler.
        path: PathBuf,
        /// What it adds.
        argument: String,
    },
}
