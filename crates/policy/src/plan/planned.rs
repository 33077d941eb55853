//! One policy of a plan: which of its limits apply to a request.

use super::holding::{Buckets, Matching};
use super::precedence::Effective;
use super::{Failure, Miss, Part, conflict};
use crate::model::{FailureMode, Limit, OnExceeded, Policy, Rate, UsageRules};
use expression::cel::{EvaluationError, Expression};
use expression::facts::Facts;
use llm::request::Conflicts;
use protocol::call::Entries;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Planned {
    pub name: Arc<str>,
    pub policy: Policy,
    /// Beside `policy.limits`.
    rates: Vec<Vec<Arc<PlannedRate>>>,
    /// Beside `policy.limits`: where bodies are read, this limit has a use for one.
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
    /// The policy's.
    pub failure_mode: FailureMode,
    /// The policy's.
    pub usage: UsageRules,
    /// The policy's.
    pub on_exceeded: Option<Arc<OnExceeded>>,
    /// The limit's.
    pub caps_output: bool,
    /// Where bodies are read, the limit has a use for one.
    pub reads_body: bool,
    /// The limit's name, or with its unit and window if the limit has several rates.
    pub label: String,
    pub(super) entries: Entries,
}

impl Planned {
    pub fn new(policy: Policy) -> Self {
        let name: Arc<str> = format!("{}/{}", policy.namespace, policy.name).into();
        let of_body = policy.when.iter().any(Expression::is_of_body);
        let reads_body = |limit: &Limit| {
            let named = limit.expressions().any(Expression::is_of_body);
            of_body || named || limit.rates.iter().any(|rate| rate.unit.is_of_usage())
        };
        let reads_body: Vec<bool> = policy.limits.iter().map(reads_body).collect();
        let limits = policy.limits.iter().zip(&reads_body);
        let rates = limits.map(|(limit, reads)| planned_rates(&name, &policy, limit, *reads)).collect();
        Self { name, policy, rates, reads_body }
    }

    /// Whether one of its limits has a use for the body, as far as the headers tell.
    pub fn wants_body(&self, effective: &Effective<'_>, facts: &Facts) -> bool {
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

    pub fn matching<'p>(
        &'p self,
        effective: &Effective<'p>,
        facts: &Facts,
        matching: &mut Vec<Matching<'p>>,
        buckets: &mut Buckets<'p>,
        conflicts: &mut Conflicts,
        mut miss: impl FnMut(&str, Miss),
    ) {
        let given = conflict::of(facts);
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
                .inspect(|()| {
                    let when = when.iter();
                    *conflicts = conflicts.or(conflict::matters(given, &self.policy, when, limit, facts));
                })
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
        let conflicts = conflict::of(facts);
        for predicate in when {
            // Given twice, one of its values may make it true: then the request is refused.
            if conflict::names(predicate, conflicts) {
                continue;
            }
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

    pub fn failure(&self, limit: Option<&Limit>, part: Part, error: &EvaluationError) -> Failure {
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
            on_exceeded: policy.on_exceeded.clone(),
            caps_output: limit.caps_output,
            reads_body,
            label,
            entries,
        })
    };
    limit.rates.iter().map(planned).collect()
}

/// The predicates that need the body, or those that do not.
fn by_source(when: &[Expression], of_body: bool) -> impl Iterator<Item = &Expression> {
    when.iter().filter(move |predicate| predicate.is_of_body() == of_body)
}
