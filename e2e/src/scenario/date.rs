//! Parses dates in stories, such as `2026-01-31T23:00Z`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// A UTC date and time, to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(Duration);

impl Date {
    /// Returns the time since 1970.
    pub fn since_1970(self) -> Duration {
        self.0
    }

    fn read(text: &str) -> Option<Self> {
        let time = DateTime::strptime("%Y-%m-%dT%H:%MZ", text).ok()?.to_zoned(TimeZone::UTC).ok()?;
        let seconds = u64::try_from(time.timestamp().as_second()).ok()?;
        Some(Self(Duration::from_secs(seconds)))
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text}: wanted a date as 2026-01-31T23:00Z")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values come from `date -u -d ... +%s`.
    #[test]
    fn a_date_is_a_time() {
        let table = [
            ("1970-01-01T00:00Z", Some(0)),
            ("2024-02-29T00:00Z", Some(1_709_164_800)),
            ("2026-11-22T23:59Z", Some(1_795_391_940)),
            ("2026-02-29T00:00Z", None),
            ("2026-11-22 23:59", None),
        ];
        for (text, seconds) in table {
            assert_eq!(Date::read(text), seconds.map(|seconds| Date(Duration::from_secs(seconds))), "{text}");
        }
    }
}
