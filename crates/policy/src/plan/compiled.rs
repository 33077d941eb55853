//! One policy of a plan, and which of its limits apply to a request.

use super::bucket::RequestBuckets;
use super::holding::Matching;
use super::precedence::Effective;
use super::{Doubt, DoubtCause, Failure, Miss, PolicyPart, conflict};
use crate::model::{
    Boundary, FailureMode, Limit, OnExceeded, Overrun, Policy, Rate, Threshold, UsageReporting, UsageRules,
};
use expression::cel::{EvaluationError, Expression};
use expression::facts::Facts;
use llm::request::Conflicts;
use protocol::call::Entries;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct CompiledPolicy {
    pub name: Arc<str>,
    pub policy: Policy,
    /// The rates of each limit, parallel to `policy.limits`.
    rates: Vec<Vec<Arc<PlannedRate>>>,
    /// Parallel to `policy.limits`: whether the limit needs the body, if bodies are read.
    pub reads_body: Vec<bool>,
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
    /// The policy's failure mode.
    pub failure_mode: FailureMode,
    /// The policy's `usage`.
    pub usage: UsageRules,
    /// What the policy reports to Envoy's access log.
    pub reporting: Option<UsageReporting>,
    /// The policy's own refusal.
    pub on_exceeded: Option<Arc<OnExceeded>>,
    /// Whether the worker may have leases of its counters.
    pub leases: bool,
    /// The limit's `overrun`.
    pub overrun: Overrun,
    /// The limit's `boundary`.
    pub boundary: Boundary,
    /// The limit's `warnAt`.
    pub warn_at: Arc<[Threshold]>,
    /// Whether the limit caps output.
    pub caps_output: bool,
    /// Whether the limit needs the body, if bodies are read.
    pub reads_body: bool,
    /// Whether a counter of the limit reads the body.
    pub counts_by_body: bool,
    /// The limit's name, with its unit and window if the limit has several rates.
    pub label: String,
    pub(super) entries: Entries,
}

impl CompiledPolicy {
    pub fn new(policy: Policy) -> Self {
        let name: Arc<str> = format!("{}/{}", policy.namespace, policy.name).into();
        let of_body = policy.when.iter().any(Expression::depends_on_body);
        let reads_body = |limit: &Limit| {
            let named = limit.expressions().any(Expression::depends_on_body);
            of_body || named || limit.rates.iter().any(|rate| rate.unit.is_of_usage())
        };
        let reads_body: Vec<bool> = policy.limits.iter().map(reads_body).collect();
        let limits = policy.limits.iter().zip(&reads_body);
        let rates = limits.map(|(limit, reads)| planned_rates(&name, &policy, limit, *reads)).collect();
        Self { name, policy, rates, reads_body }
    }

    /// Whether the policy counts tokens or money.
    pub fn counts_usage(&self) -> bool {
        self.policy.limits.iter().flat_map(|limit| &limit.rates).any(|rate| rate.unit.is_of_usage())
    }

    /// Whether one of its limits needs the body, as far as the headers show.
    pub fn wants_body(&self, effective: &Effective<'_>, facts: &Facts) -> bool {
        let may_hold = |when: &[Expression]| {
            !by_source(when, false).any(|predicate| predicate.predicate(facts) == Ok(false))
        };
        let when = &effective.when.policy.when;
        let of_body = when.iter().any(Expression::depends_on_body);
        let stands = |limit: &Limit| effective.instead(&limit.name).is_none();
        let mut limits = self.policy.limits.iter().zip(&self.reads_body);
        may_hold(when)
            && limits
                .any(|(limit, reads_body)| (of_body || *reads_body) && stands(limit) && may_hold(&limit.when))
    }

    pub fn matching<'p>(
        &'p self,
        effective: &Effective<'p>,
        facts: &Facts,
        matching: &mut Vec<Matching<'p>>,
        buckets: &mut RequestBuckets<'p>,
        conflicts: &mut Conflicts,
        mut miss: impl FnMut(&str, Miss),
    ) {
        let given = conflict::of(facts);
        let when = &effective.when.policy.when;
        let by_headers = holds_true(by_source(when, false), facts);
        // Evaluated on demand, because the body is not read if the headers rule out every limit that needs
        // it.
        let mut by_body = None;
        let mut policy_by_body =
            || by_body.get_or_insert_with(|| holds_true(by_source(when, true), facts)).clone();
        for (limit, rates) in self.policy.limits.iter().zip(&self.rates) {
            let mut predicates = || {
                effective.instead(&limit.name).map_or(Ok(()), Err)?;
                let mut failed = by_headers.clone()?;
                failed.extend(holds_true(by_source(&limit.when, false), facts)?);
                failed.extend(policy_by_body()?);
                failed.extend(holds_true(by_source(&limit.when, true), facts)?);
                Ok(failed)
            };
            let applies = predicates().and_then(|failed| {
                let all = when.iter();
                *conflicts = conflicts.or(conflict::matters(given, &self.policy, all, limit, facts));
                let mut matched = Matching::of(effective, limit, rates, facts, buckets)?;
                let doubt = |detail| self.doubt(limit, DoubtCause::Predicate, detail);
                matched.doubts.extend(failed.into_iter().map(doubt));
                Ok(matched)
            });
            match applies {
                Ok(matched) => matching.push(matched),
                Err(why) => miss(&limit.name, why),
            }
        }
    }

    pub fn failure(&self, limit: &Limit, part: PolicyPart, error: &EvaluationError) -> Failure {
        Failure {
            policy: self.name.clone(),
            limit: limit.name.clone(),
            part,
            cause: error.to_string(),
            // A soft limit never refuses.
            mode: match limit.boundary {
                Boundary::Hard => self.policy.failure_mode,
                Boundary::Soft(_) => FailureMode::Allow,
            },
        }
    }

    pub fn doubt(&self, limit: &Limit, cause: DoubtCause, detail: String) -> Doubt {
        Doubt { policy: self.name.clone(), limit: limit.name.clone(), cause, detail }
    }
}

/// Returns the first false predicate, or else the errors of those that fail, which count as true. As with
/// `&&` in CEL, one false predicate decides the result even if others fail.
fn holds_true<'e>(when: impl Iterator<Item = &'e Expression>, facts: &Facts) -> Result<Vec<String>, Miss> {
    let mut failed = Vec::new();
    let conflicts = conflict::of(facts);
    for predicate in when {
        // One of the two values may make it true. If so, the request is refused.
        if conflict::names(predicate, conflicts) {
            continue;
        }
        match predicate.predicate(facts) {
            Ok(true) => {}
            Ok(false) => return Err(Miss::False(predicate.clone())),
            Err(error) => failed.push(format!("{}: {error}", predicate.source().trim())),
        }
    }
    Ok(failed)
}

fn planned_rates(name: &Arc<str>, policy: &Policy, limit: &Limit, reads_body: bool) -> Vec<Arc<PlannedRate>> {
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
            reporting: policy.reporting,
            on_exceeded: policy.on_exceeded.clone(),
            leases: limit.leases,
            overrun: limit.overrun,
            boundary: limit.boundary.clone(),
            warn_at: Arc::clone(&limit.warn_at),
            caps_output: limit.caps_output,
            reads_body,
            counts_by_body: limit.counters.iter().any(Expression::is_of_body),
            label,
            entries,
        })
    };
    limit.rates.iter().map(planned).collect()
}

/// Returns the predicates that need the body, or those that do not.
fn by_source(when: &[Expression], of_body: bool) -> impl Iterator<Item = &Expression> {
    when.iter().filter(move |predicate| predicate.depends_on_body() == of_body)
}
