//! Policies, arranged for deciding requests: which facts to fetch, and what a request would hold.

use crate::call::Entries;
use crate::cel::{EvaluationError, Expression};
use crate::facts::{Facts, Need};
use crate::model::{FailureMode, Limit, Policy, Rate, TargetKind, Unit};
use crate::routes::Routes;
use std::sync::Arc;
use std::time::Duration;

/// All policies in force.
#[derive(Debug, Default)]
pub struct Plan {
    policies: Vec<Planned>,
    /// `None`: no cluster tells, so a policy on an HTTPRoute means the Envoy route of that name.
    routes: Option<Routes>,
    needs: Vec<Need>,
}

#[derive(Debug)]
struct Planned {
    name: Arc<str>,
    policy: Policy,
    /// Beside `policy.limits`.
    rates: Vec<Vec<Arc<PlannedRate>>>,
}

/// One rate of one limit of one policy.
#[derive(Debug)]
pub struct PlannedRate {
    /// "NAMESPACE/NAME".
    pub policy: Arc<str>,
    /// The limit's name.
    pub limit: String,
    /// Maximum, window and unit.
    pub rate: Rate,
    /// The policy's.
    pub failure_mode: FailureMode,
    /// The limit's `reservation.ttl`.
    pub ttl: Duration,
    /// The limit's name, or with its unit and window if the limit has several rates.
    pub label: String,
    entries: Entries,
}

/// What a request is expected to use, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Prompt tokens.
    pub input: u64,
    /// Completion tokens.
    pub output: u64,
}

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
}

/// Something of a policy that could not be evaluated for this request. Its `failureMode` decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// "NAMESPACE/NAME".
    pub policy: Arc<str>,
    /// The limit, if it is one limit's.
    pub limit: Option<String>,
    /// What was being evaluated.
    pub part: Part,
    /// The evaluation's own words.
    pub cause: String,
    /// The policy's.
    pub mode: FailureMode,
}

/// A part of a policy that is evaluated for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `when`.
    Predicate,
    /// `counters`.
    Counter,
    /// `reservation.amount`.
    Amount,
}

impl Part {
    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predicate => "predicate",
            Self::Counter => "counter",
            Self::Amount => "amount",
        }
    }
}

/// Why a limit does not apply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The policy targets another route.
    OtherRoute,
    /// This predicate is false.
    False(String),
    /// This predicate is false because an `auth` or header value is absent.
    Absent(String, String),
    /// Something could not be evaluated.
    Failed(Failure),
}

/// What a plan says of a request.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// What to hold, one per rate of every limit that applies.
    pub holds: Vec<Hold>,
    /// What could not be evaluated.
    pub failures: Vec<Failure>,
    /// What the request is expected to use.
    pub estimate: Estimate,
}

impl Plan {
    /// Arranges policies. Those that come first are named first where two refuse alike.
    pub fn new(policies: Vec<Policy>) -> Self {
        let mut needs = needs(&policies);
        if policies.iter().any(|policy| policy.target.kind == TargetKind::HttpRoute) {
            needs.push(Need::Property(Facts::ROUTE_NAME.map(str::to_owned).to_vec()));
        }
        Self::arranged(policies, None, needs)
    }

    /// The same, of a gateway whose listeners and routes are known.
    pub fn placed(policies: Vec<Policy>, routes: Routes) -> Self {
        let mut needs = needs(&policies);
        needs.extend_from_slice(routes.needs());
        Self::arranged(policies, Some(routes), needs)
    }

    fn arranged(policies: Vec<Policy>, routes: Option<Routes>, mut needs: Vec<Need>) -> Self {
        needs.sort();
        needs.dedup();
        Self { policies: policies.into_iter().map(Planned::new).collect(), routes, needs }
    }

    /// What must be fetched before a request can be judged.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// Which limits apply, and what they would hold. `bodiless`: the request ends with its headers.
    pub fn judge(&self, facts: &mut Facts, bodiless: bool) -> Judgement {
        self.judge_with(facts, bodiless, |_, _, _| {})
    }

    /// The same; `miss` hears for each limit that does not apply: policy, limit, and why.
    pub fn judge_with(
        &self,
        facts: &mut Facts,
        bodiless: bool,
        mut miss: impl FnMut(&str, &str, Miss),
    ) -> Judgement {
        let input = estimate_input(facts, bodiless);
        let preliminary = Estimate { input, output: estimate_output(input, bodiless, None) };
        facts.estimate(preliminary.input, preliminary.output);
        let mut failures = Vec::new();
        let mut matching = Vec::new();
        for planned in self.targeted(facts, &mut miss) {
            planned.matching(facts, &mut matching, |limit, why| {
                if let Miss::Failed(failure) = &why
                    && !failures.contains(failure)
                {
                    failures.push(failure.clone());
                }
                miss(&planned.name, limit, why);
            });
        }
        let smallest = matching.iter().flat_map(|limit: &Matching<'_>| limit.smallest_token_limit()).min();
        let estimate = Estimate { input, output: estimate_output(input, bodiless, smallest) };
        if estimate != preliminary {
            facts.estimate(estimate.input, estimate.output);
        }
        let mut holds = Vec::with_capacity(matching.len());
        for limit in &matching {
            if let Err(failure) = limit.hold(facts, estimate, &mut holds) {
                miss(&failure.policy, &limit.limit.name, Miss::Failed(failure.clone()));
                failures.push(failure);
            }
        }
        Judgement { holds, failures, estimate }
    }
}

impl Plan {
    /// The policies whose target the request is on its way to.
    fn targeted(&self, facts: &Facts, miss: &mut impl FnMut(&str, &str, Miss)) -> Vec<&Planned> {
        if let Some(routes) = &self.routes {
            return routes.find(facts).into_iter().filter_map(|place| self.policies.get(place)).collect();
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) = self.policies.iter().partition(|planned| {
            let target = &planned.policy.target;
            target.kind == TargetKind::Gateway || facts.route_name() == Some(&target.name)
        });
        for planned in elsewhere {
            planned.policy.limits.iter().for_each(|limit| miss(&planned.name, &limit.name, Miss::OtherRoute));
        }
        here
    }
}

impl Estimate {
    /// Input and output.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// Without the body, each byte of it counts as a character of text.
fn estimate_input(facts: &Facts, bodiless: bool) -> u64 {
    match facts.content_length() {
        Some(length) if !bodiless && length > 0 => (length / 4).max(1),
        _ => 0,
    }
}

/// What comes back when the client names no maximum: as much as went in, and at least a quarter of the smallest
/// limit, but no more than 1024 for that.
fn estimate_output(input: u64, bodiless: bool, smallest_limit: Option<u64>) -> u64 {
    if bodiless {
        return 0;
    }
    let floor = smallest_limit.map_or(1024, |limit| (limit / 4).clamp(1, 1024));
    input.max(floor)
}

fn needs(policies: &[Policy]) -> Vec<Need> {
    let limits = policies.iter().flat_map(|policy| &policy.limits);
    let of_limits = limits.flat_map(|limit| limit.when.iter().chain(&limit.counters).chain(&limit.amount));
    let of_policies = policies.iter().flat_map(|policy| &policy.when);
    let mut needs = Facts::needs(of_policies.chain(of_limits).flat_map(Expression::references));
    // The estimate, and which calls use no tokens.
    if policies.iter().flat_map(|p| &p.limits).flat_map(|l| &l.rates).any(|r| r.unit.is_of_usage()) {
        needs.extend([Need::Header("content-length".into()), Need::Header(":path".into())]);
    }
    needs
}

impl Planned {
    fn new(policy: Policy) -> Self {
        let name: Arc<str> = format!("{}/{}", policy.namespace, policy.name).into();
        let rates = policy.limits.iter().map(|limit| planned_rates(&name, &policy, limit)).collect();
        Self { name, policy, rates }
    }

    fn matching<'p>(
        &'p self,
        facts: &Facts,
        matching: &mut Vec<Matching<'p>>,
        mut miss: impl FnMut(&str, Miss),
    ) {
        if let Err(why) = self.holds_true(&self.policy.when, None, facts) {
            self.policy.limits.iter().for_each(|limit| miss(&limit.name, why.clone()));
            return;
        }
        for (limit, rates) in self.policy.limits.iter().zip(&self.rates) {
            let counters = self
                .holds_true(&limit.when, Some(limit), facts)
                .and_then(|()| self.counters(limit, facts).map_err(Miss::Failed));
            match counters {
                Ok(counters) => matching.push(Matching { planned: self, limit, rates, counters }),
                Err(why) => miss(&limit.name, why),
            }
        }
    }

    /// Whether all predicates hold.
    fn holds_true(&self, when: &[Expression], limit: Option<&Limit>, facts: &Facts) -> Result<(), Miss> {
        for predicate in when {
            match predicate.predicate(facts) {
                Ok(true) => {}
                Ok(false) => return Err(Miss::False(predicate.source().to_owned())),
                Err(EvaluationError::Absent(what)) => {
                    return Err(Miss::Absent(predicate.source().to_owned(), what));
                }
                Err(error) => return Err(Miss::Failed(self.failure(limit, Part::Predicate, &error))),
            }
        }
        Ok(())
    }

    fn counters(&self, limit: &Limit, facts: &Facts) -> Result<Arc<[(String, String)]>, Failure> {
        let value = |counter: &Expression| match counter.text(facts) {
            Ok(value) => Ok((counter.source().to_owned(), value)),
            Err(error) => Err(self.failure(Some(limit), Part::Counter, &error)),
        };
        limit.counters.iter().map(value).collect()
    }

    fn failure(&self, limit: Option<&Limit>, part: Part, error: &EvaluationError) -> Failure {
        Failure {
            policy: self.name.clone(),
            limit: limit.map(|limit| limit.name.clone()),
            part,
            cause: error.to_string(),
            mode: self.policy.failure_mode,
        }
    }
}

fn planned_rates(name: &Arc<str>, policy: &Policy, limit: &Limit) -> Vec<Arc<PlannedRate>> {
    let planned = |rate: &Rate| {
        let unit = rate.unit.name();
        let mut entries = Entries::default();
        entries.push("limit", &format!("{name}/{}", limit.name));
        entries.push("unit", unit);
        let window = rate.window.entry();
        if let Some((key, value)) = &window {
            entries.push(key, value);
        }
        let label = match (limit.rates.len(), window) {
            (1, _) => limit.name.clone(),
            (_, Some((_, window))) => format!("{}-{unit}-{window}", limit.name),
            (_, None) => format!("{}-{unit}", limit.name),
        };
        Arc::new(PlannedRate {
            policy: name.clone(),
            limit: limit.name.clone(),
            rate: rate.clone(),
            failure_mode: policy.failure_mode,
            ttl: limit.ttl,
            label,
            entries,
        })
    };
    limit.rates.iter().map(planned).collect()
}

/// A limit that applies, and whose bucket.
struct Matching<'p> {
    planned: &'p Planned,
    limit: &'p Limit,
    rates: &'p [Arc<PlannedRate>],
    counters: Arc<[(String, String)]>,
}

impl Matching<'_> {
    fn smallest_token_limit(&self) -> Option<u64> {
        self.limit
            .rates
            .iter()
            .filter(|rate| rate.unit == Unit::Tokens)
            .filter_map(|rate| rate.max.fixed())
            .min()
    }

    fn hold(&self, facts: &Facts, estimate: Estimate, holds: &mut Vec<Hold>) -> Result<(), Failure> {
        let given = self.limit.amount.as_ref().map(|amount| amount.amount(facts)).transpose();
        let given = given.map_err(|error| self.planned.failure(Some(self.limit), Part::Amount, &error))?;
        let mut whose = Entries::default();
        for (expression, value) in self.counters.iter() {
            whose.push(expression, value);
        }
        for rate in self.rates {
            let mut entries = rate.entries.clone();
            entries.append(&whose);
            let amount = match rate.rate.unit {
                Unit::Requests | Unit::Concurrency => 1,
                Unit::InputTokens => given.unwrap_or(estimate.input).max(1),
                Unit::OutputTokens => given.unwrap_or(estimate.output).max(1),
                Unit::Tokens | Unit::Usd => given.unwrap_or(estimate.total()).max(1),
            };
            holds.push(Hold { rate: rate.clone(), counters: self.counters.clone(), entries, amount });
        }
        Ok(())
    }
}
