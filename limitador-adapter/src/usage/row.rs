//! Converts the records that filters send to rows of the table.

use crate::ledger::stored::StoredId;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use protocol::call::MAX_RESULT_ID;
use protocol::wire::weir::v1::{ChargedLimit, SettledUsage};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The maximum length of a record's id in bytes.
const MAX_ID: usize = 256;
/// The maximum number of limits in one record.
const MAX_LIMITS: usize = protocol::call::MAX_DESCRIPTORS;
/// The maximum length of a text, in characters. The filter's texts are shorter.
const MAX_TEXT: usize = 1024;
/// The maximum of a count. Providers may report any number, and sums of many records must not overflow.
const MAX_COUNT: i64 = 1_000_000_000_000;
/// The value of a counter for requests without such a value.
const NULL: &str = "null";

/// The expressions of counters that identify the user, unless `--usage-user` names another one. The first one
/// that a record has decides.
pub const USERS: [&str; 6] = [
    "auth.identity.userid",
    "auth.identity.user_id",
    "auth.identity.user",
    "auth.identity.sub",
    "auth.identity.username",
    "auth.identity.email",
];

/// One row. The fields have the names of the columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordRow {
    id: String,
    /// The end of the exchange, as `2026-11-28T09:30:00.250Z`.
    time: String,
    day: String,
    gateway: Option<String>,
    route: Option<String>,
    request_id: Option<String>,
    /// The first one by name.
    policy: String,
    user: Option<String>,
    limits: Value,
    provider: Option<String>,
    model: Option<String>,
    status: String,
    source: String,
    requests: i64,
    input: i64,
    cached: i64,
    cache_write: i64,
    output: i64,
    reasoning: i64,
    total: i64,
    micro_usd: Option<i64>,
    first_byte_ms: Option<i64>,
    duration_ms: Option<i64>,
    result: Option<String>,
}

impl RecordRow {
    /// Converts a record, without those in `further`. Returns `None` if it cannot be the record of an exchange.
    /// `users` are the expressions of the counters that can be the user.
    pub fn new(record: SettledUsage, users: &[String], now: Timestamp) -> Option<Self> {
        let is_valid = (1..=MAX_ID).contains(&record.id.len()) && record.limits.len() <= MAX_LIMITS;
        let policies: BTreeSet<String> = record.limits.iter().map(|limit| clean(&limit.policy)).collect();
        let policy = policies.into_iter().next().filter(|_| is_valid)?;
        let time = i64::try_from(record.time_ms).ok().and_then(|time| Timestamp::from_millisecond(time).ok());
        let time = time.filter(|time| !time.is_zero()).unwrap_or(now);
        Some(Self {
            id: clean(&record.id),
            time: format!("{time:.3}"),
            day: time.to_zoned(TimeZone::UTC).date().to_string(),
            gateway: text(&record.gateway),
            route: text(&record.route),
            request_id: text(&record.request_id),
            policy,
            user: user(&record.limits, users),
            limits: record.limits.iter().map(limit).collect(),
            provider: text(&record.provider),
            model: text(&record.model),
            status: clean(&record.status),
            source: clean(&record.source),
            requests: 1,
            input: count(record.input),
            cached: count(record.cached),
            cache_write: count(record.cache_write),
            output: count(record.output),
            reasoning: count(record.reasoning),
            total: count(record.total),
            micro_usd: record.micro_usd.map(count),
            first_byte_ms: record.first_byte_ms.map(count),
            duration_ms: record.duration_ms.map(count),
            result: result(&record.result_id),
        })
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

/// The background result that an exchange created.
fn result(id: &str) -> Option<String> {
    let is_valid = (1..=MAX_RESULT_ID).contains(&id.len());
    is_valid.then(|| StoredId::of(id).as_str().to_owned())
}

fn user(limits: &[ChargedLimit], users: &[String]) -> Option<String> {
    let counters = || limits.iter().flat_map(|limit| &limit.counters);
    let value = |expression: &String| counters().find(|counter| counter.expression == *expression);
    let found = users.iter().filter_map(value).find(|counter| counter.value != NULL)?;
    text(&found.value)
}

/// Converts a limit to an element of the column `limits`.
pub(super) fn limit(limit: &ChargedLimit) -> Value {
    let counters = limit.counters.iter();
    let counters = counters.map(|counter| (clean(&counter.expression), json!(clean(&counter.value))));
    json!({
        "policy": clean(&limit.policy),
        "limit": clean(&limit.limit),
        "unit": clean(&limit.unit),
        "counters": counters.collect::<Map<_, _>>(),
        "charged": count(limit.charged),
    })
}

pub(super) fn count(count: u64) -> i64 {
    i64::try_from(count).map_or(MAX_COUNT, |count| count.min(MAX_COUNT))
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| clean(text))
}

/// Shortens a text. PostgreSQL cannot store the character 0, and one such record would block all others.
fn clean(text: &str) -> String {
    text.chars()
        .take(MAX_TEXT)
        .map(|char| if char == '\0' { char::REPLACEMENT_CHARACTER } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::wire::weir::v1::CounterValue;

    fn limit(policy: &str, counters: &[(&str, &str)]) -> ChargedLimit {
        let counter = |(expression, value): &(&str, &str)| CounterValue {
            expression: (*expression).to_owned(),
            value: (*value).to_owned(),
        };
        let counters = counters.iter().map(counter).collect();
        ChargedLimit { policy: policy.to_owned(), counters, ..ChargedLimit::default() }
    }

    fn row(record: SettledUsage) -> Option<RecordRow> {
        RecordRow::new(record, &USERS.map(str::to_owned), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_user_is_the_first_counter_that_can_be_one() {
        let user = |limits: Vec<ChargedLimit>| {
            row(SettledUsage { id: "a".into(), limits, ..SettledUsage::default() }).unwrap().user
        };
        let sub = limit("a/a", &[("auth.identity.team", "red"), ("auth.identity.sub", "s")]);
        assert_eq!(user(vec![sub.clone()]).as_deref(), Some("s"));
        assert_eq!(
            user(vec![sub.clone(), limit("b", &[("auth.identity.userid", "u")])]).as_deref(),
            Some("u")
        );
        assert_eq!(user(vec![sub, limit("b", &[("auth.identity.userid", "null")])]).as_deref(), Some("s"));
        assert_eq!(user(vec![limit("b", &[("auth.identity.team", "red")])]), None);
    }

    #[test]
    fn no_record_can_break_the_store() {
        let hostile = SettledUsage {
            id: "a".into(),
            time_ms: u64::MAX,
            model: format!("\0{}", "x".repeat(5000)),
            limits: vec![limit("b/b", &[]), limit("a/\0", &[("\0", "\0")])],
            total: u64::MAX,
            ..SettledUsage::default()
        };
        let row = row(hostile.clone()).unwrap();
        assert!(!serde_json::to_string(&row).unwrap().contains("\\u0000"));
        assert_eq!(
            (row.policy.as_str(), row.total, row.day.as_str()),
            ("a/\u{fffd}", MAX_COUNT, "1970-01-01")
        );
        assert_eq!(row.model.unwrap().chars().count(), MAX_TEXT);
        let nothing = |record| RecordRow::new(record, &[], Timestamp::UNIX_EPOCH);
        assert_eq!(nothing(SettledUsage { id: String::new(), ..hostile.clone() }), None);
        assert_eq!(nothing(SettledUsage { limits: Vec::new(), ..hostile.clone() }), None);
        assert_eq!(nothing(SettledUsage { id: "x".repeat(257), ..hostile }), None);
    }
}
