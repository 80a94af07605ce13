//! The watch: looks at the owner's signs, asks the core, and has everybody do as it says.
//!
//! Life cycle: one task for the life of the agent. While work runs, or is held, it looks ten times a second at what is cheap to look at;
//! else once a second, and at once when a slot is taken. SIGUSR1 counts as a key that was pressed. Not here: what a run does when it
//! hears that it is to give way ([`session`](crate::session), [`executor`](crate::executor)).

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use buildbee_sandbox::launcher::Launcher;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::core::{Core, Decision, Phase};
use super::pause::{Status, unix_seconds};
use super::signals::{Seen, Signal};
use crate::config::Mode;
use crate::lease::slots::Slots;

/// From one look to the next while something could have to give way.
const ALERT_PERIOD: Duration = Duration::from_millis(100);
/// While nothing could.
const CALM_PERIOD: Duration = Duration::from_secs(1);

/// What the watch is made of.
#[derive(Debug)]
pub struct Watch {
    /// Decides.
    pub core: Core,
    /// When to lend, for whoever asks.
    pub mode: Mode,
    /// What is looked at.
    pub signals: Vec<Box<dyn Signal>>,
    /// What is lent.
    pub slots: Slots,
    /// Holds what runs.
    pub launcher: Launcher,
    /// Where runs hear of it.
    pub phase: watch::Sender<Phase>,
    /// Where people can see how it stands.
    pub status_file: PathBuf,
}

/// Watches until `stop`.
pub async fn watch_task(watch: Watch, stop: CancellationToken) {
    let status_file = watch.status_file.clone();
    stop.run_until_cancelled(Box::pin(Actor::new(watch).run())).await;
    drop(std::fs::remove_file(status_file));
}

struct Actor {
    watch: Watch,
    seen: Seen,
    /// When each signal is to be looked at again.
    due: Vec<Duration>,
    /// The watch's clock began at this time of day, so that ages of files can be told on it.
    base: Duration,
    started: Instant,
    last: Option<Decision>,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lend => "lend",
            Self::Hold => "hold",
            Self::HandBack => "hand back",
        })
    }
}

impl Actor {
    fn new(watch: Watch) -> Self {
        let base = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let due = vec![Duration::ZERO; watch.signals.len()];
        Self { watch, seen: Seen::default(), due, base, started: Instant::now(), last: None }
    }

    fn now(&self) -> Duration {
        self.base + self.started.elapsed()
    }

    async fn run(&mut self) {
        let mut pressed = signal(SignalKind::user_defined1())
            .inspect_err(|error| tracing::warn!(%error, "SIGUSR1 can't be listened to"))
            .ok();
        loop {
            let now = self.now();
            for (signal, due) in self.watch.signals.iter_mut().zip(&mut self.due) {
                if *due <= now {
                    *due = now + signal.period();
                    signal.look(now, &mut self.seen);
                }
            }
            let decision = self.watch.core.step(now, &self.seen);
            self.carry_out(decision).await;
            let alert = self.watch.slots.n_busy() > 0 || decision.phase == Phase::Hold;
            tokio::select! {
                () = sleep(if alert { ALERT_PERIOD } else { CALM_PERIOD }) => {}
                () = self.watch.slots.taken(), if !alert => {}
                () = next(pressed.as_mut()) => self.seen.input(self.now()),
            }
        }
    }

    async fn carry_out(&mut self, decision: Decision) {
        let before = self.last.replace(decision);
        if before == Some(decision) {
            return;
        }
        if before.map(|before| before.n_slots) != Some(decision.n_slots) {
            self.watch.slots.lend(decision.n_slots);
        }
        let phase_before = before.map_or(Phase::Lend, |before| before.phase);
        if phase_before != decision.phase {
            // First what runs in sandboxes stops, so that the processor is free; then others hear of it.
            let (is_held, was_held) = (decision.phase != Phase::Lend, phase_before != Phase::Lend);
            if is_held != was_held {
                self.watch.launcher.hold(is_held).await;
            }
            self.watch.phase.send_replace(decision.phase);
        }
        let Decision { n_slots, phase, why } = decision;
        tracing::info!(n_slots, %phase, %why, n_busy = self.watch.slots.n_busy(), "lending");
        let status = Status {
            pid: std::process::id(),
            mode: self.watch.mode.to_string(),
            lent: n_slots,
            slots: self.watch.slots.n_slots(),
            phase: phase.to_string(),
            why: why.to_string(),
            since: unix_seconds(SystemTime::now()),
        };
        if let Err(error) = status.write(&self.watch.status_file) {
            tracing::debug!(%error, "the status can't be written");
        }
    }
}

/// Waits for one more signal; for ever where there is nothing to hear.
async fn next(stream: Option<&mut SignalStream>) {
    let heard = match stream {
        Some(stream) => stream.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending::<()>().await;
    }
}
