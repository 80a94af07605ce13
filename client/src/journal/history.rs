//! The last few questions about each source: what a miss is compared with. Bounded; what is forgotten makes an explanation poorer, and
//! nothing else.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::digest::Digest;

use super::difference::{self, Difference};
use super::question::Question;

/// Sources remembered; the one that was new longest ago makes way.
const MAX_SOURCES: usize = 4_000;
/// Different questions about one source; the oldest makes way.
const MAX_QUESTIONS: usize = 4;

/// A question that was met.
#[derive(Clone, Debug)]
struct Met {
    key: Digest,
    question: Arc<Question>,
}

/// The memory. Not shared: whoever owns it locks.
#[derive(Debug, Default)]
pub struct History {
    sources: HashMap<PathBuf, VecDeque<Met>>,
    /// In the order in which they came.
    order: VecDeque<PathBuf>,
}

/// What is known of questions before one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// The question itself is not remembered any more.
    Forgotten,
    /// None about this source.
    Nothing,
    /// In what the nearest one differs.
    Nearest(Vec<Difference>),
}

impl History {
    /// Remembers a question about `source` (absolute) by its `key`. Called for hits too: then it is known already, and this costs one
    /// look.
    pub fn met(&mut self, source: &Path, key: Digest, question: Question) {
        if let Some(known) = self.sources.get_mut(source) {
            if known.iter().any(|met| met.key == key) {
                return;
            }
            if known.len() >= MAX_QUESTIONS {
                known.pop_front();
            }
            known.push_back(Met { key, question: Arc::new(question) });
            return;
        }
        if self.order.len() >= MAX_SOURCES
            && let Some(oldest) = self.order.pop_front()
        {
            self.sources.remove(&oldest);
        }
        self.order.push_back(source.to_owned());
        self.sources.insert(source.to_owned(), VecDeque::from([Met { key, question: Arc::new(question) }]));
    }

    /// What the question `key` about `source` is to be compared with, and in what they differ. Of those that differ in equally many
    /// things the latest counts.
    pub fn before(&self, source: &Path, key: &Digest) -> Earlier {
        let known = self.sources.get(source);
        let place = known.and_then(|known| known.iter().position(|met| met.key == *key));
        let (Some(known), Some(place)) = (known, place) else { return Earlier::Forgotten };
        let now = &known[place].question;
        let differences = known.iter().take(place).rev().map(|met| difference::of_questions(&met.question, now));
        differences.min_by_key(Vec::len).map_or(Earlier::Nothing, Earlier::Nearest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Digest {
        Digest::of(number.to_string().as_bytes())
    }

    #[test]
    fn the_nearest_earlier_question_is_found() {
        let mut history = History::default();
        let source = Path::new("/p/a.c");
        assert_eq!(history.before(source, &key(0)), Earlier::Forgotten);
        for (number, arguments) in [["-O0", "-g"], ["-O2", "-Wall"], ["-O2", "-g"]].iter().enumerate() {
            history.met(source, key(number), Question::with(arguments));
        }
        assert_eq!(history.before(source, &key(0)), Earlier::Nothing);
        let Earlier::Nearest(found) = history.before(source, &key(2)) else { panic!() };
        let words: Vec<_> = found.into_iter().map(|found| (found.was, found.now)).collect();
        assert_eq!(
            words,
            [(Some("-Wall".into()), None), (None, Some("-g".into()))],
            "the later of two that are as near"
        );
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut history = History::default();
        for number in 0..MAX_SOURCES + 10 {
            history.met(Path::new(&format!("/p/{number}.c")), key(number), Question::with(&[]));
        }
        assert_eq!((history.sources.len(), history.order.len()), (MAX_SOURCES, MAX_SOURCES));
        let last = PathBuf::from(format!("/p/{}.c", MAX_SOURCES + 9));
        for number in 0..10 {
            history.met(&last, key(number), Question::with(&[&number.to_string()]));
        }
        assert_eq!(history.sources[&last].len(), MAX_QUESTIONS);
        assert_eq!(history.before(&last, &key(0)), Earlier::Forgotten);
    }
}
