//! Whole builds over a farm of real processes, compared with plain local builds: same bytes, same words, same exit status.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod builds;
mod checkouts;
mod failures;
mod modes;
mod nix_store;
mod other_caches;
mod places;
mod precompiled;
mod probes;
mod races;
mod rust_agents;
mod rust_builds;
mod rust_c;
mod rust_edits;
mod rust_odd;
mod rust_pipelined;
mod rust_scripts;
mod rust_traps;
mod seeing;
mod side_by_side;
mod staleness;
mod throwaway;
mod toolchains;
mod traps;
mod twins;
mod waiting;
