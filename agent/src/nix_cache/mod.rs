//! A binary cache for Nix on loopback, made of the stores of all agents: `substituters = http://127.0.0.1:PORT` makes each desktop with
//! Nix a cache for every other.
//!
//! [`database`] knows this machine's own store and packs its paths; [`serve`] answers other agents out of it; [`ask`] asks them, all at
//! once and not for long; [`http`] speaks to Nix. Handed on are paths whose content gives them their name and paths that somebody signed,
//! with these signatures: Nix itself decides whom it trusts, and checks the archive's hash, as this module does before Nix has the last
//! of it. Not here: getting paths into a store, which is Nix's job; toolchains, which come from clients file by file.

pub mod ask;
pub mod database;
pub mod http;
pub mod narinfo;
pub mod serve;
