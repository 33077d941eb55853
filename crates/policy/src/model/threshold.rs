//! `warnAt`: how much of a limit is used when Weir warns.

use std::fmt;

/// A part of a limit, in whole percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(u8);

impl Threshold {
    /// Parses `^([1-9][0-9]?|100)%$`. `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('%')?;
        let is_plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        Self::of_percent(digits.parse().ok().filter(|_| is_plain)?)
    }

    /// Returns the threshold with this number of percent, if there is one.
    pub fn of_percent(percent: u64) -> Option<Self> {
        u8::try_from(percent).ok().filter(|percent| (1..=100).contains(percent)).map(Self)
    }

    pub fn percent(self) -> u8 {
        self.0
    }

    /// Returns whether at least this part of a maximum is used.
    pub fn is_reached(self, used: u64, max: u64) -> bool {
        used > 0 && u128::from(used) * 100 >= u128::from(max) * u128::from(self.0)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_whole_percentage() {
        for text in ["1%", "9%", "10%", "80%", "99%", "100%"] {
            assert_eq!(Threshold::parse(text).unwrap().to_string(), text);
        }
        for wrong in
            ["", "%", "80", "0%", "00%", "080%", "101%", "256%", "80.5%", "-1%", "+1%", "8 %", "80%%"]
        {
            assert_eq!(Threshold::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_threshold_is_reached_at_its_share_and_not_before() {
        let at = |text: &str| Threshold::parse(text).unwrap();
        for (text, used, max, is_reached) in [
            ("80%", 799, 1000, false),
            ("80%", 800, 1000, true),
            ("1%", 1, 101, false),
            ("2%", 1, 101, false),
            ("1%", 1, 3, true),
            ("100%", 999, 1000, false),
            ("100%", u64::MAX, u64::MAX, true),
            ("99%", u64::MAX - 1, u64::MAX, true),
            ("80%", 0, 0, false),
            ("80%", 1, 0, true),
        ] {
            assert_eq!(at(text).is_reached(used, max), is_reached, "{text} {used} {max}");
        }
    }
}
