//! Windows of the week, as a person writes them: `mon-fri 18:00-08:00, sat-sun`. Pure.

use std::str::FromStr;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u32 = 24 * 60;
/// Windows in one list.
const MAX_WINDOWS: usize = 32;
/// What people are told of the form.
const FORM: &str = "hours look like \"18:00-08:00\" or \"mon-fri 18:00-08:00, sat-sun\"";

/// From a minute of some days to another, which is on the next day if it is not later.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    days: [bool; 7],
    from: u32,
    to: u32,
}

/// Windows of the week; always, if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours(Vec<Window>);

impl Hours {
    /// Whether there is no restriction.
    pub fn is_always(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `minute` of `day` (0 is Monday) is in one of them.
    pub fn holds(&self, day: u32, minute: u32) -> bool {
        let at = |day: u32| usize::try_from(day % 7).unwrap_or(0);
        let holds = |window: &Window| {
            let today =
                window.days[at(day)] && minute >= window.from && (minute < window.to || window.to <= window.from);
            let since_yesterday = window.days[at(day + 6)] && window.to <= window.from && minute < window.to;
            today || since_yesterday
        };
        self.is_always() || self.0.iter().any(holds)
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.len() > MAX_WINDOWS {
            return Err(format!("at most {MAX_WINDOWS} windows"));
        }
        parts.into_iter().map(|part| window(part).ok_or_else(|| FORM.to_owned())).collect::<Result<_, _>>().map(Self)
    }
}

fn window(text: &str) -> Option<Window> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let every_day = [true; 7];
    let (days, span) = match words[..] {
        [one] if one.contains(':') => (every_day, Some(one)),
        [one] => (days(one)?, None),
        [first, second] => (days(first)?, Some(second)),
        _ => return None,
    };
    let (from, to) = match span {
        None => (0, DAY_MINUTES),
        Some(span) => {
            let (from, to) = span.split_once('-')?;
            (minute(from)?, minute(to)?)
        }
    };
    (from < DAY_MINUTES).then_some(Window { days, from, to })
}

fn days(text: &str) -> Option<[bool; 7]> {
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    let n_days = (last + 7 - first) % 7 + 1;
    let mut days = [false; 7];
    (first..first + n_days).for_each(|day| days[day % 7] = true);
    Some(days)
}

fn minute(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let two =
        |text: &str| (text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)?.parse().ok();
    let (hour, minute): (u32, u32) = (two(hour)?, two(minute)?);
    let all = 60 * hour + minute;
    (minute < 60 && all <= DAY_MINUTES).then_some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, day: &str, clock: &str) -> bool {
        let day = DAYS.iter().position(|each| *each == day).unwrap();
        text.parse::<Hours>().unwrap().holds(u32::try_from(day).unwrap(), minute(clock).unwrap())
    }

    #[test]
    fn nights_and_weekends() {
        let text = "mon-fri 18:00-08:00, sat-sun";
        for (day, clock, expected) in [
            ("mon", "12:00", false),
            ("mon", "18:00", true),
            ("tue", "07:59", true),
            ("tue", "08:00", false),
            ("sat", "07:00", true),
            ("sat", "12:00", true),
            ("sun", "23:59", true),
            ("mon", "00:00", false),
        ] {
            assert_eq!(holds(text, day, clock), expected, "{day} {clock}");
        }
        assert!(holds("", "wed", "12:00") && holds("12:00-13:00", "sun", "12:30"));
        assert!(holds("fri-mon 9:00-17:00", "sun", "16:59") && !holds("fri-mon 9:00-17:00", "tue", "12:00"));
        assert!(holds("0:00-24:00", "wed", "23:59") && holds("wed", "wed", "23:59") && !holds("wed", "thu", "0:00"));
    }

    #[test]
    fn what_is_no_window() {
        for text in
            ["18", "18:00", "mon-", "never", "25:00-26:00", "1:60-2:00", "mon 1:00-2:00 x", "24:00-25:00", "+1:00-2:00"]
        {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
        assert!(["mon"; 33].join(",").parse::<Hours>().is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "[a-z0-9:, -]{0,40}", day in 0..7u32, minute in 0..DAY_MINUTES) {
            if let Ok(hours) = text.parse::<Hours>() {
                hours.holds(day, minute);
            }
        }

        #[test]
        fn a_window_lasts_as_long_as_it_says(from in 0..DAY_MINUTES, to in 0..DAY_MINUTES) {
            let text = format!("{}:{:02}-{}:{:02}", from / 60, from % 60, to / 60, to % 60);
            let hours: Hours = text.parse().unwrap();
            let n_held = (0..DAY_MINUTES).filter(|minute| hours.holds(3, *minute)).count();
            let length = if to > from { to - from } else { DAY_MINUTES - from + to };
            prop_assert_eq!(u32::try_from(n_held).unwrap(), length);
        }
    }
}
