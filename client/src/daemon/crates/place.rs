//! Puts a crate's result where cargo looks for it: each file of its own inode with a fresh time, dependency files and messages in the caller's
//! spelling. Blocks.

use std::fs::{self, File};

use buildbee_proto::codec::Bytes;
use buildbee_proto::local::LocalReply;
use buildbee_proto::outcome::OutputFile;
use buildbee_proto::path::RelPath;
use buildbee_store::Store;
use thiserror::Error;

use super::super::cache::{Hit, LocalCache};
use super::super::placement::{Content, PlaceError, Placed, place};
use super::plan::CratePlan;
use crate::compiler::outputs::Existing;

/// Why a result can't be used here.
#[derive(Debug, Error)]
pub enum CratePlaceError {
    /// A file could not be written.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Its content is no longer in the cache.
    #[error("the cache has lost {0}")]
    Lost(String),
    /// A text of it could not be spelled anew.
    #[error("{0} could not be spelled anew")]
    Spelling(String),
}

/// What a file's content is taken from.
enum Taken<'a> {
    Memory(&'a [u8]),
    Text(Vec<u8>),
    Store(File),
}

impl CratePlan {
    /// Puts the outputs of `hit` in place, but for one that is `released`: it stands there since before, and what was made with it must not
    /// look older.
    pub fn put_in_place(
        &self,
        hit: &Hit,
        cache: &LocalCache,
        released: Option<&OutputFile>,
    ) -> Result<(), CratePlaceError> {
        let spelling = self.spelling();
        let outputs: Vec<&OutputFile> =
            hit.signed.result.outputs.iter().filter(|file| Some(*file) != released).collect();
        let store = cache.store();
        let taken = outputs.iter().map(|file| self.take(hit, store, file)).collect::<Result<Vec<_>, _>>()?;
        let files: Vec<Placed<'_>> = (outputs.iter().zip(&taken))
            .map(|(file, taken)| {
                let content = match taken {
                    Taken::Memory(bytes) => Content::Bytes(bytes),
                    Taken::Text(text) => Content::Bytes(text),
                    Taken::Store(open) => Content::File(open, file.digest.size_bytes),
                };
                let mode = file.mode & !self.call.umask;
                Placed { path: spelling.real(&file.path), content, mode, existing: Existing::Replaced }
            })
            .collect();
        place(&files)?;
        // Compiles that use them ask at once.
        for ((output, taken), Placed { path, .. }) in outputs.iter().zip(&taken).zip(&files) {
            if let (Taken::Memory(_) | Taken::Store(_), Ok(meta)) = (taken, fs::symlink_metadata(path)) {
                cache.known().hashes.remember_made(path, output.digest, &meta);
            }
        }
        Ok(())
    }

    fn take<'a>(&self, hit: &'a Hit, store: Option<&Store>, file: &OutputFile) -> Result<Taken<'a>, CratePlaceError> {
        let name = || file.path.to_string();
        let in_memory = hit.blobs.get(&file.digest);
        if is_dep_info(&file.path) {
            let text = in_memory.ok_or_else(|| CratePlaceError::Lost(name()))?;
            let spelled = self.roots.reals().dep_info(text);
            return spelled.map(Taken::Text).map_err(|_| CratePlaceError::Spelling(name()));
        }
        if let Some(content) = in_memory {
            return Ok(Taken::Memory(content));
        }
        if file.digest.size_bytes == 0 {
            return Ok(Taken::Memory(&[]));
        }
        let open = store.and_then(|store| store.open_blob(&file.digest).ok().flatten());
        open.map(Taken::Store).ok_or_else(|| CratePlaceError::Lost(name()))
    }

    /// What the wrapper is told of `hit`; `None` where its messages can't be spelled.
    pub fn reply(&self, hit: &Hit) -> Option<LocalReply> {
        let result = &hit.signed.result;
        let reals = self.roots.reals();
        let stream = |digest| reals.messages(hit.content(digest)).ok().map(Bytes);
        Some(LocalReply::Done {
            exit_code: result.exit_code,
            stdout: stream(&result.stdout)?,
            stderr: stream(&result.stderr)?,
        })
    }
}

/// Whether an output is a dependency file, by its name.
pub fn is_dep_info(path: &RelPath) -> bool {
    path.as_str().strip_suffix(".d").is_some()
}
