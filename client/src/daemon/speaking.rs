//! Of many wrappers that wait for the same, one says so.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One wrapper's turn to speak, kept until it is dropped.
#[derive(Debug)]
pub struct OneSpeaks {
    turns: Arc<Semaphore>,
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl OneSpeaks {
    /// Takes turns with all others on `turns`, which has one.
    pub fn new(turns: &Arc<Semaphore>) -> Self {
        Self { turns: Arc::clone(turns), turn: Mutex::default() }
    }

    /// `text`, if there is any and it is this one's turn.
    pub fn say(&self, text: Option<String>) -> Option<String> {
        // One value in place of another: nothing can be left half done under the lock.
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(text) = text else {
            turn.take();
            return None;
        };
        if turn.is_none() {
            *turn = Arc::clone(&self.turns).try_acquire_owned().ok();
        }
        turn.is_some().then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_speaks_until_it_has_nothing_to_say() {
        let turns = Arc::new(Semaphore::new(1));
        let (first, second) = (OneSpeaks::new(&turns), OneSpeaks::new(&turns));
        let text = || Some("text".to_owned());
        assert_eq!((first.say(text()), second.say(text()), first.say(text())), (text(), None, text()));
        assert_eq!((first.say(None), second.say(text()), first.say(text())), (None, text(), None));
        drop(second);
        assert_eq!(first.say(text()), text());
    }
}
