//! A TokenRateLimitPolicy as its author wrote it, read from JSON with every mistake told.

use crate::document;
use crate::validation_error::ValidationError;
use expression::cel::Expression;
use std::sync::Arc;
use std::time::Duration;

mod evaded;
pub mod names;
pub(crate) mod price;
pub mod reader;
mod share;
mod unit;
mod usage;
mod window;

pub use price::micro_usd;
pub use price::{Price, Tariff, UsageCost, usd_text};
pub use share::Share;
pub use unit::Unit;
pub use usage::{OnMissing, StreamUsage, UsageRules, WebSocketMode};
pub use window::{Period, Window, ZoneName};

/// One policy, its expressions compiled.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `metadata.namespace`, "default" if absent.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// What it applies to.
    pub target: Target,
    /// What else it targets (`targetRefs`): of the same level.
    pub further_targets: Vec<Target>,
    /// The path that its limits stand under: `spec`, `spec.defaults` or `spec.overrides`.
    pub block: &'static str,
    /// All must hold, for the whole policy.
    pub when: Vec<Expression>,
    /// In the order of their names.
    pub limits: Vec<Limit>,
    /// How its rules stand to those of a more specific policy.
    pub precedence: Precedence,
    /// What happens when the adapter cannot answer in time.
    pub failure_mode: FailureMode,
    /// How responses are read.
    pub usage: UsageRules,
    /// The first that is for a model is its own.
    pub prices: Vec<Price>,
    /// How its refusals differ from what the caller's dialect says.
    pub on_exceeded: Option<Arc<OnExceeded>>,
    /// What is wrong with it where request bodies are not read: each fact that only a body tells.
    pub needs_body: Vec<ValidationError>,
}

/// A policy's own refusal. What it does not say is as without it.
#[derive(Clone, Debug)]
pub struct OnExceeded {
    /// Instead of 429.
    pub status: Option<u16>,
    /// Set on it, by lower-case name.
    pub headers: Vec<(String, String)>,
    /// Its whole body.
    pub body: Option<Expression>,
    /// Which rates of the policy the headers of an answer name.
    pub quota_headers: QuotaHeaders,
}

/// Which rates of a policy the `x-ratelimit-*`, `anthropic-ratelimit-*` and `RateLimit` headers of an answer name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaHeaders {
    /// All.
    #[default]
    All,
    /// The one of which the smallest share is left.
    Constrained,
    /// None.
    None,
}

/// `targetRef`. The namespace is the policy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Gateway or HTTPRoute.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
    /// A listener of the Gateway, or a rule of the HTTPRoute.
    pub section: Option<String>,
}

/// What a policy can target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// All routes of a gateway.
    Gateway,
    /// One route.
    HttpRoute,
    /// One route for gRPC.
    GrpcRoute,
}

impl Policy {
    /// Everything that it targets: at least one, and all of one level.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.target).chain(&self.further_targets)
    }
}

/// How a policy's rules stand to those of a more specific policy, as a route's is to its gateway's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precedence {
    /// `limits`: both apply.
    #[default]
    Own,
    /// `defaults`: the more specific one's prevail.
    Defaults(Strategy),
    /// `overrides`: these prevail.
    Overrides(Strategy),
}

/// What prevailing replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// All of the other policy's rules.
    #[default]
    Atomic,
    /// Its limits of the same names, and its `when`.
    Merge,
}

/// What happens when the adapter cannot answer in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureMode {
    /// The request is admitted unchecked, and a metric counts it.
    #[default]
    Allow,
    /// The request is refused with 503.
    Deny,
}

/// What happens to a stream that has outgrown its hold and finds no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overrun {
    /// It goes on. What it uses is held, and charged, beyond the limit.
    #[default]
    Continue,
    /// It is ended as its API ends one that has reached its maximum output.
    Cut,
}

/// One entry of `limits`.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Its key.
    pub name: String,
    /// All must hold, or the limit does not apply.
    pub when: Vec<Expression>,
    /// Whose bucket. None: one bucket for all.
    pub counters: Vec<Expression>,
    /// At least one; no two of the same unit and window.
    pub rates: Vec<Rate>,
    /// What to hold, in each rate's own unit. `None`: the estimate.
    pub amount: Option<Expression>,
    /// How long a hold may live.
    pub ttl: Ttl,
    /// The most of the limit that one request may hold. `None`: all of it.
    pub max_share: Option<Share>,
    /// What happens to a stream that outgrows its hold.
    pub overrun: Overrun,
    /// Where it is false, the limit counts and refuses nothing. `None`: it is true.
    pub enforce_when: Option<Expression>,
    /// A request without a maximum of its own gets one: the output that was held for.
    pub caps_output: bool,
}

impl Limit {
    /// Whatever is evaluated for it, at whatever time.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let of_rates = self.rates.iter().flat_map(|rate| {
            let max = match &rate.max {
                Maximum::From(max) => Some(max),
                Maximum::Fixed(_) => None,
            };
            max.into_iter().chain(&rate.cost)
        });
        let ttl = match &self.ttl {
            Ttl::From(ttl) => Some(ttl),
            Ttl::Fixed(_) => None,
        };
        let own = self.when.iter().chain(&self.counters).chain(&self.amount).chain(&self.enforce_when);
        own.chain(ttl).chain(of_rates)
    }
}

/// How long a hold may live.
#[derive(Clone, Debug)]
pub enum Ttl {
    /// This long.
    Fixed(Duration),
    /// As long as each request's own facts say.
    From(Expression),
}

/// A maximum per window.
#[derive(Clone, Debug)]
pub struct Rate {
    /// The most that may be used in a window, in `unit`.
    pub max: Maximum,
    /// Over which time.
    pub window: Window,
    /// What is counted.
    pub unit: Unit,
    /// What a response costs, in `unit` (micro-USD for money). `None`: what its usage says.
    pub cost: Option<Expression>,
}

/// How much a rate lets pass.
#[derive(Clone, Debug)]
pub enum Maximum {
    /// `limit`: this much; money in micro-USD.
    Fixed(u64),
    /// `limitFrom`: as each request's own facts say.
    From(Expression),
}

impl Maximum {
    /// The policy's own number, if it has one.
    pub fn fixed(&self) -> Option<u64> {
        match self {
            Self::Fixed(max) => Some(*max),
            Self::From(_) => None,
        }
    }
}

/// The longest life of a hold whose policy names none.
pub const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);

impl Policy {
    /// Reads one object of `weir.dev/v1alpha1` or `kuadrant.io/v1alpha1`, with every mistake. It may not name a section
    /// of its target: without a cluster nobody knows them.
    pub fn read(document: &serde_json::Value) -> Result<Self, Vec<ValidationError>> {
        document::read(document, reader::policy).map(Self::noted)
    }

    /// The same, of a cluster.
    pub fn read_in_cluster(document: &serde_json::Value) -> Result<Self, Vec<ValidationError>> {
        document::read(document, reader::policy_in_cluster).map(Self::noted)
    }

    /// What is allowed, and may not be meant: a limit whose buckets are told by the request's body alone, facts of a
    /// client's choice that are compared exactly, and prices that are not for every model.
    pub fn warnings(&self) -> Vec<ValidationError> {
        let chosen = |limit: &&Limit| {
            !limit.counters.is_empty() && limit.counters.iter().all(Expression::is_of_body_alone)
        };
        let bucket = |limit: &Limit| ValidationError {
            path: format!("{}.limits.{}.counters", self.block, limit.name),
            message: "depends on nothing but the request's body, so clients can choose their own bucket"
                .to_owned(),
        };
        let mut warnings = evaded::all(&format!("{}.when", self.block), &self.when);
        for limit in &self.limits {
            warnings.extend(evaded::all(&format!("{}.limits.{}.when", self.block, limit.name), &limit.when));
            let enforced = limit.enforce_when.as_ref();
            let path = format!("{}.limits.{}.enforceWhen", self.block, limit.name);
            warnings.extend(enforced.and_then(|predicate| evaded::one(path, predicate)));
        }
        warnings.extend(self.limits.iter().filter(chosen).map(bucket));
        warnings.extend(self.unpriced());
        warnings
    }

    /// That there are models without a price, where one is asked for.
    fn unpriced(&self) -> Option<ValidationError> {
        let mut rates = self.limits.iter().flat_map(|limit| &limit.rates);
        let asks = rates.any(|rate| rate.unit == Unit::Usd && rate.cost.is_none());
        let any = self.prices.iter().any(|price| price.model.bytes().all(|byte| byte == b'*'));
        (asks && !any).then(|| ValidationError {
            path: "spec.prices".to_owned(),
            message: "has no price for `*`, so a model without a price costs as much as the dearest one"
                .to_owned(),
        })
    }

    fn noted((policy, needs_body): (Self, Vec<ValidationError>)) -> Self {
        Self { needs_body, ..policy }
    }
}
