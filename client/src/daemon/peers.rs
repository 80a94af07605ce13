//! Results that other people's builds have left with the farm's agents.

use std::sync::Arc;

use super::cache::Hit;
use super::context::Context;
use crate::dispatch::lookup::{self, Wanted};

/// The result of an action from the agents that are responsible for it, with the name of the one that had it. Without a farm there is none.
pub async fn result(context: &Context, wanted: Wanted<'_>) -> Option<(String, Arc<Hit>)> {
    let farm = context.farm.as_ref()?;
    let (roster, responsive) = (farm.roster()?, farm.responsive_agents());
    let (peer, found) = lookup::find(farm.node(), &roster.value, &responsive, wanted).await?;
    let hit = Hit::from(found);
    context.journal.moved(0, hit.size());
    Some((farm.name_of(&peer), Arc::new(hit)))
}
