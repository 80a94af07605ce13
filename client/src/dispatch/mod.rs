//! Where an action runs: which agent, under which lease, and when here instead.
//!
//! [`board`] is the pure core: what is known of agents and leases, and the choice among them. [`farm`] keeps it current: the node, the
//! control stream to the coordinator, peers that come and go. [`attempt`] is one try on one agent, [`along`] what travels with it, and `alike` how
//! directories are said; [`lookup`] asks peers for
//! results, over [`cache_streams`], where [`filters`] say that they may have them; [`claim`] keeps clients from having the same run twice.
//! [`progress`] says how far toolchains are on their way from here. [`entries`] does for other tools' caches what these do for actions.

mod alike;
pub mod along;
pub mod attempt;
pub mod board;
pub mod cache_streams;
pub mod claim;
pub mod entries;
pub mod farm;
pub mod filters;
pub mod hints;
pub mod job;
pub mod lender;
pub mod lookup;
pub mod progress;
pub mod synchronise;
