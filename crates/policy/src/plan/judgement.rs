//! The decisions of a plan about a request.

use super::bucket::NULL;
use super::{Estimate, OutputLesson, PlannedRate, TokenRules};
use crate::model::{FailureMode, Overrun, Share, SoftSignal, Tariff};
use expression::cel::Expression;
use llm::request::{Condition, Conflicts};
use protocol::call::Entries;
use std::sync::Arc;
use std::time::Duration;

/// The hold of one rate.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The rate.
    pub rate: Arc<PlannedRate>,
    /// The bucket: counter expressions and their values.
    pub counters: Arc<[(String, String)]>,
    /// The descriptor's entries.
    pub entries: Entries,
    /// The amount, at least 1.
    pub amount: u64,
    /// The rate's maximum.
    pub max: u64,
    /// The maximum lifetime of the hold.
    pub ttl: Duration,
    /// The maximum amount that one request may hold, and its share of the rate's maximum.
    pub most: Option<(u64, Share)>,
    /// Whether the rate can refuse.
    pub enforced: bool,
    /// The signal of a soft limit, unless its `enforceWhen` is false.
    pub signal: Option<Arc<SoftSignal>>,
    /// The price of the model's tokens, if money is counted.
    pub tariff: Option<Tariff>,
    /// How the tokens of the response are counted.
    pub tokens: TokenRules,
}

impl Hold {
    /// Whether the request must be refused because it would hold more than its share.
    pub fn exceeds_share(&self) -> bool {
        self.enforced && self.is_above_share()
    }

    /// Whether the hold exceeds what one request may hold.
    pub fn is_above_share(&self) -> bool {
        self.most.is_some_and(|(most, _)| self.amount > most)
    }

    /// Whether the hold is in the `null` bucket, possibly because of a counter that reads the request's body.
    pub fn lacks_counter_of_body(&self) -> bool {
        self.rate.counts_by_body && self.counters.iter().any(|(_, value)| value == NULL)
    }

    /// Whether the policy defines what a response counts, instead of the unit.
    pub fn has_own_count(&self) -> bool {
        self.rate.rate.cost.is_some() || self.tokens.compute.is_some()
    }

    /// Whether a stream that outgrows the hold is cut if there is no room.
    pub fn is_cut(&self) -> bool {
        self.enforced && self.rate.overrun == Overrun::Cut && self.rate.rate.unit.is_of_usage()
    }
}

/// A limit that applies although part of the request is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// "NAMESPACE/NAME".
    pub policy: Arc<str>,
    pub limit: String,
    /// The unknown part.
    pub cause: DoubtCause,
    /// The expression, and why it has no value. It never contains a request's values, because it is logged.
    pub detail: String,
}

/// What is unknown about a request, so that a limit applies by assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DoubtCause {
    /// A predicate failed and counts as true.
    Predicate,
    /// A counter's value is absent: the request counts in the limit's `null` bucket.
    CounterAbsent,
    /// A counter failed: the request counts in the limit's `null` bucket.
    CounterFailed,
    /// Lists in the counters name more buckets than one request may use: the request counts in the limit's
    /// `null` bucket.
    CounterTooLong,
    /// No price matches the model: the highest price applies.
    Price,
    /// The body was not read, or not to its end.
    Body(Condition),
}

impl DoubtCause {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predicate => "predicate",
            Self::CounterAbsent => "counter_absent",
            Self::CounterFailed => "counter_failed",
            Self::CounterTooLong => "counter_too_long",
            Self::Price => "price",
            Self::Body(condition) => condition.name(),
        }
    }
}

/// Part of a policy that could not be evaluated for this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// "NAMESPACE/NAME".
    pub policy: Arc<str>,
    pub limit: String,
    /// The part.
    pub part: PolicyPart,
    /// The error message.
    pub cause: String,
    /// The policy's failure mode.
    pub mode: FailureMode,
}

/// A part of a policy that is evaluated for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyPart {
    /// `reservation.amount`.
    Amount,
    /// `reservation.ttl`.
    Ttl,
    /// `limitFrom`.
    Maximum,
    /// `enforceWhen`.
    Enforcement,
    /// `cost`.
    Cost,
    /// `tokenCompute`.
    TokenCompute,
    /// `onExceeded.body`.
    OnExceeded,
}

impl PolicyPart {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amount => "amount",
            Self::Ttl => "ttl",
            Self::Maximum => "limitFrom",
            Self::Enforcement => "enforceWhen",
            Self::Cost => "cost",
            Self::TokenCompute => "tokenCompute",
            Self::OnExceeded => "onExceeded",
        }
    }
}

/// Why a limit does not apply to a request.
#[derive(Clone, Debug)]
pub enum Miss {
    /// The policy targets another route.
    OtherRoute,
    /// This policy's `defaults` or `overrides` replace it.
    Replaced(String),
    /// This predicate is false.
    False(Expression),
    /// The `limitFrom` of each of its rates is null or names an absent value.
    NoMaximum,
    /// The `limitFrom` of this rate did not produce a maximum, and the limit has no other rates.
    Failed(Failure),
}

/// The decisions of a plan about a request.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// The holds, one for each rate of every limit that applies, and for each bucket.
    pub holds: Vec<Hold>,
    /// The `limitFrom` expressions that did not produce a maximum. Their policies' `failureMode` decides.
    pub failures: Vec<Failure>,
    /// The limits that apply although something is unknown. The exchange adds the doubts about the body.
    pub doubts: Vec<Doubt>,
    /// The parts that could not be evaluated and are replaced by safe values: limits are enforced, and the
    /// estimate is held.
    pub assumed: Vec<Failure>,
    /// Whether the call is known to use no tokens.
    pub is_free: bool,
    /// The expected usage of the request.
    pub estimate: Estimate,
    /// The maximum output that the request itself allows, if it is known.
    pub max_output: Option<u64>,
    /// What the response teaches about the output of such requests.
    pub lesson: Option<OutputLesson>,
    /// The maximum output in tokens to set if the request has none.
    pub output_cap: Option<u64>,
    /// The fields that the request's body contains twice and a limit depends on. If there are any, the
    /// request must be refused.
    pub conflicts: Conflicts,
}
