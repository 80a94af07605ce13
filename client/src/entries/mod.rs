//! The cache as other tools use it: ccache and sccache put values under names of their own, and find those that colleagues put.
//!
//! [`shelf`] is the cache itself: this user's store and the peers responsible for a name, the newest of what counts. [`telling`] tells those
//! peers. [`http`] serves it, on loopback where the user has set an address and to ccache's storage helper
//! ([`storage_helper`](crate::storage_helper)) over the daemon's own socket; [`request`] and [`dav`] say what is asked and how some answers look,
//! both pure; [`caller`] knows whose connection one on loopback is.
//!
//! To point a tool here is to share what it puts with all members of the farm, and to take what any of them put: none of it was made in
//! a sandbox. buildbee's own results have nothing to do with it. Not here: what an entry is ([`buildbee_proto::entry`]).

pub mod caller;
pub mod dav;
pub mod http;
pub mod request;
pub mod shelf;
pub mod telling;
