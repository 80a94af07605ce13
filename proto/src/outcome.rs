//! What came of an action, signed by who ran it.

use crate::canonical::{Canonical, CanonicalError, Reader, Writer, check_ascending};
use crate::digest::Digest;
use crate::limits::{MAX_ENVIRONMENT, MAX_OUTPUTS, MAX_READ_SET};
use crate::path::RelPath;
use crate::peer::{PeerId, Signature};
use crate::tree::Twin;

/// A file that the action left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Where, below the action's root.
    pub path: RelPath,
    /// Content.
    pub digest: Digest,
    /// Permission bits as the program left them under umask 0 (so that a client can apply its own).
    pub mode: u32,
}

/// What the compiler is known to have used or looked for. All lists are sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// Files read, with their content.
    pub files: Vec<(RelPath, Digest)>,
    /// Names looked for and not found.
    pub absent: Vec<RelPath>,
    /// Symlinks followed, with their targets.
    pub symlinks: Vec<(RelPath, String)>,
    /// Of every file whose content stands in `files` more than once: its place there, and which of them it is.
    pub twins: Vec<(u32, Twin)>,
    /// Folders whose names were listed, with the digest of the names (see [`names_digest`]).
    pub listed: Vec<(RelPath, Digest)>,
    /// Variables asked for, with their values; `None`: unset.
    pub env: Vec<(String, Option<String>)>,
}

/// Digest of the names in a folder: each with a NUL behind it, sorted by bytes.
pub fn names_digest(names: &mut [Vec<u8>]) -> Digest {
    names.sort_unstable();
    let mut text = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
    for name in names {
        text.extend_from_slice(name);
        text.push(0);
    }
    Digest::of(&text)
}

impl Canonical for ReadSet {
    const TAG: [u8; 4] = *b"bbR2";

    fn encode(&self, out: &mut Writer) {
        out.list(&self.files, |out, (path, digest)| {
            out.path(path);
            out.digest(digest);
        });
        out.list(&self.absent, Writer::path);
        out.list(&self.symlinks, |out, (path, target)| {
            out.path(path);
            out.text(target);
        });
        out.list(&self.twins, |out, (at, twin)| {
            out.u32(*at);
            twin.encode(out);
        });
        out.list(&self.listed, |out, (path, names)| {
            out.path(path);
            out.digest(names);
        });
        out.list(&self.env, |out, (name, value)| {
            out.text(name);
            out.option(value.as_ref(), |out, value| out.text(value));
        });
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let set = Self {
            files: input.list(MAX_READ_SET, |input| Ok((input.path()?, input.digest()?)))?,
            absent: input.list(MAX_READ_SET, Reader::path)?,
            symlinks: input.list(MAX_READ_SET, |input| Ok((input.path()?, input.text()?)))?,
            twins: input.list(MAX_READ_SET, |input| Ok((input.u32()?, Twin::decode(input)?)))?,
            listed: input.list(MAX_READ_SET, |input| Ok((input.path()?, input.digest()?)))?,
            env: input.list(MAX_ENVIRONMENT, |input| Ok((input.text()?, input.option(Reader::text)?)))?,
        };
        check_ascending(&set.files, "files read", |(path, _)| path)?;
        check_ascending(&set.absent, "absent names", |path| path)?;
        check_ascending(&set.symlinks, "symlinks", |(path, _)| path)?;
        check_ascending(&set.twins, "twins", |(at, _)| at)?;
        check_ascending(&set.listed, "listed folders", |(path, _)| path)?;
        check_ascending(&set.env, "variables", |(name, _)| name)?;
        if set.twins.last().is_some_and(|(at, _)| *at as usize >= set.files.len()) {
            return Err(CanonicalError::Range("twin"));
        }
        Ok(set)
    }
}

/// Who ran an action, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The peer that ran it, and whose key signs the result.
    pub peer: PeerId,
    /// Whether it ran in a sandbox. A client accepts unsandboxed results only of itself.
    pub sandboxed: bool,
    /// Wall time of the program in milliseconds.
    pub wall_ms: u64,
    /// User and system time of the program in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident size of the program in bytes.
    pub peak_memory_bytes: u64,
}

/// What an action left behind. A non-zero exit code is a successful execution of a program that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionResult {
    /// Digest of the [`Action`](crate::action::Action) that was run.
    pub action: Digest,
    /// The program's exit code, or 128 plus the signal that ended it.
    pub exit_code: i32,
    /// Files, sorted by path. Declared outputs that do not exist are left out.
    pub outputs: Vec<OutputFile>,
    /// Captured standard output.
    pub stdout: Digest,
    /// Captured standard error.
    pub stderr: Digest,
    /// What the program asked for ([`Observed`](crate::observed::Observed)), where that was to be recorded and is known.
    pub observed: Option<Digest>,
    /// Where it comes from.
    pub provenance: Provenance,
}

impl ActionResult {
    /// Everything that it names: outputs, standard output, standard error, what was observed. Some may be the same, some empty.
    pub fn content(&self) -> impl Iterator<Item = Digest> {
        let outputs = self.outputs.iter().map(|file| file.digest);
        outputs.chain([self.stdout, self.stderr]).chain(self.observed)
    }
}

impl Canonical for ActionResult {
    const TAG: [u8; 4] = *b"bbO2";

    fn encode(&self, out: &mut Writer) {
        out.digest(&self.action);
        out.i32(self.exit_code);
        out.list(&self.outputs, |out, file| {
            out.path(&file.path);
            out.digest(&file.digest);
            out.u32(file.mode);
        });
        out.digest(&self.stdout);
        out.digest(&self.stderr);
        out.option(self.observed.as_ref(), Writer::digest);
        out.raw(&self.provenance.peer.0);
        out.bool(self.provenance.sandboxed);
        out.u64(self.provenance.wall_ms);
        out.u64(self.provenance.cpu_ms);
        out.u64(self.provenance.peak_memory_bytes);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let result = Self {
            action: input.digest()?,
            exit_code: input.i32()?,
            outputs: input.list(MAX_OUTPUTS, |input| {
                Ok(OutputFile { path: input.path()?, digest: input.digest()?, mode: input.u32()? })
            })?,
            stdout: input.digest()?,
            stderr: input.digest()?,
            observed: input.option(Reader::digest)?,
            provenance: Provenance {
                peer: PeerId(input.array()?),
                sandboxed: input.bool()?,
                wall_ms: input.u64()?,
                cpu_ms: input.u64()?,
                peak_memory_bytes: input.u64()?,
            },
        };
        check_ascending(&result.outputs, "outputs", |file| &file.path)?;
        if result.outputs.iter().any(|file| file.mode & !0o777 != 0) {
            return Err(CanonicalError::Range("mode"));
        }
        Ok(result)
    }
}

/// A result with the signature, over its canonical encoding, of the peer that its provenance names.
///
/// Decoding does not check the signature: `buildbee_p2p::identity::verify` does, and no result is used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedResult {
    /// What was signed.
    pub result: ActionResult,
    /// By `result.provenance.peer`.
    pub signature: Signature,
}

impl Canonical for SignedResult {
    const TAG: [u8; 4] = *b"bbS2";

    fn encode(&self, out: &mut Writer) {
        self.result.encode(out);
        out.raw(&self.signature.0);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self { result: ActionResult::decode(input)?, signature: Signature(input.array()?) })
    }
}
