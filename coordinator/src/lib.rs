//! The coordinator of a farm: who belongs to it, who lends what, and who may use which slot.
//!
//! | module | job |
//! |---|---|
//! | [`scheduler`] | deals slot tokens out to clients; a pure core and its task |
//! | [`membership`] | tickets, enrolment, revocation, the signed roster |
//! | [`rpc`] | streams from peers to calls on the two above |
//! | [`papers`] | what members and coordinator know of each other's rosters and memberships |
//! | [`roster_log`] | what members are told of the roster |
//! | [`offer`] | what agents say of themselves, made fit to be passed on |
//! | [`status`] | page, JSON and metrics over HTTP |
//! | [`serve`] | the running coordinator, composed |
//! | [`cli`], [`config`], [`commands`], [`keys`], [`addresses`] | the program around it |
//! | [`state_dir`], [`clock`] | disk and time |
//!
//! Absent on purpose: blobs, sources, action results, and any state about leases on disk. An empty coordinator learns within one heartbeat
//! who holds what, from those who hold it.

pub mod addresses;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod keys;
pub mod membership;
pub mod offer;
pub mod papers;
pub mod roster_log;
pub mod rpc;
pub mod scheduler;
pub mod serve;
pub mod state_dir;
pub mod status;
