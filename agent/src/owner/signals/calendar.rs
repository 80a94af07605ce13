//! The hour of the week where the machine stands.

use std::time::Duration;

use jiff::ZonedDateTime;

use super::{Seen, Signal};
use crate::owner::hours::Hours;

const PERIOD: Duration = Duration::from_secs(10);

/// The machine's clock and time zone.
#[derive(Debug)]
pub struct Calendar {
    /// When to lend.
    pub hours: Hours,
}

impl Signal for Calendar {
    fn period(&self) -> Duration {
        PERIOD
    }

    fn look(&mut self, _now: Duration, seen: &mut Seen) {
        let now = ZonedDateTime::now();
        let number = |number: i8| u32::try_from(number).unwrap_or(0);
        let day = number(now.weekday().to_monday_zero_offset());
        seen.out_of_hours = !self.hours.holds(day, 60 * number(now.hour()) + number(now.minute()));
    }
}
