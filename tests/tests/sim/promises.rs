//! What the coordinator has promised to whom, by its own words: no token to two clients at a time.
//!
//! A promise ends when it runs out, when the client says that it has let go, when its agent does not report the token any more or counts as
//! gone, and, for what no agent knows of, when the coordinator is started anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use buildbee_proto::control::{AgentState, ClientDesired, ClientState};
use buildbee_proto::lease::SlotToken;
use buildbee_proto::peer::PeerId;

#[derive(Debug, Default)]
pub(crate) struct Promises {
    holders: HashMap<SlotToken, (PeerId, Duration)>,
    of_clients: BTreeMap<PeerId, BTreeSet<SlotToken>>,
    of_agents: BTreeMap<PeerId, BTreeSet<SlotToken>>,
}

impl Promises {
    fn end(&mut self, token: &SlotToken) {
        if let Some((client, _)) = self.holders.remove(token) {
            self.of_clients.get_mut(&client).unwrap().remove(token);
            self.of_agents.get_mut(&token.agent).unwrap().remove(token);
        }
    }

    fn end_all(&mut self, tokens: &[SlotToken]) {
        for token in tokens {
            self.end(token);
        }
    }

    fn of_client(&self, client: &PeerId) -> impl Iterator<Item = &SlotToken> {
        self.of_clients.get(client).into_iter().flatten()
    }

    fn of_agent(&self, agent: &PeerId) -> impl Iterator<Item = &SlotToken> {
        self.of_agents.get(agent).into_iter().flatten()
    }

    /// An agent's report has arrived.
    pub(crate) fn agent_said(&mut self, agent: &PeerId, state: &AgentState) {
        let reported: BTreeSet<SlotToken> = state.slots.iter().map(|slot| slot.token).collect();
        let over: Vec<SlotToken> = self.of_agent(agent).filter(|token| !reported.contains(token)).copied().collect();
        self.end_all(&over);
    }

    /// The coordinator takes an agent for gone.
    pub(crate) fn agent_gone(&mut self, agent: &PeerId) {
        let over: Vec<SlotToken> = self.of_agent(agent).copied().collect();
        self.end_all(&over);
    }

    /// The coordinator takes a client for gone.
    pub(crate) fn client_gone(&mut self, client: &PeerId) {
        let over: Vec<SlotToken> = self.of_client(client).copied().collect();
        self.end_all(&over);
    }

    /// A client's state has arrived.
    pub(crate) fn client_said(&mut self, client: &PeerId, state: &ClientState) {
        let gives_back = state.held.len() > state.n_wanted as usize;
        let held: BTreeSet<SlotToken> = state.held.iter().copied().collect();
        let over: Vec<SlotToken> =
            self.of_client(client).filter(|token| gives_back || !held.contains(token)).copied().collect();
        self.end_all(&over);
    }

    /// The coordinator answers `client` at `now`. `is_known` says of which agents it has heard.
    pub(crate) fn promised(
        &mut self,
        now: Duration,
        client: PeerId,
        desired: &ClientDesired,
        is_known: impl Fn(&PeerId) -> bool,
    ) {
        for lease in &desired.leases {
            if !is_known(&lease.token.agent) {
                // The client's own word, right after a start. The agent settles it.
                continue;
            }
            if let Some((holder, until)) = self.holders.get(&lease.token).copied() {
                assert!(holder == client || until <= now, "{:?} is {holder:?}'s and {client:?}'s", lease.token);
            }
            self.end(&lease.token);
            self.holders.insert(lease.token, (client, now + Duration::from_millis(lease.expires_in_ms.into())));
            self.of_clients.entry(client).or_default().insert(lease.token);
            self.of_agents.entry(lease.token.agent).or_default().insert(lease.token);
        }
    }

    /// A coordinator that knows nothing: what agents say (token, holder, for how long from `now`) is all that is left.
    pub(crate) fn restarted(&mut self, now: Duration, agents_say: &HashMap<SlotToken, (PeerId, Duration)>) {
        let mut over = Vec::new();
        for (token, (client, until)) in &mut self.holders {
            match agents_say.get(token) {
                Some((holder, left)) if holder == client => *until = (*until).min(now + *left),
                _ => over.push(*token),
            }
        }
        self.end_all(&over);
    }
}
