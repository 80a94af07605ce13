//! What the scheduler knows, for people: a bounded copy of its state. Pure, and changes nothing. Names of clients are the caller's to add.

use std::time::Duration;

use buildbee_proto::control::Offer;
use buildbee_proto::peer::PeerId;

use super::{Core, Counts, Totals};
use crate::scheduler::agents::Agent;
use crate::scheduler::deal::Standing;

/// Agents, and clients, that are listed; of further ones only the counts are told.
pub const MAX_LISTED: usize = 500;

/// The state at one moment.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Of everything, listed or not.
    pub counts: Counts,
    /// Slots in which something runs, as the agents said when they last called.
    pub n_busy: usize,
    /// Slots that are dealt and in which nothing runs.
    pub n_leased: usize,
    /// Since the start.
    pub totals: Totals,
    /// At most [`MAX_LISTED`].
    pub agents: Vec<AgentOverview>,
    /// At most [`MAX_LISTED`].
    pub clients: Vec<ClientOverview>,
}

/// One agent.
#[derive(Clone, Debug)]
pub struct AgentOverview {
    /// Who.
    pub peer: PeerId,
    /// What it lends.
    pub offer: Offer,
    /// In the order in which they were minted.
    pub slots: Vec<SlotOverview>,
    /// Since its last call.
    pub silent_for: Duration,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotOverview {
    /// Whether something ran in it when the agent last called.
    pub busy: bool,
    /// Whom it is dealt to.
    pub client: Option<PeerId>,
}

/// One client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOverview {
    /// Who.
    pub peer: PeerId,
    /// Slots that it could use.
    pub n_wanted: usize,
    /// Slots that it may use.
    pub n_held: usize,
    /// Slots that it was told to let go.
    pub n_recalled: usize,
    /// Its fair share of what there is now.
    pub n_share: usize,
    /// Of its slots, those in which something runs.
    pub n_busy: usize,
    /// Since its last call.
    pub silent_for: Duration,
}

impl Core {
    /// The state at `now`, as the last event left it.
    pub fn overview(&self, now: Duration) -> Overview {
        let mut overview = Overview { counts: self.counts(), totals: self.totals, ..Overview::default() };
        for (_, slot) in self.agents.iter().flat_map(Agent::slots) {
            overview.n_busy += usize::from(slot.busy);
            overview.n_leased += usize::from(!slot.busy && slot.dealt);
        }
        let agents = self.agents.iter().take(MAX_LISTED).map(|agent| AgentOverview {
            peer: agent.peer,
            offer: agent.offer.clone(),
            slots: (agent.slots())
                .map(|(token, slot)| SlotOverview {
                    busy: slot.busy,
                    client: self.deals.get(&token).map(|deal| deal.client),
                })
                .collect(),
            silent_for: now.saturating_sub(agent.last_call),
        });
        overview.agents = agents.collect();
        let clients = self.clients.iter().take(MAX_LISTED);
        overview.clients = clients
            .map(|(peer, client)| ClientOverview {
                peer: *peer,
                n_wanted: client.demand.n_wanted,
                n_held: self.deals.count(*peer, Standing::Good),
                n_recalled: self.deals.count(*peer, Standing::Recalled),
                n_share: self.share(peer),
                n_busy: self.n_busy_of(*peer),
                silent_for: now.saturating_sub(client.last_call),
            })
            .collect();
        overview
    }

    fn n_busy_of(&self, client: PeerId) -> usize {
        let tokens = [Standing::Good, Standing::Recalled].map(|standing| self.deals.of_client(client, standing));
        tokens.iter().flatten().filter(|token| self.agents.slot(token).is_some_and(|slot| slot.busy)).count()
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::control::{AgentState, Class, ClientState};
    use buildbee_proto::lease::{SlotReport, SlotToken};

    use super::super::Event;
    use super::*;

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn agent(core: &mut Core, now: u64, id: u8, busy: &[bool]) {
        let peer = PeerId([id; 32]);
        let report = |(counter, busy): (u64, &bool)| SlotReport {
            token: SlotToken { agent: peer, boot_id: 1, counter },
            dealt_to: None,
            expires_in_ms: 0,
            busy: *busy,
        };
        let slots = (0..).zip(busy).map(report).collect();
        core.step(
            second(now),
            Event::AgentSync {
                peer,
                state: AgentState { offer: Offer::default(), slots, roster_version: 0, listing: 0 },
            },
        );
    }

    fn client(core: &mut Core, now: u64, id: u8, n_wanted: u32) {
        let state = ClientState {
            n_wanted,
            toolchains: vec![],
            held: vec![],
            roster_version: 0,
            listing: 0,
            class: Class::Interactive,
        };
        core.step(second(now), Event::ClientSync { peer: PeerId([id; 32]), state });
    }

    #[test]
    fn slots_are_shown_with_who_has_them() {
        let mut core = Core::new();
        agent(&mut core, 0, 1, &[false, false, true]);
        client(&mut core, 1, 9, 1);
        agent(&mut core, 2, 1, &[true, false, true]);
        let overview = core.overview(second(3));
        let shown = |busy, client| SlotOverview { busy, client };
        let holder = Some(PeerId([9; 32]));
        assert_eq!(overview.agents[0].slots, [shown(true, holder), shown(false, None), shown(true, None)]);
        assert_eq!((overview.counts.n_slots, overview.n_busy, overview.n_leased), (3, 2, 0));
        assert_eq!(overview.agents[0].silent_for, second(1));
        let ClientOverview { n_wanted, n_held, n_share, n_busy, silent_for, .. } = overview.clients[0];
        assert_eq!((n_wanted, n_held, n_share, n_busy, silent_for), (1, 1, 1, 1, second(2)));
        assert_eq!(overview.totals, Totals { n_agent_calls: 2, n_client_calls: 1, n_deals: 1 });
    }

    #[test]
    fn shares_stand_beside_their_clients() {
        let mut core = Core::new();
        agent(&mut core, 0, 1, &[false; 6]);
        client(&mut core, 0, 7, 1);
        client(&mut core, 0, 8, 100);
        client(&mut core, 0, 9, 3);
        let shares: Vec<usize> = core.overview(second(0)).clients.iter().map(|client| client.n_share).collect();
        assert_eq!(shares, [1, 3, 2], "the odd slot stays with who holds more");
    }

    #[test]
    fn a_large_farm_is_counted_and_not_listed() {
        let mut core = Core::new();
        for n in 0..MAX_LISTED + 7 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            let state = ClientState {
                n_wanted: 0,
                toolchains: vec![],
                held: vec![],
                roster_version: 0,
                listing: 0,
                class: Class::Interactive,
            };
            core.step(second(0), Event::ClientSync { peer: PeerId(id), state });
        }
        let overview = core.overview(second(0));
        assert_eq!((overview.clients.len(), overview.counts.n_clients), (MAX_LISTED, MAX_LISTED + 7));
    }
}
