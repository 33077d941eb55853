//! A TokenRateLimitPolicy as its author wrote it, read from JSON with every error reported.

use crate::document::{self, Remarks};
use crate::validation_error::ValidationError;
use expression::cel::Expression;
use extraction::DataExtraction;
use std::sync::Arc;
use std::time::Duration;

mod boundary;
mod evaded;
pub(crate) mod extraction;
mod misspelt;
pub mod names;
pub(crate) mod price;
pub mod reader;
mod share;
mod threshold;
mod unit;
mod usage;
mod window;

pub use boundary::{Boundary, SoftSignal};
pub use price::micro_usd;
pub use price::{Price, Tariff, UsageCost, usd_text};
pub use share::Share;
pub use threshold::Threshold;
pub use unit::Unit;
pub use usage::{OnMissing, StreamUsage, UsageReporting, UsageRules, WebSocketMode};
pub use window::{Period, Window, ZoneName};

/// One policy with compiled expressions.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `metadata.namespace`, "default" if absent.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The target.
    pub target: Target,
    /// The policy's other targets (`targetRefs`), all on the same level.
    pub further_targets: Vec<Target>,
    /// The path of its limits: `spec`, `spec.defaults` or `spec.overrides`.
    pub block: &'static str,
    /// Predicates for the whole policy. All must be true.
    pub when: Vec<Expression>,
    /// Sorted by name.
    pub limits: Vec<Limit>,
    /// How the policy's rules combine with those of a more specific policy.
    pub precedence: Precedence,
    /// Where responses report named counts.
    pub extraction: Option<Arc<DataExtraction>>,
    /// Computes the charged tokens of a response from its named counts.
    pub token_compute: Option<Arc<Expression>>,
    /// What happens when the adapter cannot answer in time.
    pub failure_mode: FailureMode,
    /// How responses are read.
    pub usage: UsageRules,
    /// How much of the usage Envoy's access log may show.
    pub reporting: Option<UsageReporting>,
    /// The first price that matches a model applies.
    pub prices: Vec<Price>,
    /// How the policy's refusals differ from the default.
    pub on_exceeded: Option<Arc<OnExceeded>>,
    /// One note for each fact that needs the request's body. They are errors if bodies are not read.
    pub needs_body: Vec<ValidationError>,
    /// One warning for each expression that is probably misspelt.
    pub misspelt: Vec<ValidationError>,
}

/// A policy's own refusal. Omitted fields keep their defaults.
#[derive(Clone, Debug)]
pub struct OnExceeded {
    /// The status instead of 429.
    pub status: Option<u16>,
    /// Headers to set, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Option<Expression>,
    /// Which rates of the policy the response's headers show.
    pub quota_headers: QuotaHeaders,
}

/// Which rates of a policy appear in the `x-ratelimit-*`, `anthropic-ratelimit-*` and `RateLimit` headers of
/// a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaHeaders {
    /// Shows all of them.
    #[default]
    All,
    /// Shows the rate with the smallest remaining share.
    Constrained,
    /// Shows none of them.
    None,
}

/// `targetRef`. The target is in the policy's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Gateway or HTTPRoute.
    pub kind: TargetKind,
    pub name: String,
    /// A listener of the Gateway, or a rule of the HTTPRoute.
    pub section: Option<String>,
}

/// The kind of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// All routes of a Gateway.
    Gateway,
    /// One HTTP route.
    HttpRoute,
    /// One gRPC route.
    GrpcRoute,
}

impl Policy {
    /// All targets of the policy: at least one, and all on the same level.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.target).chain(&self.further_targets)
    }
}

/// How a policy's rules combine with those of a more specific policy, for example a route's with its
/// gateway's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precedence {
    /// `limits`, which apply together with it.
    #[default]
    Own,
    /// `defaults`, which yield to more specific rules.
    Defaults(Strategy),
    /// `overrides`, which win over more specific rules.
    Overrides(Strategy),
}

/// What the winning rules replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// All of the other policy's rules.
    #[default]
    Atomic,
    /// Its limits with the same names, its `when`, its `dataExtraction`, and its `tokenCompute`.
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

/// What happens to a stream that outgrows its hold when its limit has no room left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overrun {
    /// It continues. What it uses beyond the limit is held and charged.
    #[default]
    Continue,
    /// It ends like a stream of its API that has reached its maximum output.
    Cut,
}

/// What a hold of tokens or money costs that ends without its exchange, because it expires or its worker is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLapse {
    /// The held amount is charged, since what was used is not known. If it becomes known, the difference is
    /// charged or refunded.
    #[default]
    Charge,
    /// Nothing.
    Release,
}

/// One entry of `limits`.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The limit's key in `limits`.
    pub name: String,
    /// The limit applies only if all predicates are true.
    pub when: Vec<Expression>,
    /// Expressions that select the bucket. Empty means one bucket for all requests.
    pub counters: Vec<Expression>,
    /// At least one. No two rates have the same unit and window.
    pub rates: Vec<Rate>,
    /// How much to hold, in each rate's own unit. `None` means the estimate.
    pub amount: Option<Expression>,
    /// The maximum lifetime of a hold.
    pub ttl: Ttl,
    /// The largest share of the limit that one request may hold. `None` means all of it.
    pub max_share: Option<Share>,
    /// What a hold costs that lapses.
    pub on_lapse: OnLapse,
    /// Whether workers may have leases of its counters.
    pub leases: bool,
    /// What happens to a stream that outgrows its hold.
    pub overrun: Overrun,
    /// What happens once the limit is exceeded.
    pub boundary: Boundary,
    /// The parts of the limit at which Weir warns, in ascending order. May be empty.
    pub warn_at: Arc<[Threshold]>,
    /// The name of its counters within the namespace. `None` means the limit's and the policy's own names.
    pub counter_key: Option<String>,
    /// If false, the limit counts but neither refuses nor signals. `None` means true.
    pub enforce_when: Option<Expression>,
    /// Whether a request without a maximum output receives one: the output that was held.
    pub caps_output: bool,
}

impl Limit {
    /// All expressions of the limit, regardless of when they are evaluated.
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

/// The maximum lifetime of a hold.
#[derive(Clone, Debug)]
pub enum Ttl {
    /// A fixed time.
    Fixed(Duration),
    /// Evaluated for each request.
    From(Expression),
}

/// A maximum per window.
#[derive(Clone, Debug)]
pub struct Rate {
    /// The maximum usage per window, in `unit`.
    pub max: Maximum,
    /// The time over which it counts.
    pub window: Window,
    /// The unit.
    pub unit: Unit,
    /// What a response costs, in `unit` (micro-USD for money). `None` means the usage itself.
    pub cost: Option<Expression>,
}

/// The maximum of a rate.
#[derive(Clone, Debug)]
pub enum Maximum {
    /// `limit`, a fixed number. Money is in micro-USD.
    Fixed(u64),
    /// `limitFrom`, which is evaluated for each request.
    From(Expression),
}

impl Maximum {
    /// Returns the maximum if it is fixed.
    pub fn fixed(&self) -> Option<u64> {
        match self {
            Self::Fixed(max) => Some(*max),
            Self::From(_) => None,
        }
    }
}

pub const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);

impl Policy {
    /// Reads an object of `weir.dev/v1alpha1` or `kuadrant.io/v1alpha1` and reports every error. Its target
    /// may not name a section, because sections exist only in a cluster.
    pub fn read(document: &serde_json::Value) -> Result<Self, Vec<ValidationError>> {
        document::read(document, reader::policy).map(Self::with_remarks)
    }

    /// Reads an object in a cluster.
    pub fn read_in_cluster(document: &serde_json::Value) -> Result<Self, Vec<ValidationError>> {
        document::read(document, reader::policy_in_cluster).map(Self::with_remarks)
    }

    /// Returns warnings about valid but probably unintended parts: a limit with buckets that depend only on
    /// the request's body, exact comparisons of values that the client chooses, misspelt parts of the
    /// identity, and prices that do not cover every model.
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
        warnings.extend(self.misspelt.iter().cloned());
        warnings.extend(self.unpriced());
        warnings
    }

    /// Warns if a model may have no price and a limit needs one.
    fn unpriced(&self) -> Option<ValidationError> {
        let mut rates = self.limits.iter().flat_map(|limit| &limit.rates);
        let asks = rates.any(|rate| rate.unit == Unit::Usd && rate.cost.is_none());
        let any = self.prices.iter().any(|price| price.model.bytes().all(|byte| byte == b'*'));
        (asks && !any).then(|| ValidationError {
            path: "spec.prices".to_owned(),
            message:
                "has no price for `*`, so a model without a price costs as much as the most expensive one"
                    .to_owned(),
        })
    }

    fn with_remarks((policy, remarks): (Self, Remarks)) -> Self {
        Self { needs_body: remarks.notes, misspelt: remarks.warnings, ..policy }
    }
}
