//! The libp2p node that coordinator, agent and daemon share: who a peer is, who may speak to it, and streams between members.
//!
//! | module | job |
//! |---|---|
//! | [`identity`] | key pair of a peer or a farm; signatures |
//! | [`enrolment`] | what a joined machine keeps, and how it joins |
//! | [`node`] | the public handle: connect, keep connected, open streams, know the peers |
//! | [`papers`] | what a member has to know of its farm, and keeps good |
//! | [`owner`] | root acts as the owner of a daemon's folder |
//! | [`private_file`] | small files that only their owner may read, replaced whole |
//! | [`frames`] | messages on a stream |
//! | [`difference`] | bytes said by what both sides know already |
//! | [`shares`] | what one peer may have at once |
//! | [`tasks`] | named tasks and their ordered end |
//! | [`log`] | where a daemon's log goes |
//!
//! One task polls the libp2p swarm and only routes; streams carry their bytes past it. Every connection shows memberships both
//! ways before anything else is heard on it. Not here: what the protocols say (`buildbee-proto`), and who serves them.
//!
//! Streams are not carried by the `libp2p-stream` crate but by a behaviour of our own (`streams.rs`) of about its size, because that crate
//! keeps a channel for each connection ever made (a stranger that connects again and again makes memory grow), drops inbound
//! streams in bursts, and cannot say on which connection a stream is to be opened.

mod address;
mod admission;
mod backoff;
mod behaviour;
mod carrier;
mod complaints;
mod connection_limits;
pub mod delegation;
pub mod difference;
pub mod enrolment;
mod event_loop;
pub mod frames;
mod hello;
pub mod identity;
mod inbound;
mod join;
mod link_speed;
mod link_stream;
pub mod log;
mod muxer;
pub mod node;
pub mod owner;
mod packed;
pub mod papers;
mod peer_stream;
mod peer_table;
pub mod private_file;
mod read_ahead;
pub mod shares;
mod streams;
pub mod tasks;
#[cfg(feature = "testbed")]
pub mod testbed;
mod worth;
