//! What an evaluation comes to, and what is said if it comes to nothing.

use super::functions::Number;
use cel_interpreter::common::types::{CelBool, CelList, CelString};
use cel_interpreter::common::value::Val;

/// What an expression's value is for, and so of which type it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultType {
    /// `when`: a bool.
    Predicate,
    /// `counters`: a string, number or bool, or a list of them.
    Counter,
    /// `reservation.amount`: a number.
    Amount,
    /// `cost`: a number.
    Cost,
    /// `limitFrom`: a number, or null; money may be a decimal text.
    Maximum,
    /// `reservation.ttl`: a duration, or a number of seconds.
    Life,
    /// `onExceeded.body`: a string.
    Text,
}

/// What `limitFrom` comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum LimitValue {
    /// Null: there is no limit.
    Nothing,
    /// A number that is not negative.
    Number(f64),
    /// A whole number.
    Whole(u64),
    /// A text.
    Text(String),
}

/// What a counter comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CounterValue {
    /// A string, number or bool.
    One(String),
    /// The distinct elements of a list that is not empty; `None` for those that are no such value.
    Each(Vec<Option<String>>),
}

/// A counter may have this many distinct elements of a list. If there are more, it is given one more, which shows that.
pub const MAX_ELEMENTS: usize = 64;

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// A value that this request does not have.
    #[error("{0} is absent")]
    Absent(String),
    /// Anything else. Names types and facts, never a value: it goes to logs.
    #[error("{0}")]
    Failed(String),
}

/// `function` as the crate spells it: `_<_`, `@in`, `trim`.
pub(super) fn no_overload(function: &str, types: &[String]) -> String {
    let types = types.iter().map(|name| plain_type(name).to_owned());
    let types: Vec<String> = types.collect();
    match (function, types.as_slice()) {
        ("_._" | "_?._" | "_[_]" | "_[?_]", [container, key]) => {
            format!("a {container} has no parts that a {key} could name")
        }
        _ => format!("`{}` does not work on ({})", function.trim_matches(['_', '@']), types.join(", ")),
    }
}

pub(super) fn unsuitable(value: &dyn Val, needed: &str) -> EvaluationError {
    EvaluationError::Failed(format!(
        "the value is of type {}, and must be {needed}",
        plain_type(value.get_type().name())
    ))
}

/// A type as CEL's literals and conversions name it.
pub(super) fn plain_type(name: &str) -> &str {
    match name {
        "google.protobuf.Timestamp" => "timestamp",
        "google.protobuf.Duration" => "duration",
        "null_type" => "null",
        "optional_type" => "optional",
        other => other,
    }
}

/// What is said to be absent where a value is null, and where a list has too few elements.
pub(super) const NULL_VALUE: &str = "a value (it is null)";
pub(super) const ELEMENT: &str = "an element of a list";

/// The distinct elements of a counter's list.
pub(super) fn elements(list: &CelList<'_>) -> Result<CounterValue, EvaluationError> {
    let mut each: Vec<Option<String>> = Vec::new();
    for element in list.inner() {
        let element = key(element.as_ref()).ok();
        if !each.contains(&element) {
            each.push(element);
        }
        if each.len() > MAX_ELEMENTS {
            break;
        }
    }
    if each.is_empty() {
        return Err(EvaluationError::Absent(ELEMENT.to_owned()));
    }
    Ok(CounterValue::Each(each))
}

/// A counter's text.
pub(super) fn key(value: &dyn Val) -> Result<String, EvaluationError> {
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
        Some(Number::Double(_)) => Err(EvaluationError::Failed("the value is not a finite number".into())),
        None => Err(unsuitable(value, "a string, number or bool, or a list of them")),
    }
}

/// Shortest, and alike for a whole number whether it came as an integer or not.
pub(super) fn double_text(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.abs() < 1e21 { value.to_string() } else { format!("{value:e}") }
}
