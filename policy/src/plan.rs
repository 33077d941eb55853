//! Policies, arranged for deciding requests: which facts to fetch, and what a request would hold.

mod holding;

use crate::call::Entries;
use crate::cel::{EvaluationError, Expression};
use crate::facts::{Answer, Facts, Need};
use crate::meter::Usage;
use crate::model::{FailureMode, Limit, Policy, Rate, TargetKind, Tariff};
use crate::routes::Routes;
use holding::Matching;
use std::sync::Arc;
use std::time::Duration;

/// All policies in force.
#[derive(Debug, Default)]
pub struct Plan {
    policies: Vec<Planned>,
    /// `None`: no cluster tells, so a policy on an HTTPRoute means the Envoy route of that name.
    routes: Option<Routes>,
    needs: Vec<Need>,
    answer_headers: Vec<String>,
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
    /// What may be used in all.
    pub max: u64,
    /// How long it may live.
    pub ttl: Duration,
    /// Whether it can refuse.
    pub enforced: bool,
    /// What the model's tokens cost, where money is counted.
    pub tariff: Option<Tariff>,
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
    /// `reservation.ttl`.
    Ttl,
    /// `limitFrom`.
    Maximum,
    /// `enforceWhen`.
    Enforcement,
    /// `prices`.
    Price,
    /// `cost`.
    Cost,
}

impl Part {
    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predicate => "predicate",
            Self::Counter => "counter",
            Self::Amount => "amount",
            Self::Ttl => "ttl",
            Self::Maximum => "limitFrom",
            Self::Enforcement => "enforceWhen",
            Self::Price => "price",
            Self::Cost => "cost",
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
    /// The `limitFrom` of each of its rates is null, or names an absent value.
    NoMaximum,
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
    /// Limits whose `enforceWhen` could not be evaluated. They are enforced.
    pub enforced: Vec<Failure>,
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
        let answer_headers = answer_headers(&policies);
        let policies = policies.into_iter().map(Planned::new).collect();
        Self { policies, routes, needs, answer_headers }
    }

    /// The response's headers, in lower case, that a `cost` names.
    pub fn answer_headers(&self) -> &[String] {
        &self.answer_headers
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
        let smallest = matching.iter().filter_map(Matching::smallest_output_limit).min();
        let estimate = Estimate { input, output: estimate_output(input, bodiless, smallest) };
        if estimate != preliminary {
            facts.estimate(estimate.input, estimate.output);
        }
        // A `cost` says what to hold, too: what the estimate would cost.
        facts.answer(Answer { usage: estimate.usage(), code: 200, finished: true, ..Answer::default() });
        let mut judgement = Judgement { estimate, failures, ..Judgement::default() };
        for limit in &matching {
            match limit.holds(facts, estimate, &mut judgement.enforced) {
                Ok(mut holds) => judgement.holds.append(&mut holds),
                Err(failure) => {
                    miss(&failure.policy, &limit.limit.name, Miss::Failed(failure.clone()));
                    judgement.failures.push(failure);
                }
            }
        }
        judgement
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

    /// As if it had been used.
    pub fn usage(self) -> Usage {
        Usage { input: self.input, output: self.output, total: self.total(), ..Usage::default() }
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
    let of_limits = limits.flat_map(Limit::expressions);
    let of_policies = policies.iter().flat_map(|policy| &policy.when);
    let mut needs = Facts::needs(of_policies.chain(of_limits).flat_map(Expression::references));
    // The estimate, and which calls use no tokens.
    if policies.iter().flat_map(|p| &p.limits).flat_map(|l| &l.rates).any(|r| r.unit.is_of_usage()) {
        needs.extend([Need::Header("content-length".into()), Need::Header(":path".into())]);
    }
    needs
}

fn answer_headers(policies: &[Policy]) -> Vec<String> {
    let expressions = policies.iter().flat_map(|policy| &policy.limits).flat_map(Limit::expressions);
    let mut names: Vec<String> = expressions
        .flat_map(Expression::references)
        .filter_map(|path| match path.as_slice() {
            [root, headers, name] if root == "response" && headers == "headers" => Some(name.clone()),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
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
            match Matching::of(self, limit, rates, facts) {
                Ok(matched) => matching.push(matched),
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
            label,
            entries,
        })
    };
    limit.rates.iter().map(planned).collect()
}
