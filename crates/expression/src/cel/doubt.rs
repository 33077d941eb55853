//! What an expression may amount to if some of its tests fail. A client can make a test fail, for example of
//! a model in a body that is too long to be read. A predicate then counts as true. An amount or a maximum has
//! no such default, so the expression is evaluated under several assumptions about these tests.

use super::budget::EvaluationBudget;
use super::result::{LimitValue, amount, limit_value};
use super::truth::Assumption;
use super::{EvaluationError, Expression};
use crate::facts::Facts;
use cel_interpreter::common::value::Val;

/// The maximum number of tests that are assumed to differ from all others.
const MAX_SINGLE: usize = 16;

impl Expression {
    /// Returns the amount or, if tests in the expression fail, the largest that it may have. `None` if it fails
    /// for another reason.
    pub fn largest_amount(&self, facts: &Facts) -> Option<u64> {
        let own = self.amount(facts).ok();
        own.or_else(|| self.possible(facts, amount).into_iter().max())
    }

    /// Returns the maxima that the expression may have if tests in it fail. Empty if it fails for another
    /// reason.
    pub fn possible_maxima(&self, facts: &Facts) -> Vec<LimitValue> {
        self.possible(facts, limit_value)
    }

    /// Returns whether a predicate is false although nothing in it is absent or fails.
    pub fn is_surely_false(&self, facts: &Facts) -> bool {
        self.predicate(facts) == Ok(false) && self.resolve(&self.compiled.tree, facts, |_| Ok(())).is_ok()
    }

    /// Returns whether a fact of the expression is unknown, for example because the client's body cannot be read.
    pub fn is_in_doubt(&self, facts: &Facts) -> bool {
        self.compiled.variables.facts().iter().any(|lookup| lookup.failure(facts).is_some())
    }

    /// Assumes that all failing tests have the same result, and that one has another result than the rest.
    /// This covers a choice between values of one fact, and its negation.
    fn possible<T>(&self, facts: &Facts, read: fn(&dyn Val) -> Result<T, EvaluationError>) -> Vec<T> {
        let Some(truths) = &self.compiled.truths else { return Vec::new() };
        // The evaluations share the work that one of them may do.
        let budget = EvaluationBudget::new();
        let single = (0..truths.trees.len().min(MAX_SINGLE)).map(Some);
        let assumptions = std::iter::once(None)
            .chain(single)
            .flat_map(|except| [true, false].map(|holds| Assumption { holds, except }));
        assumptions
            .filter_map(|one| self.resolve_assuming(Some(one), &budget, &truths.tree, facts, read).ok())
            .collect()
    }
}
