//! Blobs and results between peers: [`fetch`] brings what is missing here (`large` what is large, by `chunk_plan`, from `partials` too,
//! `many` the rest, both in the order of `pull`), [`serve`] hands out what is here (`serve_chunks` of large blobs), [`cache`] answers for
//! action results, [`arriving`] is what is on its way, [`announce`] tells the peers responsible for a result of it, as [`owed`] says, until they
//! say that they store it, [`adopt`] takes such a result in, [`repair`] looks after copies, as [`audit`] and [`presence`] say, [`scrub`] after
//! their bytes, [`lasting`] makes them outlive a loss of power, [`kept`] is what others are told of what is here, [`claims`] who has what run, [`small`] is what is in memory for a while, and [`pump`] is the way from either to a
//! stream. Blobs are never listed, and of results there is a filter.

pub mod adopt;
pub mod announce;
pub mod arriving;
pub mod audit;
pub mod cache;
mod chunk_plan;
pub mod claims;
pub mod fetch;
pub mod kept;
mod large;
pub mod lasting;
mod many;
pub mod owed;
pub mod partials;
pub mod presence;
mod pull;
pub mod pump;
mod receive;
pub mod repair;
pub mod scrub;
pub mod serve;
mod serve_chunks;
pub mod small;

use buildbee_proto::digest::Digest;
use buildbee_proto::outcome::ActionResult;

/// The distinct blobs of `result` that have content, in the order outputs, standard output, standard error, what was observed.
pub fn blobs_of(result: &ActionResult) -> Vec<Digest> {
    let mut blobs: Vec<Digest> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for digest in result.content() {
        if digest.size_bytes > 0 && seen.insert(digest) {
            blobs.push(digest);
        }
    }
    blobs
}
