//! The time over which a rate counts.

use crate::duration;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// A window of this length that begins with the first charge.
    Fixed(Duration),
    /// A window of this length that always ends now.
    Sliding(Duration),
    /// A calendar period in a time zone.
    Period(Period, ZoneName),
    /// No window, for `concurrency`, which does not depend on time.
    Now,
}

macro_rules! periods {
    ($($(#[doc = $about:literal])* $period:ident = $name:literal, $word:literal, $length:expr;)*) => {
        /// A calendar period.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Period {
            $($(#[doc = $about])* $period,)*
        }

        impl Period {
            /// All periods by their names.
            pub const NAMED: &[(&str, Self)] = &[$(($name, Self::$period),)*];

            /// The name in policies and descriptors.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$period => $name,)*
                }
            }

            /// The name in sentences.
            fn word(self) -> &'static str {
                match self {
                    $(Self::$period => $word,)*
                }
            }

            fn length(self) -> Option<Duration> {
                match self {
                    $(Self::$period => $length,)*
                }
            }
        }
    };
}

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

periods! {
    /// Begins at each full hour.
    Hour = "Hour", "hour", seconds(HOUR);
    /// Begins at midnight.
    Day = "Day", "day", seconds(DAY);
    /// Begins on Monday.
    Week = "Week", "week", seconds(7 * DAY);
    /// Begins on the first of a month.
    Month = "Month", "month", seconds(30 * DAY);
    /// Begins on the first of January, April, July or October.
    Quarter = "Quarter", "quarter", seconds(91 * DAY);
    /// Begins on the first of January.
    Year = "Year", "year", seconds(365 * DAY);
    /// Never ends.
    Lifetime = "Lifetime", "lifetime", None;
}

impl Period {
    /// Returns the period with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, period)| *period)
    }
}

/// The name of a time zone as in the IANA database. Only the adapter checks that the time zone exists,
/// because the filter has no database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneName(Option<Arc<str>>);

impl ZoneName {
    /// The default time zone.
    pub const UTC: Self = Self(None);
    pub const UTC_NAME: &str = "UTC";

    /// Returns `None` if no time zone can have this name.
    pub fn parse(name: &str) -> Option<Self> {
        if name == Self::UTC_NAME {
            return Some(Self::UTC);
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+');
        let fits = (1..=64).contains(&name.len()) && name.chars().all(is_plain);
        fits.then(|| Self(Some(name.into())))
    }

    /// The name as in the database.
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or(Self::UTC_NAME)
    }

    /// Returns whether it is the default.
    pub fn is_utc(&self) -> bool {
        self.0.is_none()
    }

    /// Formats a period in this zone. Equal periods have equal text: `Month`, `Month-Europe/Berlin`.
    pub fn with_period(&self, period: Period) -> String {
        match &self.0 {
            None => period.name().to_owned(),
            Some(zone) => [period.name(), "-", zone].concat(),
        }
    }
}

/// The suffix of the length of a sliding window.
const SLIDING: &str = "-sliding";

impl Window {
    /// Returns the descriptor's entry that distinguishes it from other windows of the limit. Each window has
    /// one spelling, however the policy spells it: `86400s` for 24h and for 1d, `1500ms` if it is not a whole
    /// number of seconds, `3600s-sliding`.
    pub fn entry(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Fixed(length) => Some(("window", duration::text(*length))),
            Self::Sliding(length) => Some(("window", duration::text(*length) + SLIDING)),
            Self::Period(period, zone) => Some(("period", zone.with_period(*period))),
            Self::Now => None,
        }
    }

    /// Returns the length of the window. A month counts as 30 days. `None` if the window has no end.
    pub fn length(&self) -> Option<Duration> {
        match self {
            Self::Fixed(length) | Self::Sliding(length) => Some(*length),
            Self::Period(period, _) => period.length(),
            Self::Now => None,
        }
    }

    /// Returns whether the window ends, so that its usage no longer counts.
    pub fn ends(&self) -> bool {
        match self {
            Self::Fixed(_) | Self::Sliding(_) | Self::Now => true,
            Self::Period(period, _) => *period != Period::Lifetime,
        }
    }
}

/// Formats the window to follow "per": `24h`, `1h (sliding)`, `month (UTC)`, `lifetime`. The result is empty
/// for [`Window::Now`].
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => f.write_str(&duration::short(*length)),
            Self::Sliding(length) => {
                f.write_str(&duration::short(*length))?;
                f.write_str(" (sliding)")
            }
            Self::Period(period, zone) => {
                f.write_str(period.word())?;
                if self.ends() {
                    for part in [" (", zone.name(), ")"] {
                        f.write_str(part)?;
                    }
                }
                Ok(())
            }
            Self::Now => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_s_name_has_the_letters_of_the_database() {
        for name in
            ["UTC", "Europe/Berlin", "America/Port-au-Prince", "Etc/GMT+5", "America/North_Dakota/Center"]
        {
            assert_eq!(ZoneName::parse(name).map(|zone| zone.name().to_owned()).as_deref(), Some(name));
        }
        assert_eq!(ZoneName::parse("UTC"), Some(ZoneName::UTC));
        for name in ["", "Europe/Berlin ", "+02:00", "Euro\"pe", "Z\n", "Zürich", &"a".repeat(65)] {
            assert_eq!(ZoneName::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn each_window_has_one_spelling() {
        let berlin = ZoneName::parse("Europe/Berlin").unwrap();
        let table = [
            (Window::Period(Period::Month, ZoneName::UTC), "Month", "month (UTC)"),
            (Window::Period(Period::Month, berlin), "Month-Europe/Berlin", "month (Europe/Berlin)"),
            (Window::Period(Period::Lifetime, ZoneName::UTC), "Lifetime", "lifetime"),
            (Window::Fixed(Duration::from_secs(86_400)), "86400s", "24h"),
            (Window::Sliding(Duration::from_secs(3_600)), "3600s-sliding", "1h (sliding)"),
        ];
        for (window, entry, people) in table {
            assert_eq!(window.entry().map(|(_, text)| text).as_deref(), Some(entry));
            assert_eq!(window.to_string(), people);
        }
    }
}
