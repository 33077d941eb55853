//! Warns about predicates that a client can evade, because they compare the path or the host exactly.

use crate::validation_error::ValidationError;
use expression::cel::{ExactComparison, Expression};

/// Returns the warnings for a list of predicates.
pub(super) fn all(path: &str, predicates: &[Expression]) -> Vec<ValidationError> {
    let numbered = predicates.iter().enumerate();
    numbered.filter_map(|(index, predicate)| one(format!("{path}[{index}].predicate"), predicate)).collect()
}

/// Returns the warning for a predicate, if there is one.
pub(super) fn one(path: String, predicate: &Expression) -> Option<ValidationError> {
    let mut messages: Vec<&str> = Vec::new();
    for message in predicate.exact_comparisons().iter().filter_map(message) {
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    (!messages.is_empty()).then(|| ValidationError { path, message: messages.join("; ") })
}

fn message(exact: &ExactComparison) -> Option<&'static str> {
    let names: Vec<&str> = exact.fact.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["request", "path"]
            if exact.texts.is_empty() || exact.texts.iter().any(|text| text.contains('?')) =>
        {
            Some(
                "`request.path` includes the query, so a client evades this comparison with another query; use \
                 `request.url_path` with `startsWith` or `matches`",
            )
        }
        ["request", "path"] => Some(
            "compares `request.path` exactly, so a client evades this where the upstream accepts other paths, such as \
             capital letters or a suffix; prefer `request.url_path` with `startsWith` or `matches`, after \
             `lowerAscii()` if case does not matter",
        ),
        ["request", "url_path"] => Some(
            "compares `request.url_path` exactly, so a client evades this where the upstream accepts other paths, such \
             as capital letters or a suffix; prefer `startsWith` or `matches`, after `lowerAscii()` if case does not \
             matter",
        ),
        ["request", "host"] => Some(
            "compares `request.host` exactly, and the client chooses it, so where the listener accepts any host this is \
             evaded; give the listener a hostname and name it in `targetRef.sectionName`, or prefer `endsWith` or \
             `matches`",
        ),
        _ => None,
    }
}
