//! How far a run is, and what of it may be had before it ends. Said by the run, heard by all who wait for it; keeps the last word only.

use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::execute::Stage;
use buildbee_store::Pin;
use tokio::sync::watch;

/// An output that was wanted before the program ended.
#[derive(Debug)]
pub struct Early {
    /// Its content, which the store has.
    pub output: Digest,
    /// Standard error up to and with the line that says that it is written.
    pub stderr: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Canonical bytes of what the program asked for so far, where that is wanted and known.
    pub observed: Option<Vec<u8>>,
    /// Keeps it there.
    pub pin: Pin,
}

/// Where a run stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What it does.
    pub stage: Stage,
    /// What can be had already.
    pub early: Option<Arc<Early>>,
}

/// Where a run says how far it is.
#[derive(Debug)]
pub struct Progress(watch::Sender<Standing>);

impl Progress {
    /// At the start, with the place where it is heard.
    pub fn new() -> (Self, watch::Receiver<Standing>) {
        let (sender, receiver) = watch::channel(Standing { stage: Stage::Fetching, early: None });
        (Self(sender), receiver)
    }

    /// It does this now.
    pub fn at(&self, stage: Stage) {
        self.0.send_modify(|standing| standing.stage = stage);
    }

    /// This can be had.
    pub fn early(&self, early: Early) {
        self.0.send_modify(|standing| standing.early = Some(Arc::new(early)));
    }

    /// It stands where another one does.
    pub fn follow(&self, standing: Standing) {
        self.0.send_replace(standing);
    }
}
