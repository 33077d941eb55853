//! What a rate counts, and over which time.

use super::price::usd_text;
use crate::duration;
use std::fmt;
use std::time::Duration;

macro_rules! units {
    ($(#[doc = $about:literal] $(#[$attribute:meta])* $unit:ident = $name:literal,)*) => {
        /// What a rate counts.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Unit {
            $(#[doc = $about] $(#[$attribute])* $unit,)*
        }

        impl Unit {
            /// All of them, by their names.
            pub const NAMED: &[(&str, Self)] = &[$(($name, Self::$unit),)*];

            /// As policies, descriptors and metrics spell it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$unit => $name,)*
                }
            }

            /// What it counts, in a sentence for the reference.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$unit => $about,)*
                }
                .trim_ascii()
            }
        }
    };
}

units! {
    /// Requests. Each admitted request counts as one, whatever becomes of it.
    Requests = "requests",
    /// Input and output tokens together.
    #[default]
    Tokens = "tokens",
    /// Tokens of the prompt, cached tokens included.
    InputTokens = "inputTokens",
    /// Tokens of the completion, reasoning tokens included.
    OutputTokens = "outputTokens",
    /// Money, by the policy's `prices`. Limits are in USD; amounts are counted in micro-USD and rounded up.
    Usd = "usd",
    /// Requests in flight. A slot is held while the request runs and is never charged.
    Concurrency = "concurrency",
}

impl Unit {
    /// The unit with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, unit)| *unit)
    }

    /// So much of it, for people. Of concurrency, these are requests.
    pub fn quantity(self, amount: u64) -> String {
        match self {
            Self::Usd => format!("{} USD", usd_text(amount)),
            Self::Requests | Self::Concurrency => format!("{amount} requests"),
            Self::Tokens => format!("{amount} tokens"),
            Self::InputTokens => format!("{amount} input tokens"),
            Self::OutputTokens => format!("{amount} output tokens"),
        }
    }

    /// Whether what it counts is known from a response's usage only.
    pub fn is_of_usage(self) -> bool {
        match self {
            Self::Tokens | Self::InputTokens | Self::OutputTokens | Self::Usd => true,
            Self::Requests | Self::Concurrency => false,
        }
    }

    /// Whether the length of a response is part of what it counts.
    pub fn counts_output(self) -> bool {
        match self {
            Self::Tokens | Self::OutputTokens | Self::Usd => true,
            Self::InputTokens | Self::Requests | Self::Concurrency => false,
        }
    }

    /// Whether it counts in tokens what a response may say.
    pub fn bounds_output(self) -> bool {
        match self {
            Self::Tokens | Self::OutputTokens => true,
            Self::Usd | Self::InputTokens | Self::Requests | Self::Concurrency => false,
        }
    }
}

/// Over which time a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// As long as this, from the first charge on.
    Fixed(Duration),
    /// The day, week or month of the UTC calendar.
    Period(Period),
    /// What is under way now: `concurrency` alone, which is no matter of time.
    Now,
}

/// A part of the UTC calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
}

impl Period {
    /// As policies and descriptors spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "Day",
            Self::Week => "Week",
            Self::Month => "Month",
        }
    }
}

impl Window {
    /// The descriptor's entry that tells it from other windows of the limit: one spelling for each, whatever the
    /// policy's own (`86400s` for 24h and for 1d, `1500ms` where it is no whole number of seconds).
    pub fn entry(self) -> Option<(&'static str, String)> {
        match self {
            Self::Fixed(length) => Some(("window", duration::text(length))),
            Self::Period(period) => Some(("period", period.name().to_owned())),
            Self::Now => None,
        }
    }

    /// How long it lasts; a month counts as 30 days. `None`: it is no matter of time.
    pub fn length(self) -> Option<Duration> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        match self {
            Self::Fixed(length) => Some(length),
            Self::Period(Period::Day) => Some(DAY),
            Self::Period(Period::Week) => Some(DAY.saturating_mul(7)),
            Self::Period(Period::Month) => Some(DAY.saturating_mul(30)),
            Self::Now => None,
        }
    }
}

/// For people, after "per": `24h`, `90s`, `month (UTC)`. Nothing for [`Window::Now`].
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => f.write_str(&duration::short(*length)),
            Self::Period(Period::Day) => f.write_str("day (UTC)"),
            Self::Period(Period::Week) => f.write_str("week (UTC)"),
            Self::Period(Period::Month) => f.write_str("month (UTC)"),
            Self::Now => Ok(()),
        }
    }
}
