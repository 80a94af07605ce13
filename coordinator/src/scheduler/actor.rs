//! The task that owns the scheduler core: it adds the clock and hands each answer to who asked.
//!
//! Life: made by [`new`] with its handle, runs in [`Actor::run`] until its token is cancelled or the last handle is dropped. It never
//! waits for anything but the next call and the next tick.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::core::{Core, Effect, Event};
use super::handle::{Call, MAX_WAITING_CALLS, SchedulerHandle};

/// How often time passes for the core when nobody calls.
const TICK: Duration = Duration::from_secs(1);

/// The scheduler before it runs.
#[derive(Debug)]
pub struct Actor {
    core: Core,
    calls: mpsc::Receiver<Call>,
}

/// A scheduler that knows nobody, and its handle.
pub fn new() -> (Actor, SchedulerHandle) {
    let (sender, calls) = mpsc::channel(MAX_WAITING_CALLS);
    // Without randomness a peer could take the listing of an earlier run for the last one: streams end with a run, which does as well.
    let core = Core::numbering_from(getrandom::u64().map_or(0, |random| random >> 1));
    (Actor { core, calls }, SchedulerHandle { calls: sender })
}

impl Actor {
    /// Serves calls until `token` is cancelled or no handle is left.
    pub async fn run(mut self, token: CancellationToken) {
        let started = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                call = self.calls.recv() => match call {
                    Some(call) => self.serve(started.elapsed(), call),
                    None => return,
                },
                _ = ticks.tick() => {
                    self.core.step(started.elapsed(), Event::Tick);
                }
            }
        }
    }

    fn serve(&mut self, now: Duration, call: Call) {
        // A caller that has gone away does not want its answer: a failed send is no error.
        match call {
            Call::Agent { peer, state, reply } => {
                for effect in self.core.step(now, Event::AgentSync { peer, state }) {
                    if let Effect::ReplyAgent { desired, .. } = effect {
                        let _ = reply.send(desired);
                        return;
                    }
                }
            }
            Call::Client { peer, state, reply } => {
                for effect in self.core.step(now, Event::ClientSync { peer, state }) {
                    if let Effect::ReplyClient { desired, .. } = effect {
                        let _ = reply.send(desired);
                        return;
                    }
                }
            }
            Call::Gone { peer } => {
                self.core.step(now, Event::Gone { peer });
            }
            Call::Counts { reply } => {
                let _ = reply.send(self.core.counts());
            }
            Call::Overview { reply } => {
                let _ = reply.send(self.core.overview(now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::control::{AgentState, Class, ClientState, Offer};
    use buildbee_proto::lease::{SlotReport, SlotToken};
    use buildbee_proto::peer::PeerId;

    use super::*;

    #[tokio::test]
    async fn calls_are_answered_until_it_is_stopped() {
        let (actor, handle) = new();
        let token = CancellationToken::new();
        let running = tokio::spawn(actor.run(token.clone()));
        let (agent, client) = (PeerId([1; 32]), PeerId([2; 32]));
        let slot = SlotToken { agent, boot_id: 1, counter: 1 };
        let report = SlotReport { token: slot, dealt_to: None, expires_in_ms: 0, busy: false };
        let state = AgentState { offer: Offer::default(), slots: vec![report], roster_version: 0, listing: 0 };
        handle.agent(agent, state.clone()).await.unwrap();
        let wish = ClientState {
            n_wanted: 2,
            toolchains: vec![],
            held: vec![],
            roster_version: 0,
            class: Class::Interactive,
            listing: 0,
        };
        let desired = handle.client(client, wish).await.unwrap();
        assert_eq!(desired.leases.len(), 1);
        assert_eq!(handle.agent(agent, state).await.unwrap().dealt, [(slot, client)]);
        assert_eq!(handle.counts().await.unwrap().n_deals, 1);
        handle.gone(client).await.unwrap();
        assert_eq!(handle.counts().await.unwrap().n_deals, 0);
        token.cancel();
        running.await.unwrap();
        assert!(handle.counts().await.is_err());
    }
}
