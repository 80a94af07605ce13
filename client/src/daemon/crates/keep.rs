//! Keeps what a run here made of a crate, if it is certain what it was made from. Blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::local::LocalOutcome;
use buildbee_proto::observed::NotKnown;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance, ReadSet};
use buildbee_store::Pin;
use memchr::memmem::Finder;
use thiserror::Error;

use super::super::cache::{Hit, NotKept};
use super::super::context::Context;
use super::closure;
use super::plan::{CratePlan, stays};
use super::read_set::{self, Seen, Uncertain};
use super::seen::{OUT_DIR, PACKAGE};
use crate::config::Compilers;
use crate::dispatch::attempt::MAX_RESULT_CONTENT_BYTES;
use crate::doubles::rustc::recipe;
use crate::inputs::filehash::FileIdentity;
use crate::rust::failure;
use crate::rust::messages::name_written_file;
use crate::rust::request::{NativeLibrary, RustDriver, RustOutputKind};
use crate::rust::roots::Roots;
use crate::rust::scan::scan;

/// What rustc and linkers ask for when they make a file. What stands there lacks what the caller's umask took off.
const NEW_FILE_MODE: u32 = 0o666;
/// The same for what can be executed.
const NEW_PROGRAM_MODE: u32 = 0o777;

/// How things stood when the compiler was started.
#[derive(Debug)]
pub struct Before {
    start: SystemTime,
    outputs: Vec<Option<FileIdentity>>,
}

/// Why a result is not kept.
#[derive(Debug, Error)]
pub enum Unkept {
    /// The run failed in a way that need not happen again, or its messages are not whole.
    #[error("there is nothing to keep")]
    Nothing,
    /// Another action wrote the same files at the same time.
    #[error("another action wrote the same files")]
    Contested,
    /// It is not known what it read.
    #[error(transparent)]
    Uncertain(#[from] Uncertain),
    /// It was not watched.
    #[error("nobody watched what it read")]
    Unseen,
    /// The recorder's log does not tell.
    #[error("what it read is not known: {0}")]
    Unknown(NotKnown),
    /// It used the network.
    #[error("it used the network")]
    Network,
    /// A macro's library could have read every variable.
    #[error("{path} may have read any variable", path = .0.display())]
    Walker(PathBuf),
    /// A macro wrote a file that is no output.
    #[error("it wrote {path}, which is no output", path = .0.display())]
    Wrote(PathBuf),
    /// A file that it looked at is gone.
    #[error("{path} is gone", path = .0.display())]
    Gone(PathBuf),
    /// An output is missing, too large or no file.
    #[error("{0} can't be kept")]
    Output(String),
    /// A text that can't be spelled with places.
    #[error("{0} can't be spelled with fixed places")]
    Spelling(String),
}

impl Unkept {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing-to-keep",
            Self::Contested => "output-contested",
            Self::Uncertain(Uncertain::Changed(_)) => "input-changed-meanwhile",
            Self::Uncertain(_) | Self::Gone(_) => "inputs-uncertain",
            Self::Unseen => "inputs-unseen",
            Self::Unknown(error) => error.code(),
            Self::Network => "network",
            Self::Walker(_) => "any-variable",
            Self::Wrote(_) => "extra-output",
            Self::Output(_) => "output-unusual",
            Self::Spelling(_) => "unusual-text",
        }
    }
}

/// Outputs above this size go into the store piece by piece and are never in memory as a whole.
const MAX_READ_BYTES: u64 = 256 << 10;

/// What an output is, spelled, and what keeps hold of its content.
struct Made {
    file: OutputFile,
    content: Content,
}

enum Content {
    Read(Vec<u8>),
    /// It is in the store already.
    Stored(Pin),
}

impl CratePlan {
    /// To be asked right before the compiler is started.
    pub fn before(&self) -> Before {
        let identity = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| FileIdentity::of(&meta));
        let outputs = self.request.outputs.iter().map(|output| identity(&self.absolute(&output.path))).collect();
        Before { start: SystemTime::now(), outputs }
    }

    /// Keeps what the run left behind, which the library `recorder` watched. Returns what it was seen to use.
    pub fn keep(
        &self,
        context: &Context,
        outcome: &LocalOutcome,
        before: &Before,
        recorder: &Path,
    ) -> Result<Seen, Unkept> {
        let is_certain = match outcome.exit_code {
            Some(0) => true,
            Some(failure::EXIT_CODE) => failure::is_certain(&outcome.stderr.0),
            _ => false,
        };
        if !is_certain || !outcome.complete || context.cache.store().is_none() {
            return Err(Unkept::Nothing);
        }
        if self.listed.contested() {
            return Err(Unkept::Contested);
        }
        if name_written_file(&outcome.stderr.0) {
            return Err(Unkept::Output("a file that messages name".to_owned()));
        }
        let seen = self.seen(outcome, recorder)?;
        match self.keep_as(context, outcome, before, &seen)? {
            Kept::Yes => {}
            Kept::Leaks => {
                let there = self.at_real_places();
                context.cache.index(&self.key, stays(), &ReadSet::default());
                there.keep_as(context, outcome, before, &seen)?;
            }
        }
        Ok(seen)
    }

    fn keep_as(&self, context: &Context, outcome: &LocalOutcome, before: &Before, seen: &Seen) -> Result<Kept, Unkept> {
        if self.roots.are_placed() && (seen.above || self.asks_for_places(seen)) {
            return Ok(Kept::Leaks);
        }
        let read_set = read_set::of(seen, &self.roots, &self.spelling(), &context.hashes, before.start)?;
        let exit_code = outcome.exit_code.unwrap_or_default();
        let Some(made) = self.outputs(before, exit_code == 0, context)? else { return Ok(Kept::Leaks) };
        let (mut blobs, mut held) = (BTreeMap::new(), Vec::new());
        let mut files = Vec::with_capacity(made.len());
        for Made { file, content } in made {
            match content {
                Content::Read(content) => drop(blobs.insert(file.digest, content)),
                Content::Stored(pin) => held.push(pin),
            }
            files.push(file);
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let mut stream = |bytes: &[u8], name: &str| -> Result<Digest, Unkept> {
            let text = self.roots.places().messages(bytes).map_err(|_| Unkept::Spelling(name.to_owned()))?;
            let digest = Digest::of(&text);
            blobs.insert(digest, text);
            Ok(digest)
        };
        let stdout = stream(&outcome.stdout.0, "standard output")?;
        let stderr = stream(&outcome.stderr.0, "standard error")?;
        blobs.retain(|digest, _| digest.size_bytes > 0);
        let provenance = Provenance {
            peer: context.identity.peer(),
            sandboxed: false,
            wall_ms: outcome.wall_ms,
            cpu_ms: 0,
            peak_memory_bytes: 0,
        };
        let action = made_here(&self.key, &read_set);
        let result = ActionResult { action, exit_code, outputs: files, stdout, stderr, observed: None, provenance };
        let hit = Hit { signed: context.identity.sign_result(result), blobs };
        context.cache.keep(&hit, &self.key, &read_set);
        drop(held);
        if exit_code == 0 {
            remember_needs(context, &hit, &read_set, &self.request.native_libraries);
            self.remember_recipe(context, &hit);
        }
        Ok(Kept::Yes)
    }

    /// Has its libraries made for agents' hosts, should those come to need them.
    pub fn remember_recipe(&self, context: &Context, made: &Hit) {
        if context.settings.compilers == Compilers::Equivalent {
            recipe::remember(context, self, made);
        }
    }

    /// Whether the crate's text, or a macro, asks for a variable that holds a root's place: what becomes of it (turned around, hashed,
    /// measured) need not show in the outputs' bytes. `OUT_DIR` may be asked for in front of the name of a file that is included.
    pub(super) fn asks_for_places(&self, seen: &Seen) -> bool {
        let places = self.roots.places();
        let holds_place = |name: &String| {
            let value = self.call.env.iter().find(|(known, _)| known == name);
            value.is_some_and(|(_, value)| places.text(value) != *value)
        };
        // Clippy itself begins its search for settings there, before it reads any macro.
        let is_drivers =
            |name: &str| self.request.driver == RustDriver::Clippy && name == PACKAGE && !seen.late_env.contains(name);
        let asked = seen.env.iter().filter(|name| *name != OUT_DIR && !is_drivers(name)).chain(&seen.spoken);
        asked.into_iter().any(holds_place) || (seen.env.contains(OUT_DIR) && keeps_out_dir(seen))
    }

    /// Everything that was written, in fixed spelling; `None` where a path shows in it. A compile that fails may have written any part of it.
    fn outputs(&self, before: &Before, succeeded: bool, context: &Context) -> Result<Option<Vec<Made>>, Unkept> {
        let leaks = Leaks::of(&self.roots);
        let spelling = self.spelling();
        let mut made = Vec::new();
        let mut size = 0;
        for (output, before) in self.request.outputs.iter().zip(&before.outputs) {
            let path = self.absolute(&output.path);
            let unusual = || Unkept::Output(path.display().to_string());
            let may_lack = if succeeded { !output.always } else { before.is_none() };
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(_) if may_lack => continue,
                Err(_) => return Err(unusual()),
            };
            // One that need not be written may be an earlier compile's.
            if !(output.always && succeeded) && Some(FileIdentity::of(&meta)) == *before {
                continue;
            }
            size += meta.len();
            if !meta.is_file() || size > MAX_RESULT_CONTENT_BYTES {
                return Err(unusual());
            }
            let Some((digest, content)) = self.content(context, (&path, &meta), output.what, &leaks)? else {
                return Ok(None);
            };
            let mode = if FileIdentity::of(&meta).is_executable() { NEW_PROGRAM_MODE } else { NEW_FILE_MODE };
            let place = spelling.place(&path).ok_or_else(unusual)?;
            let is_unchanged =
                fs::symlink_metadata(&path).is_ok_and(|now| FileIdentity::of(&now) == FileIdentity::of(&meta));
            if is_unchanged && output.what != RustOutputKind::DepInfo {
                context.hashes.remember_made(&path, digest, &meta);
            } else if !is_unchanged && matches!(content, Content::Stored(_)) {
                return Err(unusual());
            }
            made.push(Made { file: OutputFile { path: place, digest, mode }, content });
        }
        Ok(Some(made))
    }

    /// Content of an output, in fixed spelling; `None` where a path shows in it.
    fn content(
        &self,
        context: &Context,
        (path, meta): (&Path, &fs::Metadata),
        what: RustOutputKind,
        leaks: &Leaks,
    ) -> Result<Option<(Digest, Content)>, Unkept> {
        let unusual = || Unkept::Output(path.display().to_string());
        if what == RustOutputKind::DepInfo {
            let content = fs::read(path).map_err(|_| unusual())?;
            let content = self.roots.places().dep_info(&content);
            let content = content.map_err(|_| Unkept::Spelling(path.display().to_string()))?;
            return Ok(Some((Digest::of(&content), Content::Read(content))));
        }
        if meta.len() <= MAX_READ_BYTES {
            let content = fs::read(path).map_err(|_| unusual())?;
            let is_clean = !leaks.are_in(&content);
            return Ok(is_clean.then(|| (Digest::of(&content), Content::Read(content))));
        }
        let mut file = fs::File::open(path).map_err(|_| unusual())?;
        let mut search = leaks.search();
        let stored = context.cache.keep_file(&mut file, path, meta.len(), &mut |piece| !search.are_in(piece));
        Ok(stored.map_err(|NotKept| unusual())?.map(|(digest, pin)| (digest, Content::Stored(pin))))
    }
}

/// Whether a source uses `OUT_DIR` other than to name a file that it includes.
fn keeps_out_dir(seen: &Seen) -> bool {
    let sources = seen.files.iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "rs"));
    let keeps = |path: &PathBuf| {
        // One that can't be read any more is found changed in any case.
        let text = fs::read(path).unwrap_or_default();
        Finder::new(OUT_DIR).find(&text).is_some() && scan(&text).kept_variables.contains(OUT_DIR)
    };
    sources.into_iter().any(keeps)
}

/// Has later actions know what the crate's libraries need.
pub fn remember_needs(context: &Context, made: &Hit, read: &ReadSet, native: &[NativeLibrary]) {
    let Some(store) = context.cache.store() else { return };
    let libraries = made.signed.result.outputs.iter().filter(|file| closure::stem_of(&file.path).is_some());
    for library in libraries {
        let later = native.iter().filter(|library| library.is_for_dependants()).map(NativeLibrary::linker_name);
        if let Err(error) = closure::remember(store, &library.digest, read, later) {
            tracing::debug!(%error, "what a library needs is not kept");
        }
    }
}

enum Kept {
    Yes,
    /// It holds paths of this machine.
    Leaks,
}

/// The name of an action that ran here under no agent's eyes: nobody else can have the same.
pub fn made_here(key: &Digest, read_set: &ReadSet) -> Digest {
    let mut bytes = b"bbH1".to_vec();
    bytes.extend_from_slice(key.to_string().as_bytes());
    bytes.extend_from_slice(&read_set.to_canonical());
    Digest::of(&bytes)
}

/// Real folders whose names no output may hold.
struct Leaks {
    /// Without those that begin with another.
    folders: Vec<Finder<'static>>,
    longest: usize,
}

impl Leaks {
    fn of(roots: &Roots) -> Self {
        let moved = roots.iter().filter(|_| roots.are_placed());
        let moved: BTreeSet<&[u8]> = moved.map(|(_, real, _)| real.as_os_str().as_encoded_bytes()).collect();
        let has_other = |name: &&[u8]| moved.iter().any(|other| other != name && name.starts_with(other));
        let names: Vec<&[u8]> = moved.iter().copied().filter(|name| !has_other(name)).collect();
        let longest = names.iter().map(|name| name.len()).max().unwrap_or_default();
        Self { folders: names.into_iter().map(|name| Finder::new(name).into_owned()).collect(), longest }
    }

    fn are_in(&self, content: &[u8]) -> bool {
        self.folders.iter().any(|finder| finder.find(content).is_some())
    }

    fn search(&self) -> LeakSearch<'_> {
        LeakSearch { leaks: self, seam: Vec::new() }
    }
}

/// A search through content that comes in pieces.
struct LeakSearch<'a> {
    leaks: &'a Leaks,
    /// The end of what came last.
    seam: Vec<u8>,
}

impl LeakSearch<'_> {
    fn are_in(&mut self, piece: &[u8]) -> bool {
        // A name may begin in what came before, and end at the earliest here.
        let most = self.leaks.longest.saturating_sub(1);
        let n_before = self.seam.len();
        self.seam.extend_from_slice(&piece[..most.min(piece.len())]);
        if (n_before > 0 && self.leaks.are_in(&self.seam)) || self.leaks.are_in(piece) {
            return true;
        }
        if piece.len() >= most {
            self.seam.clear();
            self.seam.extend_from_slice(&piece[piece.len() - most..]);
        } else {
            self.seam.drain(..self.seam.len().saturating_sub(most));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rust::roots::{PathSetting, RootKind};

    proptest! {
        #[test]
        fn what_is_found_in_the_whole_is_found_in_pieces(
            content in prop::collection::vec(prop::sample::select(b"/abx".to_vec()), 0..60),
            cuts in prop::collection::vec(1usize..9, 0..30),
        ) {
            let roots = [(RootKind::Workspace, Path::new("/ab")), (RootKind::Target, Path::new("/ab/b")), (RootKind::CargoHome, Path::new("/bab/a"))];
            let leaks = Leaks::of(&Roots::new(PathSetting::Portable, roots));
            prop_assert_eq!(leaks.folders.len(), 2, "one begins with another");
            let mut search = leaks.search();
            let (mut rest, mut found) = (&content[..], false);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                found |= search.are_in(piece);
                rest = after;
            }
            found |= search.are_in(rest);
            prop_assert_eq!(found, leaks.are_in(&content));
        }
    }
}
