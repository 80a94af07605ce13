//! What the processes of a farm say to each other and what they name by digest.
//!
//! Two kinds of types live here. *Content* ([`Directory`](tree::Directory), [`Toolchain`](toolchain::Toolchain),
//! [`Command`](action::Command), [`Action`](action::Action), [`ActionResult`](outcome::ActionResult),
//! [`Membership`](membership::Membership)) has a hand-written [canonical encoding](canonical), because it is hashed or signed and
//! must never change its bytes. *Messages* ([`control`], [`execute`], [`exchange`], [`store_path`], [`papers`],
//! [`local`]) are framed by the serialiser
//! behind [`codec`], bounded by [`limits`] and versioned by protocol id in [`version`].
//!
//! Beside them stands what the programs must do alike: [`responsible`] (who keeps a result), [`filter`] (what
//! somebody may hold) and [`settings_file`] (how mistakes in
//! settings are told).
//!
//! Not here: any I/O, any async code, signing itself (`buildbee-p2p::identity` holds keys), and storage.

pub mod action;
mod bounded;
pub mod canonical;
pub mod chunk;
pub mod codec;
pub mod control;
pub mod delegation;
pub mod digest;
pub mod double;
pub mod entry;
pub mod error;
pub mod exchange;
pub mod execute;
pub mod filter;
pub mod hint;
pub mod lease;
pub mod limits;
pub mod listing;
pub mod local;
pub mod manifest;
pub mod membership;
pub mod observed;
pub mod outcome;
pub mod papers;
pub mod path;
pub mod peer;
pub mod record;
pub mod responsible;
pub mod roster_news;
pub mod settings_file;
pub mod store_path;
pub mod toolchain;
pub mod tree;
pub mod version;
