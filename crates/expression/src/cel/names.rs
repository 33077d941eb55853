//! The names of facts: which facts exist, in which phase, and which are not supported yet.

use super::{FactPath, Phase, hints};
use crate::facts::{self, ATTRIBUTES};
use crate::small_sort;
use crate::suggest::nearest;
use cel_interpreter::IdedExpr;

/// The steps after a root: names, or expressions with values that are known only at run time.
pub(super) type Steps<'e> = Vec<Result<&'e str, &'e IdedExpr>>;

/// The roots in the order of error messages.
const ROOTS: [&str; 9] =
    ["auth", "connection", "destination", "filter_state", "llm", "metadata", "request", "source", "upstream"];

/// The roots that are known after the response. Only `cost` may use them.
const AFTER: [&str; 2] = ["response", "usage"];

/// Returns whether this names a fact in any phase.
pub(super) fn is_root(name: &str) -> bool {
    ROOTS.contains(&name) || AFTER.contains(&name) || name == facts::TOKENS || name == "optional"
}

/// Returns the fact that `root` and the steps after it name.
pub(super) fn reference(root: &str, steps: &Steps<'_>, phase: Phase) -> Result<FactPath, String> {
    let names: Vec<&str> = steps.iter().map_while(|step| step.ok()).collect();
    match root {
        facts::TOKENS if phase != Phase::Counts => Err("`tokens` is known only in `tokenCompute`".to_owned()),
        facts::TOKENS => match names.as_slice() {
            [name] if steps.len() == 1 => Ok(path(&[root], &[name])),
            _ => Err("name one count: `tokens.NAME`".to_owned()),
        },
        _ if phase == Phase::Counts => {
            Err(format!("unknown fact `{root}`; `tokenCompute` has only `tokens.NAME`"))
        }
        "auth" => Ok(path(&["auth"], &names)),
        "metadata" => match names.as_slice() {
            ["filter_metadata", ..] => Ok(path(&["metadata"], &names)),
            _ => {
                Err("`metadata` has `filter_metadata` alone: `metadata.filter_metadata[\"NAMESPACE\"].NAME`"
                    .into())
            }
        },
        "request" => match names.as_slice() {
            ["auth", rest @ ..] => Ok(path(&["request", "auth"], rest)),
            ["headers", name, rest @ ..] => {
                plain("request.headers", name, rest.len() + steps.len() - names.len())?;
                Ok(path(&["request", "headers"], &[facts::lower_case(name).as_ref()]))
            }
            ["headers"] => Ok(path(&["request", "headers"], &[])),
            _ => attribute("request", &names, steps.len()),
        },
        "connection" | "destination" | "source" | "upstream" => attribute(root, &names, steps.len()),
        "llm" => llm(&names, steps.len(), phase),
        "filter_state" => match names.as_slice() {
            [name] if steps.len() == 1 => Ok(path(&["filter_state"], &[name])),
            _ => Err("`filter_state` holds texts: name one, `filter_state[\"NAME\"]`".into()),
        },
        _ if AFTER.contains(&root) && phase == Phase::Request => Err(after(root)),
        "usage" => attribute("usage", &names, steps.len()),
        "response" => match names.as_slice() {
            ["headers", name, rest @ ..] => {
                plain("response.headers", name, rest.len() + steps.len() - names.len())?;
                Ok(path(&["response", "headers"], &[facts::lower_case(name).as_ref()]))
            }
            ["headers"] => Err("name one header: `response.headers[\"x-cost\"]`".into()),
            _ => attribute("response", &names, steps.len()),
        },
        _ => Err(match nearest(root, ROOTS) {
            Some(candidate) => format!("unknown fact `{root}`; did you mean `{candidate}`?"),
            None => match hints::of_word(root).filter(|_| steps.is_empty()) {
                Some(hint) => format!("unknown fact `{root}`; {hint}"),
                None if steps.is_empty() => {
                    format!(
                        "unknown fact `{root}`; known: {}; write a string in quotes: `\"{root}\"`",
                        ROOTS.join(", ")
                    )
                }
                None => format!("unknown fact `{root}`; known: {}", ROOTS.join(", ")),
            },
        }),
    }
}

fn llm(names: &[&str], steps: usize, phase: Phase) -> Result<FactPath, String> {
    match names {
        ["estimate", rest @ ..] => attribute("llm.estimate", rest, steps.saturating_sub(1)),
        ["finished", ..] if phase == Phase::Request => Err(after("llm.finished")),
        ["metadata", rest @ ..] => Ok(path(&["llm", "metadata"], rest)),
        _ => attribute("llm", names, steps),
    }
}

pub(super) fn after(name: &str) -> String {
    format!("`{name}` is known only after the response, but this is evaluated before it")
}

/// Returns `root.name`, for a root that has only attributes.
fn attribute(root: &str, names: &[&str], steps: usize) -> Result<FactPath, String> {
    let Some(name) = names.first() else { return Err(alone(root)) };
    if (root, *name) == ("request", "body") {
        return Err(
            "`request.body` is not a fact; use `llm.model` and the like, or `requestBodyJSON(\"/pointer\")`"
                .into(),
        );
    }
    if facts::find(root, name).is_none() {
        return Err(match nearest(name, all(root)) {
            Some(candidate) => format!("unknown fact `{root}.{name}`; did you mean `{root}.{candidate}`?"),
            None => format!("unknown fact `{root}.{name}`; `{root}` has: {}", all(root).join(", ")),
        });
    }
    plain(root, name, steps.saturating_sub(1))?;
    let roots: Vec<&str> = root.split('.').collect();
    Ok(path(&roots, &[name]))
}

/// Rejects steps into a plain value.
fn plain(root: &str, name: &str, further: usize) -> Result<(), String> {
    if further == 0 { Ok(()) } else { Err(format!("`{root}.{name}` is a plain value and has no parts")) }
}

fn alone(root: &str) -> String {
    format!("`{root}` is not a value by itself; it has: {}", all(root).join(", "))
}

fn all(root: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = ATTRIBUTES.iter().filter(|a| a.root == root).map(|a| a.name).collect();
    match root {
        "request" => names.extend(["auth", "headers"]),
        "llm" => names.extend(["estimate", "metadata"]),
        "response" => names.push("headers"),
        _ => {}
    }
    small_sort::sort(&mut names);
    names
}

fn path(roots: &[&str], names: &[&str]) -> FactPath {
    roots.iter().chain(names).map(|name| (*name).to_owned()).collect()
}
