//! The results of evaluations, and their errors.

use super::functions::Number;
use cel_interpreter::common::types::{CelBool, CelList, CelNull, CelString};
use cel_interpreter::common::value::Val;

/// What an expression is used for, which determines its type.
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
    /// `tokenCompute`: a number.
    Tokens,
    /// `limitFrom`: a number, or null; for money, also a decimal as text.
    Maximum,
    /// `reservation.ttl`: a duration, or a number of seconds.
    Life,
    /// `onExceeded.body`: a string.
    Text,
}

/// The result of a `limitFrom`.
#[derive(Clone, Debug, PartialEq)]
pub enum LimitValue {
    /// Null means that there is no limit.
    Nothing,
    /// A number that is not negative.
    Number(f64),
    /// A whole number.
    Whole(u64),
    /// A text.
    Text(String),
}

/// The result of a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CounterValue {
    /// A string, number or bool.
    One(String),
    /// The distinct elements of a list that is not empty; `None` for elements of other types.
    Each(Vec<Option<String>>),
}

/// The maximum number of distinct elements in a counter's list. If there are more, one additional element is
/// returned to show that.
pub const MAX_ELEMENTS: usize = 64;

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// This request does not have the value.
    #[error("{0} is absent")]
    Absent(String),
    /// Any other failure. Names types and facts but never a value, because it is logged.
    #[error("{0}")]
    Failed(String),
}

/// Formats a type error. `function` has the crate's spelling: `_<_`, `@in`, `trim`.
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

/// Returns a type's name in CEL's literals and conversions.
pub(super) fn plain_type(name: &str) -> &str {
    match name {
        "google.protobuf.Timestamp" => "timestamp",
        "google.protobuf.Duration" => "duration",
        "null_type" => "null",
        "optional_type" => "optional",
        other => other,
    }
}

/// The names that are reported as absent if a value is null, or a list has too few elements.
pub(super) const NULL_VALUE: &str = "a value (it is null)";
pub(super) const ELEMENT: &str = "an element of a list";

/// Returns the distinct elements of a counter's list.
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

/// Returns the text of a counter's value.
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

/// Returns the shortest form. A double that is a whole number gets the same text as the integer.
pub(super) fn double_text(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.abs() < 1e21 { value.to_string() } else { format!("{value:e}") }
}

/// Returns an amount: rounded up, at least 0, and saturated.
pub(super) fn amount(value: &dyn Val) -> Result<u64, EvaluationError> {
    match Number::of(value) {
        Some(Number::Int(value)) => Ok(u64::try_from(value).unwrap_or(0)),
        Some(Number::Uint(value)) => Ok(value),
        Some(Number::Double(value)) if value.is_nan() => {
            Err(EvaluationError::Failed("the value is not a number".into()))
        }
        // The cast saturates.
        Some(Number::Double(value)) => Ok(value.ceil() as u64),
        None => Err(unsuitable(value, "a number")),
    }
}

/// Returns the value of a `limitFrom`.
pub(super) fn limit_value(value: &dyn Val) -> Result<LimitValue, EvaluationError> {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        return Ok(LimitValue::Text(text.inner().to_owned()));
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(LimitValue::Nothing);
    }
    match Number::of(value) {
        Some(Number::Uint(value)) => Ok(LimitValue::Whole(value)),
        Some(Number::Int(value)) => match u64::try_from(value) {
            Ok(value) => Ok(LimitValue::Whole(value)),
            Err(_) => Err(EvaluationError::Failed("the value is negative".into())),
        },
        Some(Number::Double(value)) if value.is_finite() && value >= 0.0 => Ok(LimitValue::Number(value)),
        Some(Number::Double(_)) => {
            Err(EvaluationError::Failed("the value is not a number of 0 or more".into()))
        }
        None => Err(unsuitable(value, "a number, or null")),
    }
}
