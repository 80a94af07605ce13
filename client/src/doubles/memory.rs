//! Verdicts on pairs, kept in a file from one daemon to the next: proving a pair takes seconds on a board, and comes to the same.
//!
//! A file that can't be read or written is done without. What it says is this user's own word to themselves.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::machine::Machine;

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

/// A pair in one language, and how it is proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The compiler's toolchain.
    pub compiler: String,
    /// Digest of what the double is.
    pub double: String,
    /// In which language.
    pub group: String,
    /// By which set of probes.
    pub probes: u32,
    /// What the double is told besides the user's arguments.
    pub arguments: Vec<String>,
}

/// A pair, as it was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    subject: Subject,
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

    /// What is known of a pair.
    pub fn verdict(&self, subject: &Subject) -> Option<Verdict> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().find(|known| known.subject == *subject)?;
        match &found.verdict {
            Verdict::Alike { machine } if Machine::from_text(machine).is_none() => None,
            verdict => Some(verdict.clone()),
        }
    }

    /// Keeps a verdict. Blocks.
    pub fn keep(&self, subject: Subject, verdict: Verdict) {
        let text = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|known| known.subject != subject);
            entries.push(Entry { subject, verdict });
            let surplus = entries.len().saturating_sub(MAX_VERDICTS);
            entries.drain(..surplus);
            serde_json::to_string_pretty(&*entries).unwrap_or_default()
        };
        if let Err(error) = buildbee_p2p::private_file::replace(&self.file, text.as_bytes()) {
            tracing::warn!(file = %self.file.display(), %error, "verdicts on doubles are not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_outlive_the_daemon_and_count_for_their_subject() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("doubles.json");
        let subject = Subject {
            compiler: "gcc".to_owned(),
            double: "x-gcc".to_owned(),
            group: "C".to_owned(),
            probes: 3,
            arguments: vec!["-isystem".to_owned()],
        };
        let unlike = Verdict::Unlike { why: "they differ".to_owned() };
        Memory::open(file.clone()).keep(subject.clone(), unlike.clone());
        let again = Memory::open(file);
        assert_eq!(again.verdict(&subject), Some(unlike));
        assert_eq!(again.verdict(&Subject { probes: 4, ..subject.clone() }), None);
        again.keep(subject.clone(), Verdict::Alike { machine: "no machine".to_owned() });
        assert_eq!(again.verdict(&subject), None);
    }
}
