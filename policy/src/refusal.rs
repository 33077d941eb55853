//! What the client is told: the rate-limit headers of every answer, and the refusal in OpenAI's form, as
//! `openai-python` and its kin read it. A counter's value never leaves here.

use crate::model::{Unit, Window};
use crate::plan::Hold;
use crate::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use crate::wire::kuadrant::service::ratelimit::v1::DescriptorStatus;
use serde_json::json;

/// Response headers.
pub type Headers = Vec<(&'static str, String)>;

/// The answer to a request that does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// 429 or 503.
    pub status: u16,
    /// `content-type` included.
    pub headers: Headers,
    /// JSON.
    pub body: Vec<u8>,
}

/// What was asked of one rate, and what the adapter said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'a> {
    pub hold: &'a Hold,
    pub status: Option<&'a DescriptorStatus>,
}

impl Standing<'_> {
    /// Whether this rate refused.
    pub fn is_over(&self) -> bool {
        self.status.is_some_and(|status| status.code() == Code::OverLimit)
    }

    /// Whether it would refuse even if nothing were used.
    fn never_fits(&self) -> bool {
        self.is_over() && self.hold.amount > self.max()
    }

    fn max(&self) -> u64 {
        self.status.map_or(self.hold.max, |status| status.limit)
    }

    fn remaining(&self) -> u64 {
        self.status.map_or(0, |status| status.remaining)
    }

    fn reset_ms(&self) -> u64 {
        self.status.map_or(0, |status| status.reset_ms)
    }
}

/// The headers of an answer, admitted or refused: per unit the most constrained rate, and the IETF draft's two.
pub(crate) fn headers(standings: &[Standing<'_>]) -> Headers {
    let known: Vec<&Standing<'_>> = standings.iter().filter(|standing| standing.status.is_some()).collect();
    let mut headers = Headers::new();
    for (unit, [limit, remaining, reset]) in UNIT_HEADERS {
        let of_unit = known.iter().filter(|standing| standing.hold.rate.rate.unit == unit);
        let tightest =
            of_unit.min_by_key(|standing| (standing.remaining(), !standing.is_over(), standing.max()));
        if let Some(standing) = tightest {
            headers.push((limit, standing.max().to_string()));
            headers.push((remaining, standing.remaining().to_string()));
            headers.push((reset, go_duration(standing.reset_ms())));
        }
    }
    if !known.is_empty() {
        let policy = |standing: &&Standing<'_>| {
            let rate = &standing.hold.rate;
            let quota = format!("\"{}\";q={}", rate.label, standing.max());
            match rate.rate.window.length() {
                Some(length) => format!("{quota};w={}", length.as_secs().max(1)),
                None => quota,
            }
        };
        let left = |standing: &&Standing<'_>| {
            let rate = &standing.hold.rate;
            format!("\"{}\";r={};t={}", rate.label, standing.remaining(), seconds(standing.reset_ms()))
        };
        headers.push(("ratelimit-policy", join(known.iter().map(policy))));
        headers.push(("ratelimit", join(known.iter().map(left))));
    }
    headers
}

const UNIT_HEADERS: [(Unit, [&str; 3]); 2] = [
    (
        Unit::Requests,
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ),
    (Unit::Tokens, ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]),
];

/// The 429. Of several rates that refused it names the one that can never pass, or else the last to have room.
pub(crate) fn over_limit(standings: &[Standing<'_>]) -> Denial {
    let mut headers = headers(standings);
    headers.push(("content-type", "application/json".into()));
    let refused = standings.iter().filter(|standing| standing.is_over());
    let named = refused.max_by_key(|standing| (standing.never_fits(), standing.reset_ms()));
    let Some(named) = named else { return unexplained(headers) };
    let never = named.never_fits();
    if never {
        headers.push(("x-should-retry", "false".into()));
    } else {
        headers.push(("retry-after", seconds(named.reset_ms()).to_string()));
        headers.push(("retry-after-ms", named.reset_ms().max(1).to_string()));
    }
    let rate = &named.hold.rate;
    let unit = rate.rate.unit.name();
    let (limit, policy, max) = (&rate.limit, &rate.policy, named.max());
    let (remaining, asked) = (named.remaining(), named.hold.amount);
    let kind = rate.rate.unit;
    let allowed = match rate.rate.window {
        Window::Now => format!("{max} requests at a time"),
        window => format!("{} per {window}", kind.quantity(max)),
    };
    let (left, needed) = match kind {
        Unit::Usd => (kind.quantity(remaining), kind.quantity(asked)),
        _ => (remaining.to_string(), asked.to_string()),
    };
    let message = if never {
        format!(
            "Request too large for limit {limit} of policy {policy}: {allowed}, {needed} needed. \
             Retrying does not help: shorten the input or lower the maximum output."
        )
    } else {
        let reset = go_duration(named.reset_ms());
        format!(
            "Rate limit exceeded for limit {limit} of policy {policy}: {allowed}, {left} \
             remaining, {needed} needed. Please try again in {reset}."
        )
    };
    let rate_limit = json!({
        "policy": **policy, "limit": limit, "unit": unit, "max": max, "remaining": remaining, "needed": asked,
        "resets_in_seconds": seconds(named.reset_ms()),
    });
    let body = error(&message, unit, "rate_limit_exceeded", Some(rate_limit));
    Denial { status: 429, headers, body }
}

/// A server that does not say which rate refused.
fn unexplained(headers: Headers) -> Denial {
    let body = error("Rate limit exceeded.", "tokens", "rate_limit_exceeded", None);
    Denial { status: 429, headers, body }
}

/// The 503 of `failureMode: Deny`; `policy`: whose, or the plugin configuration's.
pub(crate) fn unavailable(policy: Option<&str>) -> Denial {
    let whose = policy.map_or_else(|| "the gateway".to_owned(), |policy| format!("policy {policy}"));
    let message = format!(
        "The rate limit could not be checked, and {whose} lets no request pass unchecked. Please try again."
    );
    let headers = vec![("content-type", "application/json".to_owned()), ("retry-after", "1".to_owned())];
    Denial { status: 503, headers, body: error(&message, "server_error", "rate_limiter_unavailable", None) }
}

fn error(message: &str, kind: &str, code: &str, rate_limit: Option<serde_json::Value>) -> Vec<u8> {
    let mut error = json!({ "message": message, "type": kind, "param": null, "code": code });
    if let (Some(rate_limit), Some(fields)) = (rate_limit, error.as_object_mut()) {
        fields.insert("rate_limit".into(), rate_limit);
    }
    json!({ "error": error }).to_string().into_bytes()
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Whole seconds, rounded up, at least 1.
fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000).max(1)
}

/// As Go prints a duration, rounded up to whole seconds from one second on: `250ms`, `1s`, `6m0s`, `23h59m50s`.
fn go_duration(ms: u64) -> String {
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let seconds = seconds(ms);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_prints_them() {
        let table = [
            (0, "0ms"),
            (12, "12ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1001, "2s"),
            (59_999, "1m0s"),
            (360_000, "6m0s"),
        ];
        for (ms, text) in table {
            assert_eq!(go_duration(ms), text, "{ms}");
        }
        assert_eq!(go_duration(86_390_000), "23h59m50s");
        assert_eq!(go_duration(86_400_000), "24h0m0s");
    }
}
