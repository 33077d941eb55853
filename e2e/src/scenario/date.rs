//! A date as a story writes it, `2026-01-31T23:00Z` → when that is.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// A minute of the UTC calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(Duration);

impl Date {
    /// Since 1970 began.
    pub fn since_1970(self) -> Duration {
        self.0
    }

    fn read(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let (hour, minute) = time.split_once(':')?;
        let (hour, minute): (u64, u64) = (hour.parse().ok()?, minute.parse().ok()?);
        let is_leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let length = |month: u64| match month {
            2 => 28 + u64::from(is_leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let exists = year >= 1970 && (1..=12).contains(&month) && (1..=length(month)).contains(&day);
        let days = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum::<u64>()
            + (1..month).map(length).sum::<u64>()
            + day.saturating_sub(1);
        let minutes = (days * 24 + hour) * 60 + minute;
        (exists && hour < 24 && minute < 60).then(|| Self(Duration::from_secs(minutes * 60)))
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

    /// By `date -u -d ... +%s`.
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
