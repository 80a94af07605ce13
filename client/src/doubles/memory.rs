//! Verdicts on pairs, kept in a file from one daemon to the next: proving a pair takes seconds on a board, and comes to the same.
//!
//! A file that can't be read or written is done without. What it says is this user's own word to themselves.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::pair::{Dressed, Group};
use super::probes::VERSION;

/// Verdicts kept; the oldest go first.
const MAX_VERDICTS: usize = 256;
/// More can't be of ours.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What came of proving a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// They are alike; their objects are for this machine.
    Alike {
        /// [`Machine::text`].
        machine: String,
    },
    /// They are not, and why.
    Unlike {
        /// For people.
        why: String,
    },
}

/// A pair in one language, as it was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    compiler: String,
    double: String,
    group: String,
    probes: u32,
    arguments: Vec<String>,
    verdict: Verdict,
}

/// The file and what is in it.
#[derive(Debug)]
pub struct Memory {
    file: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl Memory {
    /// Reads `file`, if it is there.
    pub fn open(file: PathBuf) -> Self {
        let is_small = fs::metadata(&file).is_ok_and(|meta| meta.len() <= MAX_FILE_BYTES);
        let text = if is_small { fs::read_to_string(&file).unwrap_or_default() } else { String::new() };
        let entries: Vec<Entry> = serde_json::from_str(&text).unwrap_or_default();
        Self { file, entries: Mutex::new(entries) }
    }

    /// What is known of `dressed` as the double of `compiler`.
    pub fn verdict(&self, compiler: &str, dressed: &Dressed, group: Group) -> Option<Verdict> {
        let wanted = entry(compiler, dressed, group, Verdict::Unlike { why: String::new() });
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().find(|known| known.is_about(&wanted))?;
        match &found.verdict {
            Verdict::Alike { machine } if Machine::from_text(machine).is_none() => None,
            verdict => Some(verdict.clone()),
        }
    }

    /// Keeps a verdict. Blocks.
    pub fn keep(&self, compiler: &str, dressed: &Dressed, group: Group, verdict: Verdict) {
        let fresh = entry(compiler, dressed, group, verdict);
        let text = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|known| !known.is_about(&fresh));
            entries.push(fresh);
            let surplus = entries.len().saturating_sub(MAX_VERDICTS);
            entries.drain(..surplus);
            serde_json::to_string_pretty(&*entries).unwrap_or_default()
        };
        if let Err(error) = buildbee_p2p::private_file::replace(&self.file, text.as_bytes()) {
            tracing::warn!(file = %self.file.display(), %error, "verdicts on doubles are not kept");
        }
    }
}

impl Entry {
    fn is_about(&self, other: &Self) -> bool {
        let key = |entry: &Self| {
            let Self { compiler, double, group, probes, arguments, .. } = entry.clone();
            (compiler, double, group, probes, arguments)
        };
        key(self) == key(other)
    }
}

fn entry(compiler: &str, dressed: &Dressed, group: Group, verdict: Verdict) -> Entry {
    use buildbee_proto::canonical::Canonical;
    Entry {
        compiler: compiler.to_owned(),
        double: dressed.double.digest().to_string(),
        group: group.word().to_owned(),
        probes: VERSION,
        arguments: dressed.front.iter().chain(&dressed.folders).cloned().collect(),
        verdict,
    }
}
