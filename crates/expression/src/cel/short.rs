//! The most common expressions: a fact, or a fact compared with a literal. If the fact is a string, they are
//! evaluated without the interpreter. The interpreter handles all other cases.

use super::rewrite::Variables;
use crate::facts::Facts;
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{CallExpr, Expr, LiteralValue, operators};
use llm::words::is_same;

/// The operation on the fact.
pub(super) enum Short {
    /// `fact`.
    Fact,
    /// `fact == text`.
    Equals(String),
    /// `fact != text`.
    Differs(String),
    /// `fact.startsWith(text)`.
    Begins(String),
}

impl Short {
    /// Returns the short form of a rewritten tree, if it has one.
    pub(super) fn of(tree: &IdedExpr, variables: &Variables) -> Option<Self> {
        match &tree.expr {
            Expr::Ident(_) => is_fact(tree, variables).then_some(Self::Fact),
            Expr::Call(call) => Self::of_call(call, variables),
            _ => None,
        }
    }

    fn of_call(call: &CallExpr, variables: &Variables) -> Option<Self> {
        let (fact, other) = match (call.target.as_deref(), call.args.as_slice()) {
            (None, [fact, other]) | (Some(fact), [other]) => (fact, other),
            _ => return None,
        };
        let Expr::Literal(LiteralValue::String(text)) = &other.expr else { return None };
        let text = is_fact(fact, variables).then(|| text.inner().to_owned())?;
        match (call.func_name.as_str(), call.target.is_some()) {
            (operators::EQUALS, false) => Some(Self::Equals(text)),
            (operators::NOT_EQUALS, false) => Some(Self::Differs(text)),
            ("startsWith", true) => Some(Self::Begins(text)),
            _ => None,
        }
    }

    /// Evaluates the short form as a predicate. `None` if the interpreter has to evaluate it.
    pub(super) fn holds(&self, variables: &Variables, facts: &Facts) -> Option<bool> {
        if matches!(self, Self::Fact) {
            return None;
        }
        let fact = variables.first_fact()?;
        let Some(value) = fact.text(facts) else {
            // See [`super::truth`].
            let absent = fact.find(facts).is_none() && fact.is_absent(facts);
            return absent.then_some(matches!(self, Self::Differs(_)));
        };
        match self {
            Self::Fact => None,
            Self::Equals(text) => Some(is_same(value.as_bytes(), text.as_bytes())),
            Self::Differs(text) => Some(!is_same(value.as_bytes(), text.as_bytes())),
            Self::Begins(text) => Some(value.starts_with(text.as_str())),
        }
    }

    /// Returns the value, if it is a string.
    pub(super) fn text<'f>(&self, variables: &Variables, facts: &'f Facts) -> Option<&'f str> {
        match self {
            Self::Fact => variables.first_fact()?.text(facts),
            _ => None,
        }
    }
}

fn is_fact(expr: &IdedExpr, variables: &Variables) -> bool {
    matches!(&expr.expr, Expr::Ident(name) if variables.fact(name).is_some())
}
