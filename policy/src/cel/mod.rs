//! CEL, compiled once and evaluated often. The only module that names the CEL crate.
//!
//! Source → tree ([`syntax`]) → what it names, or what is wrong ([`check`], [`types`]) → a tree the crate can evaluate
//! as the policy language promises ([`rewrite`]) → a value, from facts that are looked up as they are asked for
//! ([`values`]), within a [`budget`].

mod budget;
mod check;
mod functions;
mod names;
mod pattern;
mod rewrite;
mod signatures;
mod syntax;
mod time;
mod types;
mod values;

use crate::facts::Facts;
use budget::Budget;
use cel_interpreter::common::types::{CelBool, CelString};
use cel_interpreter::common::value::{CowVal, Val};
use cel_interpreter::context::VariableResolver;
use cel_interpreter::{Context, Env, ExecutionError, IdedExpr, Value};
use functions::Number;
use pattern::Pattern;
use std::fmt;
use std::sync::Arc;
use values::{ABSENT, Attributes, Mapping};

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
#[derive(Clone)]
pub struct Expression {
    compiled: Arc<Compiled>,
}

struct Compiled {
    source: String,
    tree: IdedExpr,
    patterns: Vec<Pattern>,
    references: Vec<FactPath>,
    environment: Arc<Env>,
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// An `auth` or header value that this request does not have.
    #[error("{0} is absent")]
    Absent(String),
    /// Anything else. Names types and facts, never a value: it goes to logs.
    #[error("{0}")]
    Failed(String),
}

impl Expression {
    /// Compiles; the error says all that is wrong (syntax, an unknown root or function, a fact of another phase, a
    /// fact that is not built yet, a type that can be known to be wrong for its use).
    pub fn compile(source: &str, phase: Phase, purpose: Use) -> Result<Self, String> {
        let mut tree = syntax::parse(source)?;
        let references = check::check(&tree, phase)?;
        types::fits(&tree, purpose)?;
        let patterns = rewrite::rewrite(&mut tree)?;
        let environment = functions::environment()?;
        let source = source.to_owned();
        Ok(Self { compiled: Arc::new(Compiled { source, tree, patterns, references, environment }) })
    }

    /// As the policy has it.
    pub fn source(&self) -> &str {
        &self.compiled.source
    }

    /// The facts it may read. A macro's own variable is none.
    pub fn references(&self) -> &[FactPath] {
        &self.compiled.references
    }

    /// The value as a predicate.
    pub fn predicate(&self, facts: &Facts) -> Result<bool, EvaluationError> {
        self.evaluate(facts, |value| match value.downcast_ref::<CelBool>() {
            Some(value) => Ok(*value.inner()),
            None => Err(unsuitable(value, "a bool")),
        })
    }

    /// The value as a counter's key: a string, number or bool. Numbers that are equal give the same key.
    pub fn text(&self, facts: &Facts) -> Result<String, EvaluationError> {
        self.evaluate(facts, |value| {
            if let Some(text) = value.downcast_ref::<CelString<'_>>() {
                return Ok(text.inner().to_owned());
            }
            if let Some(value) = value.downcast_ref::<CelBool>() {
                return Ok(value.inner().to_string());
            }
            match Number::of(value) {
                Some(Number::Int(value)) => Ok(value.to_string()),
                Some(Number::Uint(value)) => Ok(value.to_string()),
                Some(Number::Double(value)) if value.is_finite() => Ok(double_text(value)),
                Some(Number::Double(_)) => {
                    Err(EvaluationError::Failed("the value is not a finite number".into()))
                }
                None => Err(unsuitable(value, "a string, number or bool")),
            }
        })
    }

    /// The value as an amount: a number, rounded up, negative as 0, saturating.
    pub fn amount(&self, facts: &Facts) -> Result<u64, EvaluationError> {
        self.evaluate(facts, |value| match Number::of(value) {
            Some(Number::Int(value)) => Ok(u64::try_from(value).unwrap_or(0)),
            Some(Number::Uint(value)) => Ok(value),
            // A cast saturates, and takes what is not a number as 0.
            Some(Number::Double(value)) => Ok(value.ceil() as u64),
            None => Err(unsuitable(value, "a number")),
        })
    }

    fn evaluate<T>(
        &self,
        facts: &Facts,
        read: impl FnOnce(&dyn Val) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let roots = Roots { facts, patterns: &self.compiled.patterns, budget: Budget::new() };
        let mut context = Context::with_env(self.compiled.environment.clone());
        context.set_variable_resolver(&roots);
        match Value::resolve_val(&self.compiled.tree, &context) {
            Ok(value) => read(value.as_ref()),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// The crate's error in our words. Its own may show values.
    fn explain(&self, error: &ExecutionError) -> EvaluationError {
        EvaluationError::Failed(match error {
            ExecutionError::NoSuchKey(key) => match key.strip_prefix(ABSENT) {
                Some(name) => return EvaluationError::Absent(self.place(name)),
                None => format!("there is no `{}`", self.place(key)),
            },
            ExecutionError::NoSuchOverload(call) => no_overload(call.function(), call.argument_types()),
            ExecutionError::UnexpectedType { got, want } => format!("{want} is needed where there is {got}"),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "division by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "the number is too large".to_owned(),
            ExecutionError::IndexOutOfBounds(_) => "the list has no such element".to_owned(),
            ExecutionError::DuplicateKey(_) => "a map has the same key twice".to_owned(),
            ExecutionError::FunctionError { function, .. } if function == budget::EXHAUSTED => {
                "the expression does too much: its lists or texts are too long".to_owned()
            }
            ExecutionError::FunctionError { function, .. } => {
                format!("`{function}` cannot use its arguments")
            }
            _ => "the expression cannot be evaluated with these values".to_owned(),
        })
    }

    /// The whole name of a fact whose last part is `name`, if the expression says it.
    fn place(&self, name: &str) -> String {
        let ending_in = |path: &FactPath| {
            let last = path.iter().rposition(|part| part.eq_ignore_ascii_case(name))?;
            path.get(..=last).map(|path| path.join("."))
        };
        self.references().iter().find_map(ending_in).unwrap_or_else(|| name.to_owned())
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source())
    }
}

/// `function` as the crate spells it: `_<_`, `@in`, `trim`.
fn no_overload(function: &str, types: &[String]) -> String {
    let types = types.iter().map(|name| name.trim_start_matches("google.protobuf.").to_lowercase());
    let types: Vec<String> = types.collect();
    match (function, types.as_slice()) {
        ("_._" | "_?._" | "_[_]" | "_[?_]", [container, key]) => {
            format!("a {container} has no parts that a {key} could name")
        }
        _ => format!("`{}` does not work on ({})", function.trim_matches(['_', '@']), types.join(", ")),
    }
}

fn unsuitable(value: &dyn Val, needed: &str) -> EvaluationError {
    EvaluationError::Failed(format!("the value is {}, and must be {needed}", value.get_type().name()))
}

/// Shortest, and alike for a whole number whether it came as an integer or not.
fn double_text(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.abs() < 1e21 { value.to_string() } else { format!("{value:e}") }
}

/// What an expression's names stand for.
struct Roots<'f> {
    facts: &'f Facts,
    patterns: &'f [Pattern],
    budget: Budget,
}

impl VariableResolver for Roots<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let attributes = |root| Some(CowVal::owned(Mapping::new(Attributes { facts: self.facts, root })));
        match name {
            "request" => attributes("request"),
            "auth" => Some(CowVal::Owned(values::auth(self.facts))),
            "source" => attributes("source"),
            "destination" => attributes("destination"),
            "connection" => attributes("connection"),
            "llm" => attributes("llm"),
            "metadata" => attributes("metadata"),
            rewrite::BUDGET => Some(CowVal::Borrowed(&self.budget)),
            _ => {
                let index: usize = name.strip_prefix(rewrite::PATTERN)?.parse().ok()?;
                self.patterns.get(index).map(|pattern| CowVal::Borrowed(pattern as &dyn Val))
            }
        }
    }
}
