//! The lending side of a farm: runs other members' actions in a sandbox, and serves its share of the farm's blobs and results.
//!
//! | module | job |
//! |---|---|
//! | [`cli`], [`config`] | command line, settings file |
//! | [`join`] | makes this machine a member |
//! | [`serve`] | puts the parts together, starts and stops them |
//! | [`compose`] | stacks the executors |
//! | [`session`] | one action stream |
//! | `supply` | what a client sends along with an action |
//! | [`lease`] | slots, and what the coordinator is told of them |
//! | [`executor`] | gets an action's result |
//! | [`owner`] | the machine's owner comes first |
//! | [`workspace`] | trees to folders, outputs to blobs |
//! | [`toolchain`] | toolchains as folders |
//! | [`exchange`] | blobs and results between peers |
//! | [`nix_sources`] | store paths from elsewhere than peers |
//! | [`flight`] | runs shared by all who ask meanwhile |
//! | [`standing`] | how far a run is |
//! | [`room`] | no peer takes all of anything |
//! | [`doctor`] | can this machine lend? |
//! | [`state`] | the agent's own folder |
//!
//! Not here: the store's format (`buildbee-store`), processes and mounts (`buildbee-sandbox`), connections (`buildbee-p2p`).

pub mod add;
pub mod cli;
pub mod compose;
pub mod config;
pub mod doctor;
pub mod doubles;
pub mod exchange;
pub mod executor;
pub mod flight;
pub mod join;
pub mod lease;
pub mod nix_cache;
pub mod nix_sources;
pub mod owner;
pub mod recorder;
pub mod room;
pub mod serve;
pub mod session;
pub mod standing;
pub mod state;
mod supply;
pub mod toolchain;
pub mod workspace;
