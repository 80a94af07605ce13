//! Adds doubles to this agent: what `buildbee-agent toolchain` does. A running agent takes notice within seconds.
//!
//! A folder that `buildbee toolchain pack` made is copied; a compiler of this machine is packed by the client's program beside this one, which
//! knows compilers. Not here: lending them ([`doubles`](crate::doubles)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

use crate::doubles::{DoubleError, list};
use crate::state::{StateDir, StateError};

/// The client's program.
const CLIENT: &str = "buildbee-cli";

/// Why nothing was added.
#[derive(Debug, Error)]
pub enum AddError {
    /// The state folder is of no use.
    #[error(transparent)]
    State(#[from] StateError),
    /// What was given, or what is there, is no double.
    #[error(transparent)]
    Double(#[from] DoubleError),
    /// A folder without any.
    #[error("{folder} holds no double\nhint: `buildbee toolchain pack COMPILER --into FOLDER` makes such a folder", folder = .0.display())]
    Empty(PathBuf),
    /// A file can't be copied.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The client's program is not there.
    #[error(
        "{program}: {error}\nhint: a compiler is packed by buildbee's client: install it here, or add a folder that \
         `buildbee toolchain pack` made elsewhere", program = program.display()
    )]
    NoClient {
        /// Where it was looked for.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It said why.
    #[error("the compiler was not packed")]
    NotPacked,
}

/// Adds `what`, a folder of doubles or a compiler, to the agent with `state_dir`; `client` is where its programs are. What there is now, for
/// people.
pub fn add(state_dir: &Path, what: &Path, client: &Path) -> Result<Vec<String>, AddError> {
    let doubles = StateDir::open(state_dir)?.doubles();
    if what.is_dir() {
        copy(what, &doubles)?;
    } else {
        let program = client.join(CLIENT);
        let mut pack = Command::new(&program);
        pack.args(["toolchain", "pack"]).arg(what).arg("--into").arg(&doubles).current_dir("/");
        let packed = pack.status().map_err(|error| AddError::NoClient { program, error })?;
        if !packed.success() {
            return Err(AddError::NotPacked);
        }
    }
    labels(state_dir)
}

/// The doubles that were added, for people.
pub fn labels(state_dir: &Path) -> Result<Vec<String>, AddError> {
    let found = list(&StateDir::open(state_dir)?.doubles())?;
    Ok(found.values().map(|double| format!("{} ({})", double.label(), double.program)).collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), AddError> {
    if list(from)?.is_empty() {
        return Err(AddError::Empty(from.to_owned()));
    }
    let copy = |from: &Path, to: &Path| -> Result<(), AddError> {
        let failed = |error| AddError::Io { path: from.to_owned(), error };
        fs::create_dir_all(to).map_err(failed)?;
        for entry in fs::read_dir(from).map_err(failed)? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).map_err(failed)?;
            if path.is_file() {
                let fresh = to.join(&name).with_extension("new");
                fs::copy(&path, &fresh).and_then(|_| fs::rename(&fresh, to.join(&name))).map_err(failed)?;
            }
        }
        Ok(())
    };
    // Descriptions last: who finds one finds its content.
    copy(&from.join("blobs"), &to.join("blobs"))?;
    copy(from, to)
}
