//! CEL, compiled once and evaluated often. No other module uses the CEL crate.
//!
//! The source becomes a tree ([`syntax`]). The tree is checked ([`check`], [`types`]), which finds its errors
//! and the facts that it uses. It is then rewritten ([`rewrite`]), so that the crate evaluates it with Weir's
//! semantics. An evaluation looks up facts on demand ([`values`]), within a [`budget`]. If an expression is
//! [`short`], it needs no interpreter. [`truth`] defines tests of absent values.

mod budget;
mod check;
mod constant;
mod doubt;
mod exact;
mod functions;
mod guard;
mod hints;
mod lookup;
mod names;
mod pattern;
mod result;
mod rewrite;
mod short;
mod signatures;
mod syntax;
mod time;
mod truth;
mod types;
mod values;

pub use exact::ExactComparison;
pub use guard::{Guard, GuardReading, Probe, Test};
pub use pattern::Pattern;
pub use result::{CounterValue, EvaluationError, LimitValue, MAX_ELEMENTS, ResultType};
pub use signatures::{FunctionUsage, functions};

use crate::facts::{self, Facts};
use budget::EvaluationBudget;
use cel_interpreter::common::types::{CelBool, CelList, CelNull, CelString};
use cel_interpreter::common::value::{CowVal, Val};
use cel_interpreter::context::VariableResolver;
use cel_interpreter::{Context, Env, ExecutionError, IdedExpr, Value};
use functions::Number;
use result::{ELEMENT, NULL_VALUE, amount, elements, key, limit_value, no_overload, plain_type, unsuitable};
use rewrite::Variables;
use short::Short;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use truth::{Assumption, Truths};

/// When an expression is evaluated, which determines the facts that it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The facts before the request is forwarded.
    Request,
    /// The facts after the response has ended.
    Response,
    /// Only `tokens.NAME`, the named counts of a response.
    Counts,
}

/// A fact that an expression names literally: `["auth", "identity", "userid"]`, `["request", "headers",
/// "x-tenant"]`.
pub type FactPath = Vec<String>;

/// One compiled expression.
#[derive(Clone)]
pub struct Expression {
    compiled: Arc<Compiled>,
}

struct Compiled {
    source: String,
    tree: IdedExpr,
    /// The tests of values that may be absent.
    truths: Option<Truths>,
    variables: Variables,
    /// The short form, if it has one.
    short: Option<Short>,
    references: Vec<FactPath>,
    exact: Vec<ExactComparison>,
    of_body: bool,
    depends_on_body: bool,
    environment: Arc<Env>,
}

impl Expression {
    /// Compiles an expression. The error lists all errors: syntax, unknown roots or functions, facts of
    /// another phase, facts that are not supported yet, and types that can never fit.
    pub fn compile(source: &str, phase: Phase, purpose: ResultType) -> Result<Self, String> {
        let mut tree = syntax::parse(source)?;
        let references = check::check(&tree, phase)?;
        let mistakes = types::mistakes(&tree);
        if !mistakes.is_empty() {
            return Err(mistakes.join("; "));
        }
        types::fits(&tree, purpose)?;
        let mut exact = exact::comparisons(&tree);
        // The other names are variables of macros.
        exact.retain(|exact| references.contains(&exact.fact));
        let variables = rewrite::rewrite(&mut tree)?;
        let short = Short::of(&tree, &variables);
        let truths = Truths::of(&tree, purpose == ResultType::Predicate)?;
        let environment = functions::environment()?;
        let source = source.to_owned();
        let of_body = references.iter().any(facts::is_of_body);
        let depends_on_body = references.iter().any(facts::depends_on_body);
        let compiled = Compiled {
            source,
            tree,
            truths,
            variables,
            short,
            references,
            exact,
            of_body,
            depends_on_body,
            environment,
        };
        let compiled = Self { compiled: Arc::new(compiled) };
        compiled.constants()?;
        Ok(compiled)
    }

    /// Evaluates the constant parts, so that their failures are found when the policy is loaded.
    fn constants(&self) -> Result<(), String> {
        for constant in constant::parts(&self.compiled.tree) {
            self.resolve(constant, &Facts::default(), |_| Ok(()))
                .map_err(|error| format!("a constant part of it has no value: {error}"))?;
        }
        Ok(())
    }

    /// The source in the policy.
    pub fn source(&self) -> &str {
        &self.compiled.source
    }

    /// The facts that the expression may read, without the variables of macros.
    pub fn references(&self) -> &[FactPath] {
        &self.compiled.references
    }

    /// The named counts that the expression uses: `inputTokens` for `tokens.inputTokens`.
    pub fn counts(&self) -> impl Iterator<Item = &str> {
        self.references().iter().filter_map(|path| match path.as_slice() {
            [root, name] if root == facts::TOKENS => Some(name.as_str()),
            _ => None,
        })
    }

    /// The facts that the expression compares exactly. A client may evade such a comparison with another
    /// spelling.
    pub fn exact_comparisons(&self) -> &[ExactComparison] {
        &self.compiled.exact
    }

    /// Whether the expression uses a fact that only the request's body provides.
    pub fn is_of_body(&self) -> bool {
        self.compiled.of_body
    }

    /// Whether the expression has another value before the request's body was read.
    pub fn depends_on_body(&self) -> bool {
        self.compiled.depends_on_body
    }

    /// Whether the expression uses only facts that the request's body provides.
    pub fn is_of_body_alone(&self) -> bool {
        self.is_of_body() && self.references().iter().all(facts::is_of_body)
    }

    /// The first fact of the request's body in the expression, as its author wrote it.
    pub fn fact_of_body(&self) -> Option<String> {
        self.references().iter().find(|path| facts::is_of_body(path)).map(facts::written)
    }

    /// Evaluates a predicate. Every test of an absent value has a truth value, so the result is never
    /// `Absent`.
    pub fn predicate(&self, facts: &Facts) -> Result<bool, EvaluationError> {
        let Compiled { short, variables, .. } = &*self.compiled;
        if let Some(holds) = short.as_ref().and_then(|short| short.holds(variables, facts)) {
            return Ok(holds);
        }
        self.evaluate(facts, |value| match value.downcast_ref::<CelBool>() {
            Some(value) => Ok(*value.inner()),
            None => Err(unsuitable(value, "a bool")),
        })
    }

    /// Returns the absent fact, if it is the reason why the expression has no value, or why a predicate has
    /// its value.
    pub fn absent(&self, facts: &Facts) -> Option<String> {
        match self.resolve(&self.compiled.tree, facts, |_| Ok(())) {
            Err(EvaluationError::Absent(what)) => Some(what),
            _ => None,
        }
    }

    /// Evaluates a counter. Equal numbers have the same text. Null and an empty list are absent.
    pub fn counter(&self, facts: &Facts) -> Result<CounterValue, EvaluationError> {
        let Compiled { short, variables, .. } = &*self.compiled;
        if let Some(text) = short.as_ref().and_then(|short| short.text(variables, facts)) {
            return Ok(CounterValue::One(text.to_owned()));
        }
        self.evaluate(facts, |value| {
            if value.downcast_ref::<CelNull>().is_some() {
                return Err(EvaluationError::Absent(NULL_VALUE.to_owned()));
            }
            match value.downcast_ref::<CelList<'_>>() {
                Some(list) => elements(list),
                None => key(value).map(CounterValue::One),
            }
        })
    }

    /// Evaluates an amount. The result is rounded up, at least 0, and saturates.
    pub fn amount(&self, facts: &Facts) -> Result<u64, EvaluationError> {
        self.evaluate(facts, amount)
    }

    /// Evaluates a maximum.
    pub fn maximum(&self, facts: &Facts) -> Result<LimitValue, EvaluationError> {
        self.evaluate(facts, limit_value)
    }

    /// Evaluates a length of time: a duration, or a number of seconds.
    pub fn life(&self, facts: &Facts) -> Result<Duration, EvaluationError> {
        self.evaluate(facts, |value| {
            if let Some(duration) = value.downcast_ref::<time::Duration>() {
                return Ok(duration.length());
            }
            let seconds = match Number::of(value) {
                Some(Number::Int(value)) => {
                    return Ok(Duration::from_secs(u64::try_from(value).unwrap_or(0)));
                }
                Some(Number::Uint(value)) => return Ok(Duration::from_secs(value)),
                Some(Number::Double(value)) => value,
                None => return Err(unsuitable(value, "a duration, or a number of seconds")),
            };
            let wrong = |_| EvaluationError::Failed("the value is not a valid length of time".into());
            Duration::try_from_secs_f64(seconds).map_err(wrong)
        })
    }

    /// Evaluates a string.
    pub fn words(&self, facts: &Facts) -> Result<String, EvaluationError> {
        self.evaluate(facts, |value| match value.downcast_ref::<CelString<'_>>() {
            Some(text) => Ok(text.inner().to_owned()),
            None => Err(unsuitable(value, "a string")),
        })
    }

    /// Evaluates the tree. If that fails, the tree in which tests of absent values have a result is evaluated
    /// (see [`truth`]).
    fn evaluate<T>(
        &self,
        facts: &Facts,
        read: impl Fn(&dyn Val) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let value = self.resolve(&self.compiled.tree, facts, &read);
        let (Err(first), Some(truths)) = (&value, &self.compiled.truths) else { return value };
        match (self.resolve(&truths.tree, facts, read), first) {
            // If neither failure is an absent value, the first error is returned, because it quotes the
            // original expression.
            (Err(EvaluationError::Failed(_)), EvaluationError::Failed(_)) => value,
            (value, _) => value,
        }
    }

    fn resolve<T>(
        &self,
        tree: &IdedExpr,
        facts: &Facts,
        read: impl Fn(&dyn Val) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        self.resolve_assuming(None, &EvaluationBudget::new(), tree, facts, read)
    }

    /// Evaluates a tree. If there is an assumption, it decides the tests that fail.
    fn resolve_assuming<T>(
        &self,
        assumption: Option<Assumption>,
        budget: &EvaluationBudget,
        tree: &IdedExpr,
        facts: &Facts,
        read: impl Fn(&dyn Val) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let Compiled { variables, truths, environment, .. } = &*self.compiled;
        let names = EvaluationNames { facts, variables, truths: truths.as_ref(), budget, assumption };
        let mut context = Context::with_env(environment.clone());
        context.set_variable_resolver(&names);
        // Only the tree with the tests of absent values uses these functions.
        if !std::ptr::eq(tree, &self.compiled.tree) {
            truth::declare(&mut context).map_err(|error| self.explain(&error, facts))?;
        }
        match Value::resolve_val(tree, &context) {
            Ok(value) => read(value.as_ref()),
            Err(error) => Err(self.explain(&error, facts)),
        }
    }

    /// Converts the crate's error, which may contain values, to one that does not.
    fn explain(&self, error: &ExecutionError, facts: &Facts) -> EvaluationError {
        if let ExecutionError::UndeclaredReference(name) = error
            && let Some(fact) = self.compiled.variables.fact(name)
        {
            return fact.missing(facts);
        }
        if truth::is_absence(error, |_| false) {
            return EvaluationError::Absent(match error {
                ExecutionError::NoSuchKey(key) => self.place(key),
                ExecutionError::IndexOutOfBounds(_) => ELEMENT.to_owned(),
                ExecutionError::FunctionError { .. } => "the value of an optional".to_owned(),
                _ => NULL_VALUE.to_owned(),
            });
        }
        EvaluationError::Failed(match error {
            ExecutionError::UndeclaredReference(name) => format!("there is no `{name}`"),
            ExecutionError::NoSuchOverload(call) => no_overload(call.function(), call.argument_types()),
            ExecutionError::UnexpectedType { got, want } => {
                format!("a value of type {} is needed, not {}", plain_type(want), plain_type(got))
            }
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "division by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "the number is too large".to_owned(),
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

    /// Returns the full name of a fact that ends in `name`, if the expression contains one.
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

/// The values of the names in a rewritten tree, for one evaluation.
struct EvaluationNames<'f> {
    facts: &'f Facts,
    variables: &'f Variables,
    truths: Option<&'f Truths>,
    budget: &'f EvaluationBudget,
    assumption: Option<Assumption>,
}

impl VariableResolver for EvaluationNames<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(fact) = self.variables.fact(name) {
            return fact.find(self.facts);
        }
        if name == rewrite::BUDGET {
            return Some(CowVal::Borrowed(self.budget));
        }
        if let Some(pattern) = self.variables.pattern(name) {
            return Some(CowVal::Borrowed(pattern));
        }
        if let Some(fact) = name.strip_prefix(truth::ABSENCE) {
            let absent = self.variables.fact(fact)?.is_absent(self.facts);
            return absent.then(|| CowVal::owned(CelBool::from(true)));
        }
        if let Some(test) = name.strip_prefix(truth::ASSUMPTION) {
            let holds = self.assumption?.of(test.parse().ok()?);
            return Some(CowVal::owned(CelBool::from(holds)));
        }
        let index: usize = name.strip_prefix(truth::TREE)?.parse().ok()?;
        self.truths?.trees.get(index).map(|tree| CowVal::Borrowed(tree as &dyn Val))
    }
}
