//! How the tokens of a response are counted: at a policy's own pointers, and by its `tokenCompute`.

use super::precedence::Effective;
use crate::model::Unit;
use crate::model::extraction::{DataExtraction, is_built_in};
use expression::cel::{EvaluationError, Expression};
use expression::facts::Facts;
use llm::response::{Found, Usage, UsagePointers};
use std::sync::Arc;

/// The rules of one policy and one request.
#[derive(Clone, Debug, Default)]
pub struct TokenRules {
    /// Where responses in a custom format report their usage.
    pub pointers: Option<Arc<UsagePointers>>,
    /// Computes the tokens that are charged.
    pub compute: Option<TokenCompute>,
}

/// A `tokenCompute` with the counts that it may use.
#[derive(Clone, Debug)]
pub struct TokenCompute {
    expression: Arc<Expression>,
    extraction: Option<Arc<DataExtraction>>,
}

impl TokenRules {
    pub(super) fn of(effective: &Effective<'_>) -> Self {
        let extraction = effective.extraction.policy.extraction.as_ref();
        let total = extraction.and_then(|extraction| extraction.total());
        let compute = effective.compute.policy.token_compute.as_ref();
        Self {
            pointers: effective.planned.policy.usage.pointers.as_ref().or(total).map(Arc::clone),
            compute: compute.map(|expression| TokenCompute {
                expression: Arc::clone(expression),
                extraction: extraction.map(Arc::clone),
            }),
        }
    }

    /// Returns the rules for a rate in this unit. A rate with a `cost` does not use the computed tokens.
    pub(super) fn for_rate(&self, unit: Unit, has_cost: bool) -> Self {
        Self { pointers: self.pointers.clone(), compute: self.compute_for(unit, has_cost).cloned() }
    }

    pub(super) fn compute_for(&self, unit: Unit, has_cost: bool) -> Option<&TokenCompute> {
        self.compute.as_ref().filter(|_| unit == Unit::Tokens && !has_cost)
    }
}

impl TokenCompute {
    /// The expression in the policy.
    pub fn source(&self) -> &str {
        self.expression.source()
    }

    /// Computes the charged tokens of a response. `found` contains the values at the policies' pointers, and
    /// `usage` is the reported or estimated usage. `is_cut` is true if the response ended early.
    pub fn amount(&self, found: &Found, usage: &Usage, is_cut: bool) -> Result<u64, EvaluationError> {
        let count = |name: &str| {
            let named = self.extraction.as_ref().and_then(|extraction| extraction.count(name));
            let value = match named {
                Some(count) => count.value(found, usage, is_cut),
                None => is_built_in(name).then_some(usage.total as f64),
            };
            value.map(|value| (name.to_owned(), value))
        };
        self.expression.amount(&Facts::of_counts(self.expression.counts().filter_map(count)))
    }
}
