//! Policies, arranged for deciding requests: which facts to fetch, and what a request would hold.

mod cap;
mod gate;
mod holding;
mod index;
mod precedence;

use crate::call::Entries;
use crate::cel::{EvaluationError, Expression};
use crate::config::BodyAccess;
use crate::facts::{self, Answer, Facts, Need};
use crate::meter::{Pointers, Usage};
use crate::model::{FailureMode, Limit, OnExceeded, Policy, Rate, TargetKind, Tariff, UsageRules};
use crate::order;
use crate::routes::Routes;
pub use gate::Round;
use holding::{Buckets, Matching};
use index::Index;
use precedence::Effective;
use std::sync::Arc;
use std::time::Duration;

/// All policies in force.
#[derive(Debug, Default)]
pub struct Plan {
    policies: Vec<Planned>,
    /// `None`: no cluster tells, so a policy on an HTTPRoute means the Envoy route of that name.
    routes: Option<Routes>,
    /// Of the policies that apply on every route.
    index: Index,
    needs: Vec<Need>,
    /// In which the needs are fetched.
    rounds: Vec<Round>,
    answer_headers: Vec<String>,
    body: BodyAccess,
    /// The JSON pointers of all expressions.
    pointers: Vec<String>,
    /// Those into responses, and where else policies find usage there.
    answered: Arc<Pointers>,
}

#[derive(Debug)]
struct Planned {
    name: Arc<str>,
    policy: Policy,
    /// Beside `policy.limits`.
    rates: Vec<Vec<Arc<PlannedRate>>>,
    /// Beside `policy.limits`: where bodies are read, this limit has a use for one.
    reads_body: Vec<bool>,
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
    /// The policy's.
    pub usage: UsageRules,
    /// The policy's.
    pub on_exceeded: Option<Arc<OnExceeded>>,
    /// The limit's.
    pub caps_output: bool,
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
    /// `onExceeded.body`.
    OnExceeded,
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
            Self::OnExceeded => "onExceeded",
        }
    }
}

/// Why a limit does not apply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The policy targets another route.
    OtherRoute,
    /// This policy's `defaults` or `overrides` stand in its place.
    Replaced(String),
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
    /// What could not be evaluated and has a value that is safe: limits are enforced, the estimate is held.
    pub assumed: Vec<Failure>,
    /// What the request is expected to use.
    pub estimate: Estimate,
    /// The most output, in tokens, if the request names no maximum.
    pub output_cap: Option<u64>,
}

/// Beside each of the policies that meet on a route, the names of those that take its place, if no limit of it stands there.
pub fn overridden(policies: impl IntoIterator<Item = Policy>) -> Vec<Vec<Arc<str>>> {
    let policies: Vec<Planned> = policies.into_iter().map(Planned::new).collect();
    precedence::overridden(&policies)
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
        order::sort(&mut needs);
        needs.dedup();
        let answer_headers = answer_headers(&policies);
        let (pointers, answered) = (pointers(&policies), answered(&policies));
        let policies: Vec<Planned> = policies.into_iter().map(Planned::new).collect();
        let on_every_route = |planned: &Planned| planned.policy.target.kind == TargetKind::Gateway;
        let places = match &routes {
            Some(routes) => routes.everywhere().to_vec(),
            None => {
                policies.iter().enumerate().filter(|(_, p)| on_every_route(p)).map(|(at, _)| at).collect()
            }
        };
        let index = Index::new(&policies, &places, |_| true);
        let (rounds, body) = (gate::rounds(&policies, &needs), BodyAccess::None);
        Self { policies, routes, index, needs, rounds, answer_headers, body, pointers, answered }
    }

    /// The response's headers, in lower case, that a `cost` names.
    pub fn answer_headers(&self) -> &[String] {
        &self.answer_headers
    }

    /// What is to be found in the response's body beside its usage.
    pub(crate) fn answered(&self) -> &Arc<Pointers> {
        &self.answered
    }

    /// Says whether requests' bodies are read. Without that, no expression may name a fact of theirs.
    pub fn with_body(mut self, access: BodyAccess) -> Self {
        self.body = access;
        let reads = self.policies.iter().any(|planned| planned.reads_body.contains(&true));
        if access != BodyAccess::None && reads {
            self.needs.extend(BODY_HEADERS.map(|name| Need::Header(name.to_owned())));
            order::sort(&mut self.needs);
            self.needs.dedup();
            if self.needs.contains(&Need::Headers) {
                self.needs.retain(|need| !matches!(need, Need::Header(_)));
            }
        }
        self.rounds = gate::rounds(&self.policies, &self.needs);
        self
    }

    /// How much of its body is read of a request that must wait for it: one that has a body, and that a limit with a
    /// use for it may apply to.
    pub fn body_wanted(&self, facts: &Facts) -> Option<usize> {
        let BodyAccess::Buffer(most) = self.body else { return None };
        let effective = precedence::effective(self.concerned(facts));
        effective.iter().any(|one| one.planned.wants_body(one, facts)).then_some(most)
    }

    /// What expressions ask of a body beside its facts, as JSON pointers.
    pub fn pointers(&self) -> &[String] {
        &self.pointers
    }

    /// What must be fetched before a request can be judged.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// In which order they are fetched, for as long as a limit may apply.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// Which limits apply, and what they would hold. `bodiless`: the request ends with its headers.
    pub fn judge(&self, facts: &mut Facts, bodiless: bool) -> Judgement {
        let policies = self.concerned(facts);
        Self::judged(policies, facts, bodiless, |_, _, _| {})
    }

    /// The same; `miss` hears for each limit that does not apply: policy, limit, and why.
    pub fn judge_with(
        &self,
        facts: &mut Facts,
        bodiless: bool,
        mut miss: impl FnMut(&str, &str, Miss),
    ) -> Judgement {
        let policies = self.targeted(facts, &mut miss);
        Self::judged(policies, facts, bodiless, miss)
    }

    /// Which limits of these policies apply, and what they would hold.
    fn judged(
        policies: Vec<&Planned>,
        facts: &mut Facts,
        bodiless: bool,
        mut miss: impl FnMut(&str, &str, Miss),
    ) -> Judgement {
        let preliminary = Estimate::of(facts, bodiless, None);
        facts.estimate(preliminary.input, preliminary.output);
        let mut failures = Vec::new();
        let (mut matching, mut buckets) = (Vec::new(), Buckets::default());
        for effective in precedence::effective(policies) {
            let planned = effective.planned;
            planned.matching(&effective, facts, &mut matching, &mut buckets, |limit, why| {
                if let Miss::Failed(failure) = &why
                    && !failures.contains(failure)
                {
                    failures.push(failure.clone());
                }
                miss(&planned.name, limit, why);
            });
        }
        let smallest = matching.iter().filter_map(Matching::smallest_output_limit).min();
        let estimate = Estimate::of(facts, bodiless, smallest);
        if estimate != preliminary {
            facts.estimate(estimate.input, estimate.output);
        }
        // A `cost` says what to hold, too: what the estimate would cost.
        facts.answer(Answer { usage: estimate.usage(), code: 200, finished: true, ..Answer::default() });
        let mut judgement = Judgement { estimate, failures, ..Judgement::default() };
        judgement.holds.reserve(matching.len());
        for limit in &matching {
            if let Err(failure) = limit.hold(facts, estimate, &mut judgement) {
                miss(&failure.policy, &limit.limit.name, Miss::Failed(failure.clone()));
                judgement.failures.push(failure);
            }
        }
        judgement.output_cap = cap::of(&judgement.holds, estimate);
        judgement
    }
}

impl Plan {
    /// The policies that the request may concern: those whose target it is on its way to, without those that its facts
    /// rule out.
    fn concerned(&self, facts: &Facts) -> Vec<&Planned> {
        let mut places = self.index.find(facts);
        match (&self.routes, facts.route_name()) {
            (Some(routes), _) => places.extend(routes.find_here(facts)),
            (None, Some(name)) => places.extend(self.on_route(name)),
            (None, None) => {}
        }
        order::sort(&mut places);
        places.into_iter().filter_map(|place| self.policies.get(place)).collect()
    }

    fn on_route<'p>(&'p self, name: &'p str) -> impl Iterator<Item = usize> + 'p {
        let is_for = move |(_, planned): &(usize, &Planned)| {
            let target = &planned.policy.target;
            target.kind == TargetKind::HttpRoute && target.name == name
        };
        self.policies.iter().enumerate().filter(is_for).map(|(place, _)| place)
    }

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
    /// From the body, or without it from `content-length`.
    fn of(facts: &Facts, bodiless: bool, smallest_limit: Option<u64>) -> Self {
        let floor = smallest_limit.map_or(1024, |limit| (limit / 4).clamp(1, 1024));
        if let Some(body) = facts.read_body() {
            return Self { input: body.input, output: body.output(floor) };
        }
        let input = estimate_input(facts, bodiless);
        // When the client names no maximum, as much as went in, and at least the floor.
        Self { input, output: if bodiless { 0 } else { input.max(floor) } }
    }

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

/// What is asked for to read a body, and to send another one on.
const BODY_HEADERS: [&str; 6] =
    [":method", ":path", "accept-encoding", "content-encoding", "content-length", "content-type"];

fn all_expressions(policies: &[Policy]) -> impl Iterator<Item = &Expression> {
    let of_limits = policies.iter().flat_map(|policy| &policy.limits).flat_map(Limit::expressions);
    let of_policies = policies.iter().flat_map(|policy| {
        let body = policy.on_exceeded.as_ref().and_then(|own| own.body.as_ref());
        policy.when.iter().chain(body)
    });
    of_policies.chain(of_limits)
}

/// The predicates that need the body, or those that do not.
fn by_source(when: &[Expression], of_body: bool) -> impl Iterator<Item = &Expression> {
    when.iter().filter(move |predicate| predicate.is_of_body() == of_body)
}

fn pointers(policies: &[Policy]) -> Vec<String> {
    distinct(pointers_into(facts::POINTED, policies).map(str::to_owned))
}

fn pointers_into<'p>(body: &'static str, policies: &'p [Policy]) -> impl Iterator<Item = &'p str> {
    let paths = all_expressions(policies).flat_map(Expression::references);
    paths.filter_map(move |path| facts::pointer(body, path))
}

/// What is to be found in responses.
fn answered(policies: &[Policy]) -> Arc<Pointers> {
    let of_usage = policies.iter().filter_map(|policy| policy.usage.pointers.as_deref());
    let of_usage = of_usage.flat_map(|own| own.pointers().map(String::as_str));
    Arc::new(Pointers::new(distinct(
        of_usage.chain(pointers_into(facts::ANSWERED, policies)).map(str::to_owned),
    )))
}

fn needs(policies: &[Policy]) -> Vec<Need> {
    let mut needs = Facts::needs(all_expressions(policies).flat_map(Expression::references));
    if !policies.is_empty() {
        // Whose dialect it is, and which calls use no tokens.
        needs.push(Need::Header(":path".into()));
    }
    if policies.iter().flat_map(|p| &p.limits).flat_map(|l| &l.rates).any(|r| r.unit.is_of_usage()) {
        needs.push(Need::Header("content-length".into()));
    }
    needs
}

/// In their order, each once.
fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    order::sort(&mut all);
    all.dedup();
    all
}

fn answer_headers(policies: &[Policy]) -> Vec<String> {
    let expressions = policies.iter().flat_map(|policy| &policy.limits).flat_map(Limit::expressions);
    distinct(expressions.flat_map(Expression::references).filter_map(|path| match path.as_slice() {
        [root, headers, name] if root == "response" && headers == "headers" => Some(name.clone()),
        _ => None,
    }))
}

impl Planned {
    fn new(policy: Policy) -> Self {
        let name: Arc<str> = format!("{}/{}", policy.namespace, policy.name).into();
        let rates = policy.limits.iter().map(|limit| planned_rates(&name, &policy, limit)).collect();
        let of_body = policy.when.iter().any(Expression::is_of_body);
        let reads_body = |limit: &Limit| {
            let named = limit.expressions().any(Expression::is_of_body);
            of_body || named || limit.rates.iter().any(|rate| rate.unit.is_of_usage())
        };
        let reads_body = policy.limits.iter().map(reads_body).collect();
        Self { name, policy, rates, reads_body }
    }

    /// Whether one of its limits has a use for the body, as far as the headers tell.
    fn wants_body(&self, effective: &Effective<'_>, facts: &Facts) -> bool {
        let may_hold = |when: &[Expression]| {
            let mut told = by_source(when, false);
            !told.any(|predicate| {
                matches!(predicate.predicate(facts), Ok(false) | Err(EvaluationError::Absent(_)))
            })
        };
        let when = &effective.when.policy.when;
        let of_body = when.iter().any(Expression::is_of_body);
        let stands = |limit: &Limit| effective.instead(&limit.name).is_none();
        let mut limits = self.policy.limits.iter().zip(&self.reads_body);
        may_hold(when)
            && limits
                .any(|(limit, reads_body)| (of_body || *reads_body) && stands(limit) && may_hold(&limit.when))
    }

    fn matching<'p>(
        &'p self,
        effective: &Effective<'p>,
        facts: &Facts,
        matching: &mut Vec<Matching<'p>>,
        buckets: &mut Buckets<'p>,
        mut miss: impl FnMut(&str, Miss),
    ) {
        let when = &effective.when.policy.when;
        let by_headers = self.holds_true(by_source(when, false), None, facts);
        // The body may not have been read because the headers rule out whatever has a use for it.
        let mut by_body = None;
        let mut policy_by_body =
            || by_body.get_or_insert_with(|| self.holds_true(by_source(when, true), None, facts)).clone();
        for (limit, rates) in self.policy.limits.iter().zip(&self.rates) {
            let replaced = effective.instead(&limit.name).map_or(Ok(()), Err);
            let own = |of_body| self.holds_true(by_source(&limit.when, of_body), Some(limit), facts);
            let mut predicates = || {
                let by_headers = and(by_headers.clone(), || own(false));
                and(and(by_headers, &mut policy_by_body), || own(true))
            };
            let applies = replaced
                .and_then(|()| predicates())
                .and_then(|()| Matching::of(self, limit, rates, facts, buckets));
            match applies {
                Ok(matched) => matching.push(matched),
                Err(why) => miss(&limit.name, why),
            }
        }
    }

    /// Whether all predicates hold. As in CEL's own `&&`, one that is false settles it, whatever fails beside it.
    fn holds_true<'e>(
        &self,
        when: impl Iterator<Item = &'e Expression>,
        limit: Option<&Limit>,
        facts: &Facts,
    ) -> Result<(), Miss> {
        let mut failed = None;
        for predicate in when {
            match predicate.predicate(facts) {
                Ok(true) => {}
                Ok(false) => return Err(Miss::False(predicate.source().to_owned())),
                Err(EvaluationError::Absent(what)) => {
                    return Err(Miss::Absent(predicate.source().to_owned(), what));
                }
                Err(error) => failed = failed.or_else(|| Some(self.failure(limit, Part::Predicate, &error))),
            }
        }
        failed.map_or(Ok(()), |failure| Err(Miss::Failed(failure)))
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

/// Both, as in [`Planned::holds_true`].
fn and(first: Result<(), Miss>, second: impl FnOnce() -> Result<(), Miss>) -> Result<(), Miss> {
    match first {
        Ok(()) => second(),
        Err(Miss::Failed(failure)) => match second() {
            Ok(()) | Err(Miss::Failed(_)) => Err(Miss::Failed(failure)),
            settled => settled,
        },
        settled => settled,
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
            usage: policy.usage.clone(),
            on_exceeded: policy.on_exceeded.clone(),
            caps_output: limit.caps_output,
            label,
            entries,
        })
    };
    limit.rates.iter().map(planned).collect()
}
