//! The units of rates.

use super::price::usd_text;

macro_rules! units {
    ($(#[doc = $about:literal] $(#[$attribute:meta])* $unit:ident = $name:literal,)*) => {
        /// The unit of a rate.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Unit {
            $(#[doc = $about] $(#[$attribute])* $unit,)*
        }

        impl Unit {
            /// All units by their names.
            pub const NAMED: &[(&str, Self)] = &[$(($name, Self::$unit),)*];

            /// The name in policies, descriptors and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$unit => $name,)*
                }
            }

            /// What it counts, as a sentence for the reference.
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
    /// Requests. Each admitted request counts as one, whatever happens to it.
    Requests = "requests",
    /// Input and output tokens together.
    #[default]
    Tokens = "tokens",
    /// Tokens of the prompt, including cached tokens.
    InputTokens = "inputTokens",
    /// Tokens of the completion, including reasoning tokens.
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

    /// Formats an amount for people. For `concurrency`, it is a number of requests.
    pub fn quantity(self, amount: u64) -> String {
        match self {
            Self::Usd => format!("{} USD", usd_text(amount)),
            Self::Requests | Self::Concurrency => format!("{amount} requests"),
            Self::Tokens => format!("{amount} tokens"),
            Self::InputTokens => format!("{amount} input tokens"),
            Self::OutputTokens => format!("{amount} output tokens"),
        }
    }

    /// Returns whether only a response's usage shows the amount.
    pub fn is_of_usage(self) -> bool {
        match self {
            Self::Tokens | Self::InputTokens | Self::OutputTokens | Self::Usd => true,
            Self::Requests | Self::Concurrency => false,
        }
    }

    /// Returns whether the length of a response is part of the amount.
    pub fn counts_output(self) -> bool {
        match self {
            Self::Tokens | Self::OutputTokens | Self::Usd => true,
            Self::InputTokens | Self::Requests | Self::Concurrency => false,
        }
    }

    /// Returns whether it counts the tokens of a response.
    pub fn bounds_output(self) -> bool {
        match self {
            Self::Tokens | Self::OutputTokens => true,
            Self::Usd | Self::InputTokens | Self::Requests | Self::Concurrency => false,
        }
    }
}
