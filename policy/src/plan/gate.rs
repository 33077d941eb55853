//! Whether any limit can apply to a request, told from the few headers that its predicates name. Most requests that no
//! policy is for are let go before the identity is read, or anything else that costs more.
//!
//! A predicate that is false settles its limit, whatever is to be said of the others. So the gate never lets a request
//! go to which a limit applies, and nothing else is decided here.

use super::index::Index;
use super::{Planned, precedence};
use crate::cel::{EvaluationError, Expression, FactPath};
use crate::facts::{Facts, Need};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gate {
    needs: Vec<Need>,
    /// Beside the plan's policies.
    policies: Vec<Conditions>,
    index: Index,
}

/// What must not be false.
#[derive(Debug)]
struct Conditions {
    of_policy: Vec<Expression>,
    of_limits: Vec<Vec<Expression>>,
}

impl Gate {
    /// Open for everything if some limit's predicates name other facts only.
    pub fn new(policies: &[Planned]) -> Self {
        let all: Vec<usize> = (0..policies.len()).collect();
        let index = Index::new(policies, &all, |fact| is_of_headers(std::slice::from_ref(fact)));
        let alone = precedence::stand_alone(policies);
        let policies = policies.iter().zip(alone).map(|(planned, alone)| Conditions::new(planned, alone));
        let policies: Vec<Conditions> = policies.collect();
        if policies.iter().any(Conditions::are_none) {
            return Self::default();
        }
        let all = policies.iter().flat_map(|one| one.of_policy.iter().chain(one.of_limits.iter().flatten()));
        let needs = Facts::needs(all.flat_map(Expression::references));
        Self { needs, policies, index }
    }

    /// What must be known to ask. Nothing: the gate is open.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// Whether a limit may apply.
    pub fn is_open(&self, facts: &Facts) -> bool {
        let may_hold = |conditions: &[Expression]| {
            let is_false = |condition: &Expression| {
                matches!(condition.predicate(facts), Ok(false) | Err(EvaluationError::Absent(_)))
            };
            !conditions.iter().any(is_false)
        };
        let concerns = |policy: &Conditions| {
            may_hold(&policy.of_policy) && policy.of_limits.iter().any(|limit| may_hold(limit))
        };
        let concerns = |place: usize| self.policies.get(place).is_some_and(concerns);
        self.needs.is_empty() || self.index.any(facts, concerns)
    }
}

impl Conditions {
    /// `alone`: no other policy's `when` stands in the place of its own.
    fn new(planned: &Planned, alone: bool) -> Self {
        let cheap = |when: &[Expression]| when.iter().filter(|one| alone && is_cheap(one)).cloned().collect();
        let policy = &planned.policy;
        let of_limits = policy.limits.iter().map(|limit| cheap(&limit.when)).collect();
        Self { of_policy: cheap(&policy.when), of_limits }
    }

    /// Nothing can be told of one of its limits.
    fn are_none(&self) -> bool {
        self.of_policy.is_empty() && self.of_limits.iter().any(Vec::is_empty)
    }
}

/// Whether it names single headers and what is made of them, and nothing else.
fn is_cheap(condition: &Expression) -> bool {
    !condition.is_of_body() && is_of_headers(condition.references())
}

fn is_of_headers(references: &[FactPath]) -> bool {
    let of_request = |path: &FactPath| path.first().is_some_and(|root| root == "request");
    references.iter().all(of_request)
        && Facts::needs(references).iter().all(|need| matches!(need, Need::Header(_)))
}
