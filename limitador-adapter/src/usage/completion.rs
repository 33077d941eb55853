//! Completes the record of an exchange that created a background result, once the result is seen.

use super::row::{count, limit};
use crate::ledger::stored::{ResultCharges, StoredId};
use crate::policies::snapshot::PolicySnapshot;
use llm::response::Usage;
use policy::model::Unit;
use protocol::wire::weir::v1::{ChargedLimit, CounterValue};
use serde_json::Value;
use std::time::Duration;

/// How long to wait once for the record of a creation, which may come from another filter. It is short, because the
/// other records of the call wait meanwhile.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// What a result has used and charged, as far as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The result, as in the column `result`.
    pub result: String,
    /// Where the counts come from.
    pub source: &'static str,
    /// The new counts: input, cached, written to a cache, output, reasoning, total.
    pub counts: [i64; 6],
    /// The limits that were charged, in the form of the column `limits`.
    limits: Vec<Value>,
}

/// The values of the columns that depend on the limits.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletedLimits {
    pub limits: String,
    pub micro_usd: Option<i64>,
}

impl Completion {
    /// `is_partial` is true if only a part of the result was read.
    pub fn new(id: &StoredId, seen: &ResultCharges, is_partial: bool, in_force: &PolicySnapshot) -> Self {
        let Usage { input, cached, cache_write, output, reasoning, total, .. } = seen.usage;
        let charged = seen.charges.iter().map(|(key, charged)| {
            let (policy, name) = in_force.names_of(key);
            let counters = key.counters.iter().cloned();
            limit(&ChargedLimit {
                policy: policy.to_owned(),
                limit: name.to_owned(),
                unit: key.unit.name().to_owned(),
                charged: *charged,
                counters: counters.map(|(expression, value)| CounterValue { expression, value }).collect(),
                ..ChargedLimit::default()
            })
        });
        Self {
            result: id.as_str().to_owned(),
            source: if is_partial { "estimated" } else { "reported" },
            counts: [input, cached, cache_write, output, reasoning, total].map(count),
            limits: charged.collect(),
        }
    }

    /// Returns a record's limits with the new charges. A charge never becomes smaller, because completions may arrive
    /// in any order. The rates of one limit may differ in their window only, so equal ones are taken in their order.
    /// `None` if somebody has replaced the limits with something else.
    pub fn complete(&self, limits: &str) -> Option<CompletedLimits> {
        let mut limits: Vec<Value> = serde_json::from_str(limits).ok()?;
        let mut new: Vec<&Value> = self.limits.iter().collect();
        for known in &mut limits {
            let is_same = |new: &&Value| {
                ["policy", "limit", "unit", "counters"].iter().all(|name| new.get(name) == known.get(name))
            };
            let Some(at) = new.iter().position(is_same) else { continue };
            let more = charge(new.remove(at)).filter(|more| charge(known) < Some(*more));
            if let (Some(more), Some(known)) = (more, known.as_object_mut()) {
                known.insert(CHARGED.to_owned(), more.into());
            }
        }
        let is_money = |limit: &&Value| limit.get("unit").and_then(Value::as_str) == Some(Unit::Usd.name());
        let micro_usd = limits.iter().filter(is_money).filter_map(charge).max();
        Some(CompletedLimits { limits: Value::from(limits).to_string(), micro_usd })
    }
}

const CHARGED: &str = "charged";

fn charge(limit: &Value) -> Option<i64> {
    limit.get(CHARGED)?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(limit: &str, unit: &str, charged: i64) -> Value {
        json!({ "policy": "default/llm", "limit": limit, "unit": unit, "counters": { "user": "alice" }, "charged": charged })
    }

    #[test]
    fn charges_grow_and_other_limits_stay() {
        let completion = Completion {
            result: "r".to_owned(),
            source: "reported",
            counts: [0; 6],
            limits: vec![row("a", "tokens", 100), row("b", "usd", 5), row("unknown", "tokens", 1)],
        };
        let before =
            [row("a", "tokens", 20), row("b", "usd", 7), row("c", "requests", 1), row("a", "usd", 6)];
        let CompletedLimits { limits, micro_usd } =
            completion.complete(&Value::from(before.to_vec()).to_string()).unwrap();
        let after =
            [row("a", "tokens", 100), row("b", "usd", 7), row("c", "requests", 1), row("a", "usd", 6)];
        assert_eq!(serde_json::from_str::<Value>(&limits).unwrap(), json!(after));
        assert_eq!(micro_usd, Some(7));
        assert_eq!(completion.complete(&limits).unwrap().limits, limits);
        assert_eq!(completion.complete("{}"), None, "nothing is overwritten");
    }

    #[test]
    fn rates_of_one_limit_keep_their_own_charges() {
        // One is per hour and the other per day, and they have a `cost` each.
        let limits = vec![row("a", "tokens", 100), row("a", "tokens", 300)];
        let completion =
            Completion { result: "r".to_owned(), source: "reported", counts: [0; 6], limits: limits.clone() };
        let before = Value::from(vec![row("a", "tokens", 0), row("a", "tokens", 0)]).to_string();
        let after = completion.complete(&before).unwrap().limits;
        assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), Value::from(limits));
    }
}
