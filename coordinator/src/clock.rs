//! The time of day, for what must be compared across machines and restarts. Everything else counts from the program's start.

use std::time::{SystemTime, UNIX_EPOCH};

use buildbee_proto::membership::UnixSeconds;

/// Now. A clock before 1970 reads as 1970.
pub fn unix_now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
