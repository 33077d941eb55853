//! What a rate counts.

use super::price::usd_text;

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
