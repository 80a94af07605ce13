//! Results that other people's builds have left with the farm's agents.

use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::hint::Hint;

use super::cache::Hit;
use super::context::Context;
use crate::dispatch::lookup::{self, News, Wanted};

/// What the agents that are responsible for an action, and for `hints_for` where that is named, know: the result with the name of the one
/// that had it, and hints. Without a farm that is nothing.
pub async fn ask(
    context: &Context,
    wanted: Wanted<'_>,
    hints_for: Option<&Digest>,
    news: News,
) -> (Option<(String, Arc<Hit>)>, Vec<Hint>) {
    let Some(farm) = &context.farm else { return Default::default() };
    farm.settled().await;
    let Some(roster) = farm.roster() else { return Default::default() };
    let answers = lookup::ask(farm, &roster.value, wanted, hints_for, news).await;
    let found = answers.found.map(|(peer, found)| {
        let hit = Hit::from(found);
        context.journal.moved(0, hit.size());
        (farm.name_of(&peer), Arc::new(hit))
    });
    (found, answers.hints)
}
