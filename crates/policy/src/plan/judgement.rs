//! What a plan says of a request.

use super::{Estimate, PlannedRate};
use crate::model::{FailureMode, Overrun, Share, Tariff};
use expression::cel::Expression;
use llm::request::{Condition, Conflicts};
use protocol::call::Entries;
use std::sync::Arc;
use std::time::Duration;

/// What one rate is asked to hold.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Of which rate.
    pub rate: Arc<PlannedRate>,
    /// Which bucket: counter expressions and their values.
    pub counters: Arc<[(String, String)]>,
    /// The descriptor's entries.
    pub entries: Entries,
    /// At least 1.
    pub amount: u64,
    /// What may be used in all.
    pub max: u64,
    /// How long it may live.
    pub ttl: Duration,
    /// The most that one request may hold, and the share of the maximum that this is.
    pub most: Option<(u64, Share)>,
    /// Whether it can refuse.
    pub enforced: bool,
    /// What the model's tokens cost, where money is counted.
    pub tariff: Option<Tariff>,
}

impl Hold {
    /// Whether a request is refused because it would hold more than its share.
    pub fn exceeds_share(&self) -> bool {
        self.enforced && self.most.is_some_and(|(most, _)| self.amount > most)
    }

    /// Whether a stream that outgrows it is cut where there is no room.
    pub fn is_cut(&self) -> bool {
        self.enforced && self.rate.overrun == Overrun::Cut && self.rate.rate.unit.is_of_usage()
    }
}

/// A limit that applies although something about the request could not be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// "NAMESPACE/NAME".
    pub policy: Arc<str>,
    /// The limit's name.
    pub limit: String,
    /// What could not be known.
    pub cause: DoubtCause,
    /// The expression, and why it has no value. For people: it goes to logs, and shows no value.
    pub detail: String,
}

/// What could not be known about a request, so that a limit applied by assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DoubtCause {
    /// A predicate failed and counted as true.
    Predicate,
    /// A counter's value was absent: the request counted in the limit's `null` bucket.
    CounterAbsent,
    /// A counter failed: the request counted in the limit's `null` bucket.
    CounterFailed,
    /// Lists in the counters named more buckets than one request may use: it counted in the `null` bucket.
    CounterTooLong,
    /// No price is for the model: the dearest price applied.
    Price,
    /// The body could not be read, or not all of it.
    Body(Condition),
}

impl DoubtCause {
    /// As metrics spell it.
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

/// Something of a policy that could not be evaluated for this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// "NAMESPACE/NAME".
    pub policy: Arc<str>,
    /// The limit's name.
    pub limit: String,
    /// What was being evaluated.
    pub part: PolicyPart,
    /// The evaluation's own words.
    pub cause: String,
    /// The policy's.
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
    /// `onExceeded.body`.
    OnExceeded,
}

impl PolicyPart {
    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amount => "amount",
            Self::Ttl => "ttl",
            Self::Maximum => "limitFrom",
            Self::Enforcement => "enforceWhen",
            Self::Cost => "cost",
            Self::OnExceeded => "onExceeded",
        }
    }
}

/// Why a limit does not apply to a request.
#[derive(Clone, Debug)]
pub enum Miss {
    /// The policy targets another route.
    OtherRoute,
    /// This policy's `defaults` or `overrides` stand in its place.
    Replaced(String),
    /// This predicate is false.
    False(Expression),
    /// The `limitFrom` of each of its rates is null, or names an absent value.
    NoMaximum,
    /// The `limitFrom` of this rate is no maximum, and the limit has no other rates.
    Failed(Failure),
}

/// What a plan says of a request.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// What to hold, one per rate of every limit that applies.
    pub holds: Vec<Hold>,
    /// Each `limitFrom` that is no maximum: its policy's `failureMode` decides.
    pub failures: Vec<Failure>,
    /// The limits that apply although something could not be known. Of the body, the exchange says so.
    pub doubts: Vec<Doubt>,
    /// What could not be evaluated and has a value that is safe: limits are enforced, the estimate is held.
    pub assumed: Vec<Failure>,
    /// What the request is expected to use.
    pub estimate: Estimate,
    /// The most output, in tokens, if the request names no maximum.
    pub output_cap: Option<u64>,
    /// What the request's body gives twice, and a limit that applies depends on: it has to be refused.
    pub conflicts: Conflicts,
}
