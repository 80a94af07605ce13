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
/// Something later than now.
const MOMENT: Duration = Duration::from_millis(1);

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

/// What one client holds.
#[derive(Debug)]
struct Hand {
    tokens: BTreeSet<SlotToken>,
    n_recalled: usize,
    /// Nothing in it runs out before that.
    good_until: Duration,
}

/// All deals, found by token, by agent, by client, and by when they run out. None of it takes longer for there being more clients.
#[derive(Debug, Default)]
pub struct Deals {
    by_token: BTreeMap<SlotToken, Deal>,
    by_client: BTreeMap<PeerId, Hand>,
    /// When each hand is to be looked at: renewing a deal does not touch this.
    looks: BTreeSet<(Duration, PeerId)>,
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

    /// Puts `token` into one client's hands, taking it out of any other's: what it was is returned.
    pub fn insert(&mut self, token: SlotToken, deal: Deal) -> Option<Deal> {
        let before = self.remove(&token);
        self.by_token.insert(token, deal);
        let hand = self.by_client.entry(deal.client).or_insert_with(|| {
            self.looks.insert((deal.until, deal.client));
            Hand { tokens: BTreeSet::new(), n_recalled: 0, good_until: deal.until }
        });
        hand.tokens.insert(token);
        hand.n_recalled += usize::from(deal.standing == Standing::Recalled);
        if deal.until < hand.good_until {
            self.looks.remove(&(hand.good_until, deal.client));
            self.looks.insert((deal.until, deal.client));
            hand.good_until = deal.until;
        }
        before
    }

    /// Takes `token` out of whoever's hands.
    pub fn remove(&mut self, token: &SlotToken) -> Option<Deal> {
        let deal = self.by_token.remove(token)?;
        if let Some(hand) = self.by_client.get_mut(&deal.client) {
            hand.tokens.remove(token);
            hand.n_recalled -= usize::from(deal.standing == Standing::Recalled);
            if hand.tokens.is_empty() {
                self.looks.remove(&(hand.good_until, deal.client));
                self.by_client.remove(&deal.client);
            }
        }
        Some(deal)
    }

    /// Changes the standing of a deal that exists.
    pub fn set_standing(&mut self, token: &SlotToken, standing: Standing) {
        let Some(deal) = self.by_token.get_mut(token) else { return };
        if let Some(hand) = self.by_client.get_mut(&deal.client) {
            hand.n_recalled -= usize::from(deal.standing == Standing::Recalled);
            hand.n_recalled += usize::from(standing == Standing::Recalled);
        }
        deal.standing = standing;
    }

    /// Extends a deal that exists. Until when it is good then.
    pub fn renew(&mut self, token: &SlotToken, until: Duration) -> Option<Duration> {
        let deal = self.by_token.get_mut(token)?;
        deal.until = deal.until.max(until);
        Some(deal.until)
    }

    /// All deals on tokens of `agent`.
    pub fn of_agent(&self, agent: PeerId) -> impl Iterator<Item = (&SlotToken, &Deal)> {
        let first = SlotToken { agent, boot_id: 0, counter: 0 };
        let last = SlotToken { agent, boot_id: u64::MAX, counter: u64::MAX };
        self.by_token.range(first..=last)
    }

    /// All tokens of `client` with that standing.
    pub fn of_client(&self, client: PeerId, standing: Standing) -> Vec<SlotToken> {
        let Some(hand) = self.by_client.get(&client).filter(|_| self.count(client, standing) > 0) else {
            return Vec::new();
        };
        if self.count(client, standing) == hand.tokens.len() {
            return hand.tokens.iter().copied().collect();
        }
        hand.tokens
            .iter()
            .filter(|token| self.get(token).is_some_and(|deal| deal.standing == standing))
            .copied()
            .collect()
    }

    /// Number of tokens of `client` with that standing.
    pub fn count(&self, client: PeerId, standing: Standing) -> usize {
        self.by_client.get(&client).map_or(0, |hand| match standing {
            Standing::Good => hand.tokens.len() - hand.n_recalled,
            Standing::Recalled => hand.n_recalled,
        })
    }

    /// What has run out by `now`. It is for the caller to [`remove`](Self::remove); else it is named again.
    pub fn run_out(&mut self, now: Duration) -> Vec<SlotToken> {
        let mut over = Vec::new();
        while let Some((look_at, client)) = self.looks.first().copied().filter(|(look_at, _)| *look_at <= now) {
            self.looks.remove(&(look_at, client));
            let Some(hand) = self.by_client.get_mut(&client) else { continue };
            let mut next: Option<Duration> = None;
            for token in &hand.tokens {
                match self.by_token.get(token).map(|deal| deal.until) {
                    Some(until) if until > now => next = Some(next.map_or(until, |next| next.min(until))),
                    _ => over.push(*token),
                }
            }
            // All of it is over: then it goes with the last token, unless the caller leaves it here.
            hand.good_until = next.unwrap_or(now + MOMENT);
            self.looks.insert((hand.good_until, client));
        }
        over
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
        assert_eq!(deals.insert(token(1, 1), deal(9, 5)), Some(deal(8, 5)));
        assert_eq!(deals.count(PeerId([8; 32]), Standing::Good), 0);
        assert_eq!(deals.of_client(PeerId([9; 32]), Standing::Good), [token(1, 1)]);
        assert_eq!((deals.by_client.len(), deals.looks.len()), (1, 1));
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

    fn expire(deals: &mut Deals, now: u64) {
        for token in deals.run_out(Duration::from_secs(now)) {
            deals.remove(&token);
        }
    }

    #[test]
    fn what_ran_out_is_gone_and_nothing_else() {
        let mut deals = Deals::default();
        deals.insert(token(1, 1), deal(8, 5));
        deals.insert(token(1, 2), deal(8, 6));
        expire(&mut deals, 5);
        assert_eq!(deals.of_client(PeerId([8; 32]), Standing::Good), [token(1, 2)]);
        assert_eq!(deals.renew(&token(1, 2), Duration::from_secs(20)), Some(Duration::from_secs(20)));
        expire(&mut deals, 19);
        assert_eq!(deals.len(), 1);
        expire(&mut deals, 20);
        assert!(deals.is_empty() && deals.looks.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn the_indexes_agree_with_the_deals(
            steps in proptest::collection::vec((0_u8..5, 0_u8..3, 0_u64..4, 0_u8..3, 0_u64..30), 1..200),
        ) {
            let mut deals = Deals::default();
            let mut now = 0;
            for (kind, agent, counter, client, seconds) in steps {
                let token = token(agent, counter);
                match kind {
                    0 | 1 => drop(deals.insert(token, deal(client, now + 1 + seconds))),
                    2 => drop(deals.remove(&token)),
                    3 => deals.set_standing(&token, if seconds % 2 == 0 { Standing::Good } else { Standing::Recalled }),
                    _ => {
                        let _ = deals.renew(&token, Duration::from_secs(now + seconds));
                        now += seconds / 4;
                        expire(&mut deals, now);
                    }
                }
                let alive = |deal: &Deal| deal.until > Duration::from_secs(now);
                proptest::prop_assert!(deals.by_token.values().all(alive));
                proptest::prop_assert_eq!(deals.by_client.len(), deals.looks.len());
                for client in (0..3).map(|n| PeerId([n; 32])) {
                    for standing in [Standing::Good, Standing::Recalled] {
                        let is_one = |deal: &&Deal| deal.client == client && deal.standing == standing;
                        let expected = deals.by_token.values().filter(is_one).count();
                        proptest::prop_assert_eq!(deals.count(client, standing), expected);
                        proptest::prop_assert_eq!(deals.of_client(client, standing).len(), expected);
                    }
                }
            }
        }
    }
}
