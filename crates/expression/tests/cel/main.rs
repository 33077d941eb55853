//! The results of expressions, their errors, and robustness against any source and any facts.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

mod amounts;
mod doubt;
mod mistakes;
mod properties;
mod short;
mod spelling;
mod truth;
mod values;

use expression::cel::{CounterValue, Expression, Phase, ResultType};
use expression::facts::Facts;
use serde_json::json;

/// The facts of a request with an identity, as a gateway would see it.
pub fn facts() -> Facts {
    let mut facts = Facts::default();
    for (name, value) in [
        (":method", "POST"),
        (":path", "/v1/chat/completions?a=b&c=d?"),
        (":authority", "llm.example.com"),
        (":scheme", "https"),
        ("content-length", "400"),
        ("user-agent", "openai/1.0"),
        ("x-request-id", "0af7"),
        ("x-tenant", "blue"),
        ("x-list", "a, b,c"),
    ] {
        facts.header(name, value.as_bytes());
    }
    let property = |facts: &mut Facts, path: &[&str], value: &[u8]| {
        facts.property(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>(), value);
    };
    property(&mut facts, &["source", "address"], b"[2001:db8::7]:4321");
    property(&mut facts, &["source", "port"], &4321_u64.to_le_bytes());
    property(&mut facts, &["destination", "address"], b"192.0.2.1:443");
    property(&mut facts, &["connection", "mtls"], &[1]);
    property(&mut facts, &["request", "protocol"], b"HTTP/2");
    // 2025-03-01T13:45:10.25Z, a Saturday.
    property(&mut facts, &["request", "time"], &1_740_836_710_250_000_000_i64.to_le_bytes());
    facts.auth(json!({
        "identity": {
            "userid": "alice",
            "plan": "gold",
            "number": 7,
            "half": 0.5,
            "large": 18_446_744_073_709_551_615_u64,
            "admin": true,
            "nothing": null,
            "groups": ["free", "beta"],
            "metadata": {"annotations": {"kuadrant.io/groups": "free,beta"}},
        },
        "metadata": {"quota": {"tokens": 500}},
    }));
    facts.estimate(100, 1024);
    facts
}

/// Compiles an expression.
pub fn compile(source: &str, purpose: ResultType) -> Result<Expression, String> {
    Expression::compile(source, Phase::Request, purpose).map_err(|error| format!("{source}: {error}"))
}

/// Returns the result of a predicate as one word, or as its error.
pub fn predicate(source: &str, facts: &Facts) -> String {
    let value = |expression: Expression| expression.predicate(facts).map_err(|error| error.to_string());
    match compile(source, ResultType::Predicate).and_then(value) {
        Ok(value) => value.to_string(),
        Err(error) => error,
    }
}

/// Returns the result of a counter, or the elements of its list.
pub fn text(source: &str, facts: &Facts) -> String {
    let value = |expression: Expression| expression.counter(facts).map_err(|error| error.to_string());
    match compile(source, ResultType::Counter).and_then(value) {
        Ok(CounterValue::One(value)) => value,
        Ok(CounterValue::Each(values)) => format!("{values:?}"),
        Err(error) => format!("error: {error}"),
    }
}
