//! Fields that a request's body contains twice with different values, and whether that matters. It matters if
//! an expression or price of a limit uses the field, or if a limit edits the body because of it. It is
//! unknown which value the server uses, so such a request cannot be judged.

use crate::model::{Limit, Policy, StreamUsage, Unit};
use expression::cel::{Expression, FactPath};
use expression::facts::{Facts, POINTED};
use llm::request::Conflicts;

const ALL: Conflicts = Conflicts { model: true, stream: true, max_output: true, max_output_case: true };
const OUTPUT: Conflicts = Conflicts { model: false, stream: false, max_output: true, max_output_case: true };

/// Returns the fields that the request's body contains twice with different values.
pub(super) fn of(facts: &Facts) -> Conflicts {
    facts.read_body().map(|body| body.conflicts).unwrap_or_default()
}

/// Returns whether an expression uses any of these fields.
pub(super) fn names(expression: &Expression, conflicts: Conflicts) -> bool {
    conflicts != Conflicts::default() && named(expression).and(conflicts) != Conflicts::default()
}

/// Returns the conflicts that an applicable limit depends on.
pub(super) fn matters<'e>(
    conflicts: Conflicts,
    policy: &Policy,
    when: impl IntoIterator<Item = &'e Expression>,
    limit: &'e Limit,
    facts: &Facts,
) -> Conflicts {
    let never_refuses = |when: &Expression| !names(when, conflicts) && when.is_surely_false(facts);
    if conflicts == Conflicts::default()
        || limit.boundary.is_soft()
        || limit.enforce_when.as_ref().is_some_and(never_refuses)
    {
        return Conflicts::default();
    }
    let units = || limit.rates.iter().map(|rate| rate.unit);
    let asks = policy.usage.stream_usage == StreamUsage::Request && units().any(Unit::is_of_usage);
    let own = Conflicts {
        model: limit.rates.iter().any(|rate| rate.unit == Unit::Usd && rate.cost.is_none()),
        stream: asks && facts.read_body().is_some_and(llm::request::edit::may_ask_for_usage),
        max_output: limit.caps_output || limit.amount.is_none() && units().any(Unit::counts_output),
        max_output_case: limit.caps_output,
    };
    let named = when.into_iter().chain(limit.expressions()).map(named);
    named.fold(own, Conflicts::or).and(conflicts)
}

fn named(expression: &Expression) -> Conflicts {
    expression.references().iter().map(named_by).fold(Conflicts::default(), Conflicts::or)
}

fn named_by(path: &FactPath) -> Conflicts {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["llm"] => ALL,
        ["llm", "model"] => Conflicts { model: true, ..Conflicts::default() },
        ["llm", "stream"] => Conflicts { stream: true, ..Conflicts::default() },
        ["llm", "maxOutput"] => OUTPUT,
        [root, pointer] if *root == POINTED => pointed(pointer),
        _ => Conflicts::default(),
    }
}

fn pointed(pointer: &str) -> Conflicts {
    let pointer = pointer.to_ascii_lowercase();
    match pointer.as_str() {
        "" => ALL,
        "/model" | "/modelid" => Conflicts { model: true, ..Conflicts::default() },
        "/stream" => Conflicts { stream: true, ..Conflicts::default() },
        _ if pointer.contains("max") || pointer.contains("predict") => OUTPUT,
        _ => Conflicts::default(),
    }
}
