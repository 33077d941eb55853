//! The order in which a request's facts are fetched, and whether any limit can still apply. Most requests
//! without a policy pass before the identity, or any other expensive fact, is read.
//!
//! One false predicate rules its limit out, regardless of the others. So if a limit applies to a request, no
//! gate lets the request pass. Gates decide nothing else.

use super::index::PolicyIndex;
use super::{CompiledPolicy, precedence};
use expression::cel::{Expression, FactPath};
use expression::facts::{Facts, Need};

/// Facts that are fetched together, and the gate that is evaluated afterwards.
#[derive(Debug)]
pub struct FactRound {
    needs: Vec<Need>,
    /// `None` if no gate follows.
    gate: Option<RoundGate>,
}

impl FactRound {
    /// Returns the facts to fetch in addition to those of the earlier rounds.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// Returns whether a limit may still apply. If not, the remaining rounds are skipped.
    pub fn is_open(&self, facts: &Facts) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.is_open(facts) || gate.shows_result(facts))
    }
}

/// Divides the needs into rounds. Fetching all headers at once is cheaper than fetching some of them twice.
pub(super) fn rounds(policies: &[CompiledPolicy], needs: &[Need]) -> Vec<FactRound> {
    let asked: &[fn(&FactPath) -> bool] =
        if needs.contains(&Need::Headers) { &[] } else { &[is_of_header, is_of_headers_or_identity] };
    let mut rounds: Vec<FactRound> = Vec::new();
    for usable in asked {
        let Some(gate) = RoundGate::new(policies, *usable) else { continue };
        let needs = others(&gate.needs(), &rounds);
        if rounds.is_empty() || !needs.is_empty() {
            rounds.push(FactRound { needs, gate: Some(gate) });
        }
    }
    let needs = others(needs, &rounds);
    rounds.push(FactRound { needs, gate: None });
    rounds
}

/// Returns the needs that are in none of the rounds.
fn others(needs: &[Need], rounds: &[FactRound]) -> Vec<Need> {
    needs.iter().filter(|need| !rounds.iter().any(|round| round.needs.contains(need))).cloned().collect()
}

/// Decides after a round whether a limit may apply.
#[derive(Debug)]
struct RoundGate {
    /// Parallel to the plan's policies.
    policies: Vec<Conditions>,
    index: PolicyIndex,
    /// Whether tokens or money are counted. If so, reads of stored results are relevant, regardless of the
    /// reader: their usage may have to be charged to the creator.
    counts_usage: bool,
}

/// Predicates that must not be false.
#[derive(Debug)]
struct Conditions {
    of_policy: Vec<Expression>,
    of_limits: Vec<Vec<Expression>>,
}

impl RoundGate {
    /// Creates a gate from the predicates that use only `usable` facts. `None` if the gate would always be
    /// open.
    fn new(policies: &[CompiledPolicy], usable: fn(&FactPath) -> bool) -> Option<Self> {
        let all: Vec<usize> = (0..policies.len()).collect();
        let index = PolicyIndex::new(policies, &all, usable);
        let alone = precedence::stand_alone(policies);
        let conditions = |(planned, alone)| Conditions::new(planned, alone, usable);
        let counts_usage = policies.iter().any(CompiledPolicy::counts_usage);
        let policies: Vec<Conditions> = policies.iter().zip(alone).map(conditions).collect();
        (!policies.iter().any(Conditions::are_none)).then_some(Self { policies, index, counts_usage })
    }

    /// Returns the facts that it needs.
    fn needs(&self) -> Vec<Need> {
        let all =
            self.policies.iter().flat_map(|one| one.of_policy.iter().chain(one.of_limits.iter().flatten()));
        let mut needs = Facts::needs(all.flat_map(Expression::references));
        if self.counts_usage {
            let of_results = [":path", ":method"].map(|name| Need::Header(name.to_owned()));
            needs.extend(of_results.into_iter().filter(|need| !needs.contains(need)).collect::<Vec<_>>());
        }
        needs
    }

    /// Returns whether a stored result is read.
    fn shows_result(&self, facts: &Facts) -> bool {
        self.counts_usage && facts.stored_result(facts.is_get()).is_some()
    }

    /// Returns whether a limit may apply.
    fn is_open(&self, facts: &Facts) -> bool {
        let may_hold = |conditions: &[Expression]| {
            !conditions.iter().any(|condition| condition.predicate(facts) == Ok(false))
        };
        let concerns = |policy: &Conditions| {
            may_hold(&policy.of_policy) && policy.of_limits.iter().any(|limit| may_hold(limit))
        };
        self.index.any(facts, |place| self.policies.get(place).is_some_and(concerns))
    }
}

impl Conditions {
    /// `alone` is true if no other policy's `when` replaces its own.
    fn new(planned: &CompiledPolicy, alone: bool, usable: fn(&FactPath) -> bool) -> Self {
        let is_told = |one: &&Expression| alone && !one.is_of_body() && one.references().iter().all(usable);
        let told = |when: &[Expression]| when.iter().filter(is_told).cloned().collect();
        let policy = &planned.policy;
        let of_limits = policy.limits.iter().map(|limit| told(&limit.when)).collect();
        Self { of_policy: told(&policy.when), of_limits }
    }

    /// Returns whether the conditions can never rule out one of the policy's limits.
    fn are_none(&self) -> bool {
        self.of_policy.is_empty() && self.of_limits.iter().any(Vec::is_empty)
    }
}

/// Returns whether a fact is a single header, or derived from one. Without the header, `request.size` depends on
/// the body.
fn is_of_header(path: &FactPath) -> bool {
    let is_size = path.get(1).is_some_and(|name| name == "size");
    path.first().is_some_and(|root| root == "request")
        && !is_size
        && asks(path, |need| matches!(need, Need::Header(_)))
}

fn is_of_headers_or_identity(path: &FactPath) -> bool {
    is_of_header(path) || asks(path, |need| *need == Need::Identity)
}

fn asks(path: &FactPath, is: fn(&Need) -> bool) -> bool {
    let needs = Facts::needs([path]);
    !needs.is_empty() && needs.iter().all(is)
}
