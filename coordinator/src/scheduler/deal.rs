//! Who holds which token, and until when.
//!
//! Pure bookkeeping: a token is in here once or not at all, which is what makes dealing one token to two clients impossible. Whether
//! a deal is wise is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buildbee_proto::lease::SlotToken;
use buildbee_proto::peer::PeerId;

/// How long a deal holds without being renewed by a synchronisation of its client.
pub const DEAL_FOR: Duration = Duration::from_secs(10);

/// Whether a client may go on with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Renewed with every synchronisation.
    Good,
    /// More than the client's share: it was told, and the slot is free again once it says that it no longer holds the token, or when
    /// the deal runs out.
    Recalled,
}

/// One token in one client's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deal {
    /// Who holds it.
    pub client: PeerId,
    /// Until when, in the coordinator's time.
    pub until: Duration,
    /// Whether it will be renewed.
    pub standing: Standing,
}

/// All deals, found by token, by agent and by client.
#[derive(Debug, Default)]
pub struct Deals {
    by_token: BTreeMap<SlotToken, Deal>,
    by_client: BTreeMap<PeerId, BTreeSet<SlotToken>>,
}

impl Deals {
    /// Number of deals.
    pub fn len(&self) -> usize {
        self.by_token.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }

    /// The deal on `token`.
    pub fn get(&self, token: &SlotToken) -> Option<&Deal> {
        self.by_token.get(token)
    }

    /// Puts `token` into one client's hands, taking it out of any other's.
    pub fn insert(&mut self, token: SlotToken, deal: Deal) {
        self.remove(&token);
        self.by_token.insert(token, deal);
        self.by_client.entry(deal.client).or_default().insert(token);
    }

    /// Takes `token` out of whoever's hands.
    pub fn remove(&mut self, token: &SlotToken) -> Option<Deal> {
        let deal = self.by_token.remove(token)?;
        if let Some(tokens) = self.by_client.get_mut(&deal.client) {
            tokens.remove(token);
            if tokens.is_empty() {
                self.by_client.remove(&deal.client);
            }
        }
        Some(deal)
    }

    /// Changes the standing of a deal that exists.
    pub fn set_standing(&mut self, token: &SlotToken, standing: Standing) {
        if let Some(deal) = self.by_token.get_mut(token) {
            deal.standing = standing;
        }
    }

    /// Extends a deal that exists.
    pub fn renew(&mut self, token: &SlotToken, until: Duration) {
        if let Some(deal) = self.by_token.get_mut(token) {
            deal.until = deal.until.max(until);
        }
    }

    /// All deals on tokens of `agent`.
    pub fn of_agent(&self, agent: PeerId) -> impl Iterator<Item = (&SlotToken, &Deal)> {
        let first = SlotToken { agent, boot_id: 0, counter: 0 };
        let last = SlotToken { agent, boot_id: u64::MAX, counter: u64::MAX };
        self.by_token.range(first..=last)
    }

    /// All tokens of `client` with that standing.
    pub fn of_client(&self, client: PeerId, standing: Standing) -> Vec<SlotToken> {
        let tokens = self.by_client.get(&client).into_iter().flatten();
        tokens.filter(|token| self.get(token).is_some_and(|deal| deal.standing == standing)).copied().collect()
    }

    /// Number of tokens of `client` with that standing.
    pub fn count(&self, client: PeerId, standing: Standing) -> usize {
        let tokens = self.by_client.get(&client).into_iter().flatten();
        tokens.filter(|token| self.get(token).is_some_and(|deal| deal.standing == standing)).count()
    }

    /// Drops what ran out by `now`.
    pub fn expire(&mut self, now: Duration) {
        let over: Vec<SlotToken> =
            self.by_token.iter().filter(|(_, deal)| deal.until <= now).map(|(token, _)| *token).collect();
        for token in over {
            self.remove(&token);
        }
    }

    /// Clients that hold anything.
    pub fn clients(&self) -> impl Iterator<Item = &PeerId> {
        self.by_client.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(agent: u8, counter: u64) -> SlotToken {
        SlotToken { agent: PeerId([agent; 32]), boot_id: u64::from(agent), counter }
    }

    fn deal(client: u8, until: u64) -> Deal {
        Deal { client: PeerId([client; 32]), until: Duration::from_secs(until), standing: Standing::Good }
    }

    #[test]
    fn a_token_is_in_one_pair_of_hands() {
        let mut deals = Deals::default();
        deals.insert(token(1, 1), deal(8, 5));
        deals.insert(token(1, 1), deal(9, 5));
        assert_eq!(deals.count(PeerId([8; 32]), Standing::Good), 0);
        assert_eq!(deals.of_client(PeerId([9; 32]), Standing::Good), [token(1, 1)]);
        assert_eq!(deals.clients().count(), 1);
    }

    #[test]
    fn deals_are_found_by_agent_alone() {
        let mut deals = Deals::default();
        for agent in 1..4 {
            deals.insert(token(agent, 0), deal(9, 5));
            deals.insert(token(agent, u64::MAX), deal(9, 5));
        }
        let found: Vec<SlotToken> = deals.of_agent(PeerId([2; 32])).map(|(token, _)| *token).collect();
        assert_eq!(found, [token(2, 0), token(2, u64::MAX)]);
    }

    #[test]
    fn what_ran_out_is_gone_and_nothing_else() {
        let mut deals = Deals::default();
        deals.insert(token(1, 1), deal(8, 5));
        deals.insert(token(1, 2), deal(8, 6));
        deals.expire(Duration::from_secs(5));
        assert_eq!(deals.of_client(PeerId([8; 32]), Standing::Good), [token(1, 2)]);
        deals.renew(&token(1, 2), Duration::from_secs(20));
        deals.expire(Duration::from_secs(19));
        assert_eq!(deals.len(), 1);
        deals.expire(Duration::from_secs(20));
        assert!(deals.is_empty());
    }
}
