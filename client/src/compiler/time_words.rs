//! The words of C for which compilers put in when they compile: where they stand, and on what command lines they do not tell the time.
//! Does not look for them in files: that is the include scanner's job.

use std::ops::{BitOr, BitOrAssign};

/// Some of `__DATE__`, `__TIME__` and `__TIMESTAMP__`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeWords(u8);

impl TimeWords {
    /// `__DATE__`: the day of the compile.
    pub const DATE: Self = Self(1);
    /// `__TIME__`: the time of day of the compile.
    pub const TIME: Self = Self(2);
    /// `__TIMESTAMP__`: when the source was modified.
    pub const TIMESTAMP: Self = Self(4);
    /// All, as they are spelled.
    pub const ALL: [(&'static str, Self); 3] =
        [("__DATE__", Self::DATE), ("__TIME__", Self::TIME), ("__TIMESTAMP__", Self::TIMESTAMP)];

    /// Those that stand anywhere in `text`.
    pub fn in_text(text: &str) -> Self {
        Self::ALL.iter().filter(|(word, _)| text.contains(word)).fold(Self::default(), |found, (_, one)| found | *one)
    }

    /// The one that `-D` or `-U` with this value makes a common macro, or none at all. Compilers obey both before they read the first
    /// file, and nothing brings the word's first meaning back (seen with gcc 12 and clang 14).
    pub fn redefined_by(value: &str) -> Self {
        let name = value.split(['=', '(']).next().unwrap_or(value);
        Self::ALL.iter().find(|(word, _)| *word == name).map_or(Self::default(), |(_, one)| *one)
    }

    /// These, but for `others`.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// None of them.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for TimeWords {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for TimeWords {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart() {
        assert_eq!(TimeWords::in_text("-DX=__DATE__ __TIMESTAMP__"), TimeWords::DATE | TimeWords::TIMESTAMP);
        assert!(TimeWords::in_text("__TIM__").is_empty());
        assert_eq!(
            TimeWords::DATE | TimeWords::TIME,
            (TimeWords::DATE | TimeWords::TIME).without(TimeWords::TIMESTAMP)
        );
    }

    #[test]
    fn only_the_name_is_redefined() {
        for value in ["__TIME__", "__TIME__=", "__TIME__=\"redacted\"", "__TIME__(x)=1"] {
            assert_eq!(TimeWords::redefined_by(value), TimeWords::TIME, "{value}");
        }
        for value in ["BUILT=__TIME__", "__TIME__X=1", "", "X(__TIME__)=1", " __TIME__=1"] {
            assert!(TimeWords::redefined_by(value).is_empty(), "{value}");
        }
    }
}
