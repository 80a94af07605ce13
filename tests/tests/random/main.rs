//! Command lines drawn at random from the option table, each run plainly, with a cold cache, with a warm one, and over a farm: what can be
//! seen must be the same. `BUILDBEE_TEST_SEED` repeats a run, `BUILDBEE_TEST_DRAWS` makes it longer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod comparison;
mod corpus;
mod draw;
