//! A crate's metadata, put in place before its compile on an agent has ended, so that cargo starts its dependants meanwhile.
//!
//! By then the compiler has read and expanded all of the crate: what it was seen to ask for so far is judged as at the end, and only what
//! would count then is handed out. What comes of the end is not known yet; a compile that takes the agent's place must make the same
//! metadata (the wrapper looks). Blocks.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::local::LocalReply;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance, SignedResult};
use buildbee_proto::peer::Signature;

use super::super::cache::Hit;
use super::super::context::Context;
use super::action::CrateJob;
use super::plan::CratePlan;
use crate::dispatch::attempt::EarlyOutput;
use crate::dispatch::job::Job;
use crate::rust::request::RustOutputKind;

impl CratePlan {
    /// The metadata's place among the outputs of `job`, if cargo goes on with it.
    pub fn early_output(&self, job: &Job) -> Option<u32> {
        let is_metadata = |what: RustOutputKind| what == RustOutputKind::Metadata;
        let metadata =
            self.request.outputs.iter().find(|output| is_metadata(output.what)).filter(|_| self.request.pipelined)?;
        let name = metadata.path.file_name()?.to_str()?;
        let is_it = |place: &str| place.rsplit('/').next() == Some(name);
        let at = job.outputs.iter().position(|output| is_it(output.place.as_str()))?;
        u32::try_from(at).ok()
    }

    /// Puts the metadata in place, and says what the wrapper is told; `None`: it has to wait for the end.
    pub fn release(&self, context: &Context, given: &CrateJob, early: EarlyOutput) -> Option<LocalReply> {
        let path = self.spelling().real(&early.file.path);
        let hit = partial(given, early)?;
        if let Err(objection) = self.verdict(given, &hit) {
            tracing::debug!(code = objection.why.0, "metadata waits for the end");
            return None;
        }
        let Some(LocalReply::Done { stderr, .. }) = self.reply(&hit) else { return None };
        if let Err(error) = self.put_in_place(&hit, &context.cache, None) {
            tracing::info!(%error, "metadata could not be put in place");
            return None;
        }
        if let Some(farm) = &context.farm {
            farm.made(&hit.signed.result);
        }
        Some(LocalReply::Print {
            stderr,
            metadata: Bytes(path.into_os_string().into_encoded_bytes()),
            extra_arguments: self.request.added_arguments.clone(),
        })
    }

    /// Whether a run here that printed `stderr` has told cargo of its metadata, and it is what the output `file` is.
    pub fn has_told(&self, stderr: &[u8], file: &OutputFile) -> bool {
        let path = self.spelling().real(&file.path);
        let is_there = || fs::read(&path).is_ok_and(|content| Digest::of(&content) == file.digest);
        path.file_name().is_some_and(|name| announces(stderr, name.as_bytes())) && is_there()
    }
}

/// Whether a line says that a file of this name is written.
fn announces(stderr: &[u8], name: &[u8]) -> bool {
    let has = |line: &[u8], part: &[u8]| memchr::memmem::find(line, part).is_some();
    stderr.split(|byte| *byte == b'\n').any(|line| has(line, br#""artifact":"#) && has(line, name))
}

/// What is known by then, as a result. Nobody has signed it, and it is not kept.
fn partial(given: &CrateJob, early: EarlyOutput) -> Option<Hit> {
    let observed = early.observed?;
    let [stderr, observed_digest] = [&early.stderr, &observed].map(|content| Digest::of(content));
    let provenance = Provenance { peer: early.agent, sandboxed: true, wall_ms: 0, cpu_ms: 0, peak_memory_bytes: 0 };
    let result = ActionResult {
        action: given.job.action,
        exit_code: 0,
        outputs: vec![early.file.clone()],
        stdout: Digest::of(b""),
        stderr,
        observed: Some(observed_digest),
        provenance,
    };
    let blobs =
        BTreeMap::from([(early.file.digest, early.content), (stderr, early.stderr), (observed_digest, observed)]);
    Some(Hit { signed: SignedResult { result, signature: Signature([0; 64]) }, blobs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_notice_of_the_file_tells_of_it() {
        let notice = br#"{"$message_type":"artifact","artifact":"/t/deps/libx-1.rmeta","emit":"metadata"}"#;
        let warning = br#"{"$message_type":"diagnostic","message":"libx-1.rmeta"}"#;
        let both = [&warning[..], b"\n", notice, b"\n"].concat();
        assert!(announces(&both, b"libx-1.rmeta") && !announces(&both, b"liby-1.rmeta"));
        assert!(!announces(warning, b"libx-1.rmeta") && !announces(b"", b"libx-1.rmeta"));
    }
}
