//! The responses that Weir makes: the rate-limit headers of every response, and refusals in the caller's own
//! dialect or as `onExceeded` defines them. They never contain a counter's value.

mod body;
pub mod codex;
pub(crate) mod warning;

use crate::clock::rfc3339;
use crate::metric::Metric;
use body::ErrorBody;
use expression::facts::Facts;
use llm::request::Dialect;
use policy::model::{QuotaHeaders, Unit, Window};
use policy::plan::{Hold, PolicyPart};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::DescriptorStatus;
use std::borrow::Cow;

/// Response headers.
pub type HeaderList = Vec<(Cow<'static, str>, String)>;

/// The local response to a request that is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// 400, 413, 429, 503, or the status of the policy's `onExceeded`.
    pub status: u16,
    /// Includes `content-type`.
    pub headers: HeaderList,
    /// JSON, unless the policy defines another body.
    pub body: Vec<u8>,
}

impl Denial {
    /// Adds headers, except those that the policy's own refusal has.
    pub(crate) fn add_headers(&mut self, headers: HeaderList) {
        for (name, value) in headers {
            if !self.headers.iter().any(|(known, _)| *known == name) {
                self.headers.push((name, value));
            }
        }
    }
}

/// If holds alone cause the refusal, the client should retry when the window ends, but no sooner than the
/// first and no later than the second of these times, in milliseconds.
const HELD_UP_MS: (u64, u64) = (1_000, 2_000);
/// Client libraries sleep silently for the whole `retry-after`. Above this length, they are asked to report
/// the error at once.
const LONGEST_SLEEP_MS: u64 = 60_000;
/// The maximum number of limits in the `RateLimit` and `x-ratelimit-warning` headers, because servers and
/// clients limit the length of headers.
const MAX_LISTED: usize = 8;

/// A hold and the adapter's status for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateStatus<'a> {
    pub hold: &'a Hold,
    pub status: Option<&'a DescriptorStatus>,
}

impl RateStatus<'_> {
    /// Returns whether this rate refused.
    pub fn is_over(&self) -> bool {
        self.status.is_some_and(|status| status.code() == Code::OverLimit)
    }

    /// Returns whether it would refuse even without any usage.
    fn never_fits(&self) -> bool {
        self.is_over() && self.hold.amount > self.max()
    }

    /// Returns whether holds alone cause the refusal. The charges leave room, so any request that ends may
    /// free enough.
    fn is_held_up(&self) -> bool {
        let used = self.status.and_then(|status| status.used);
        self.is_over() && used.is_some_and(|used| used.saturating_add(self.hold.amount) <= self.max())
    }

    /// Returns when there may be room again. `None` if a retry does not help.
    fn retry_ms(&self) -> Option<u64> {
        if self.never_fits() {
            None
        } else if self.is_held_up() {
            Some(self.reset_ms().unwrap_or(u64::MAX).clamp(HELD_UP_MS.0, HELD_UP_MS.1))
        } else {
            self.reset_ms().map(|ms| ms.max(1))
        }
    }

    /// Orders rates by the remaining part of their maximum. Those that refused come first.
    fn slack(&self) -> (bool, u128, u64) {
        let share = u128::from(self.remaining()).saturating_mul(1_000_000);
        let share = share.checked_div(u128::from(self.max())).unwrap_or_default();
        (!self.is_over(), share, self.remaining())
    }

    fn max(&self) -> u64 {
        self.status.map_or(self.hold.max, |status| status.limit)
    }

    fn remaining(&self) -> u64 {
        self.status.map_or(0, |status| status.remaining)
    }

    /// `None` if its window has no end.
    fn reset_ms(&self) -> Option<u64> {
        self.hold.rate.rate.window.ends().then(|| self.status.map_or(0, |status| status.reset_ms))
    }
}

/// Returns whether the response's headers contain the time of day at which a window ends.
pub(crate) fn tells_time(dialect: Dialect) -> bool {
    dialect == Dialect::Anthropic
}

/// The headers of a response, admitted or refused: the most constrained rate of each unit, and the two
/// headers of the IETF draft. `asked_at` is the time at which the adapter replied, in milliseconds of Unix
/// time, if known.
pub(crate) fn headers(standings: &[RateStatus<'_>], dialect: Dialect, asked_at: Option<u64>) -> HeaderList {
    // Limits that are not enforced are not shown to clients.
    let binds = |standing: &&RateStatus<'_>| standing.status.is_some() && standing.hold.enforced;
    let all: Vec<&RateStatus<'_>> = standings.iter().filter(binds).collect();
    let known: Vec<&RateStatus<'_>> =
        all.iter().filter(|standing| is_published(standing, &all)).copied().collect();
    let mut headers = HeaderList::new();
    for (unit, [limit, remaining, reset]) in UNIT_HEADERS {
        if let Some(standing) = tightest(unit, &known) {
            headers.push((limit.into(), standing.max().to_string()));
            headers.push((remaining.into(), standing.remaining().to_string()));
            headers.extend(standing.reset_ms().map(|ms| (reset.into(), go_duration(ms))));
        }
    }
    if let Some(asked_at) = asked_at.filter(|_| tells_time(dialect)) {
        for (unit, [limit, remaining, reset]) in ANTHROPIC_HEADERS {
            if let Some(standing) = tightest(unit, &known) {
                headers.push((limit.into(), standing.max().to_string()));
                headers.push((remaining.into(), standing.remaining().to_string()));
                let at = standing.reset_ms().map(|ms| rfc3339(asked_at.saturating_add(ms)));
                headers.extend(at.map(|at| (reset.into(), at)));
            }
        }
    }
    let known = most_constrained(known);
    if !known.is_empty() {
        headers.push(("ratelimit-policy".into(), list(&known, put_quota)));
        headers.push(("ratelimit".into(), list(&known, put_left)));
    }
    headers
}

/// Returns whether `onExceeded.quotaHeaders` publishes this rate.
fn is_published(standing: &RateStatus<'_>, all: &[&RateStatus<'_>]) -> bool {
    let rate = &standing.hold.rate;
    match rate.on_exceeded.as_ref().map(|own| own.quota_headers).unwrap_or_default() {
        QuotaHeaders::All => true,
        QuotaHeaders::None => false,
        QuotaHeaders::Constrained => {
            let mut others = all.iter().filter(|other| other.hold.rate.policy == rate.policy);
            let first = others.next();
            let tightest = others.fold(first, |tightest, other| {
                tightest.filter(|tightest| tightest.slack() <= other.slack()).or(Some(other))
            });
            tightest.is_some_and(|tightest| std::ptr::eq::<RateStatus<'_>>(*tightest, standing))
        }
    }
}

fn tightest<'a, 'b>(unit: Unit, known: &[&'a RateStatus<'b>]) -> Option<&'a RateStatus<'b>> {
    let of_unit = known.iter().filter(|standing| standing.hold.rate.rate.unit == unit);
    of_unit.min_by_key(|standing| (standing.remaining(), !standing.is_over(), standing.max())).copied()
}

/// Selects at most [`MAX_LISTED`] of them and keeps their order.
fn most_constrained<'a, 'b>(mut known: Vec<&'a RateStatus<'b>>) -> Vec<&'a RateStatus<'b>> {
    while known.len() > MAX_LISTED {
        // If several are equal, the last one is removed.
        let loosest = known.iter().enumerate().max_by_key(|(_, standing)| standing.slack());
        let Some((place, _)) = loosest else { break };
        known.remove(place);
    }
    known
}

fn put_quota(text: &mut String, standing: &RateStatus<'_>) {
    let rate = &standing.hold.rate;
    put_item(text, &rate.label, "q", standing.max());
    if let Some(length) = rate.rate.window.length() {
        put_parameter(text, "w", length.as_secs().max(1));
    }
}

fn put_left(text: &mut String, standing: &RateStatus<'_>) {
    let rate = &standing.hold.rate;
    put_item(text, &rate.label, "r", standing.remaining());
    if let Some(ms) = standing.reset_ms().filter(|_| rate.rate.window != Window::Now) {
        put_parameter(text, "t", seconds(ms));
    }
}

fn put_item(text: &mut String, label: &str, key: &str, number: u64) {
    text.push('"');
    text.push_str(label);
    text.push('"');
    put_parameter(text, key, number);
}

fn put_parameter(text: &mut String, key: &str, number: u64) {
    text.push(';');
    text.push_str(key);
    text.push('=');
    text.push_str(itoa::Buffer::new().format(number));
}

const UNIT_HEADERS: [(Unit, [&str; 3]); 2] = [
    (
        Unit::Requests,
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ),
    (Unit::Tokens, ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]),
];

/// Formats Anthropic's headers as documented by Anthropic.
const ANTHROPIC_HEADERS: [(Unit, [&str; 3]); 4] = [
    (
        Unit::Requests,
        [
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ],
    ),
    (
        Unit::Tokens,
        [
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ],
    ),
    (
        Unit::InputTokens,
        [
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            "anthropic-ratelimit-input-tokens-reset",
        ],
    ),
    (
        Unit::OutputTokens,
        [
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            "anthropic-ratelimit-output-tokens-reset",
        ],
    ),
];

/// The refusal, and a metric if the policy's own body could not be evaluated. If several rates refused, it
/// names one that can never admit the request, or else the last to have room again. `facts` are those of the
/// request, if a policy needs them.
pub(crate) fn over_limit(
    standings: &[RateStatus<'_>],
    dialect: Dialect,
    facts: Option<&Facts>,
    asked_at: Option<u64>,
) -> (Denial, Option<Metric>) {
    let mut headers = headers(standings, dialect, asked_at);
    headers.extend(warning::header(standings));
    let refused = standings.iter().filter(|standing| standing.is_over());
    let named =
        refused.max_by_key(|standing| (standing.never_fits(), standing.retry_ms().unwrap_or(u64::MAX)));
    let Some(named) = named else {
        // The server did not report which rate refused.
        let told = ErrorBody { message: "Rate limit exceeded.".into(), kind: "tokens", ..ErrorBody::over() };
        return (told.denial(dialect, headers), None);
    };
    let retry_ms = named.retry_ms();
    if let Some(ms) = retry_ms {
        headers.push(("retry-after".into(), seconds(ms).to_string()));
        headers.push(("retry-after-ms".into(), ms.to_string()));
    }
    if retry_ms.is_none_or(|ms| ms > LONGEST_SLEEP_MS) {
        headers.push(("x-should-retry".into(), "false".into()));
    }
    let error = if named.never_fits() { ErrorBody::too_large(dialect) } else { ErrorBody::over() };
    let told = ErrorBody {
        message: message(named, retry_ms),
        kind: named.hold.rate.rate.unit.name(),
        retry_ms,
        rate_limit: Some(named),
        ..error
    };
    overridden(told.denial(dialect, headers), named.hold, facts)
}

/// The refusal of a request that would hold more than its share of a limit. Like a request that can never
/// pass, it is too large regardless of the current usage. Also returns a metric if the policy's own body
/// could not be evaluated.
pub(crate) fn over_share(hold: &Hold, facts: &Facts) -> (Denial, Option<Metric>) {
    let rate = &hold.rate;
    let (limit, policy, unit) = (&rate.limit, &rate.policy, rate.rate.unit);
    let (most, share) =
        hold.most.map_or((hold.max, String::new()), |(most, share)| (most, share.to_string()));
    let needed = match unit {
        Unit::Usd => unit.quantity(hold.amount),
        _ => hold.amount.to_string(),
    };
    let message = format!(
        "Request too large for limit {limit} of policy {policy}: one request may hold {} ({share} of {} per {}), {needed} \
         needed. Retrying does not help: shorten the input or lower the maximum output.",
        unit.quantity(most),
        unit.quantity(hold.max),
        rate.rate.window,
    );
    let standing = RateStatus { hold, status: None };
    let dialect = facts.dialect();
    let told = ErrorBody {
        message,
        kind: unit.name(),
        rate_limit: Some(&standing),
        ..ErrorBody::too_large(dialect)
    };
    let headers = vec![("x-should-retry".into(), "false".into())];
    overridden(told.denial(dialect, headers), hold, Some(facts))
}

fn message(named: &RateStatus<'_>, retry_ms: Option<u64>) -> String {
    let rate = &named.hold.rate;
    let (limit, policy, unit) = (&rate.limit, &rate.policy, rate.rate.unit);
    let allowed = match rate.rate.window {
        Window::Now => format!("{} requests at a time", named.max()),
        ref window => format!("{} per {window}", unit.quantity(named.max())),
    };
    let bare = |amount: u64| match unit {
        Unit::Usd => unit.quantity(amount),
        Unit::Requests | Unit::Concurrency | Unit::Tokens | Unit::InputTokens | Unit::OutputTokens => {
            amount.to_string()
        }
    };
    let (left, needed) = (bare(named.remaining()), bare(named.hold.amount));
    match retry_ms {
        None if named.max() == 0 => {
            let what = match unit {
                Unit::Usd => "spending",
                Unit::Requests | Unit::Concurrency => "requests",
                Unit::Tokens => "tokens",
                Unit::InputTokens => "input tokens",
                Unit::OutputTokens => "output tokens",
            };
            format!("Limit {limit} of policy {policy} allows no {what}. Retrying does not help.")
        }
        None if !named.never_fits() => format!(
            "Rate limit exceeded for limit {limit} of policy {policy}: {allowed}, {left} remaining, {needed} needed. \
             Retrying does not help: this budget does not renew itself."
        ),
        None => {
            let hint = if unit.is_of_usage() {
                "shorten the input or lower the maximum output"
            } else {
                "nothing passes this limit"
            };
            format!(
                "Request too large for limit {limit} of policy {policy}: {allowed}, {needed} needed. \
                 Retrying does not help: {hint}."
            )
        }
        Some(ms) => {
            let held_up = named.is_held_up() && rate.rate.window != Window::Now;
            let others = if held_up { "; other requests in flight hold the rest" } else { "" };
            format!(
                "Rate limit exceeded for limit {limit} of policy {policy}: {allowed}, {left} remaining, {needed} \
                 needed{others}. Please try again in {}.",
                go_duration(ms)
            )
        }
    }
}

/// Applies the refusing policy's `onExceeded`.
fn overridden(mut denial: Denial, hold: &Hold, facts: Option<&Facts>) -> (Denial, Option<Metric>) {
    let Some(own) = &hold.rate.on_exceeded else { return (denial, None) };
    denial.status = own.status.unwrap_or(denial.status);
    let mut failed = None;
    match own.body.as_ref().zip(facts).map(|(body, facts)| body.words(facts)) {
        Some(Ok(body)) => {
            let json = serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok();
            let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
            set(&mut denial.headers, "content-type", kind);
            denial.body = body.into_bytes();
        }
        Some(Err(_)) => {
            let policy = hold.rate.policy.to_string();
            failed = Some(Metric::Evaluation { policy, part: PolicyPart::OnExceeded.name() });
        }
        None => {}
    }
    own.headers.iter().for_each(|(name, value)| set(&mut denial.headers, name, value));
    (denial, failed)
}

fn set(headers: &mut HeaderList, name: &str, value: &str) {
    headers.retain(|(known, _)| known != name);
    headers.push((name.to_owned().into(), value.to_owned()));
}

/// The 503 of `failureMode: Deny`. `policy` is the one that denies, or `None` for the plugin configuration.
pub(crate) fn unavailable(policy: Option<&str>, dialect: Dialect) -> Denial {
    let whose = policy.map_or_else(|| "the gateway".to_owned(), |policy| format!("policy {policy}"));
    let message = format!(
        "The rate limit could not be checked, and {whose} lets no request pass unchecked. Please try again."
    );
    ErrorBody { message, ..ErrorBody::unavailable() }
        .denial(dialect, vec![("retry-after".into(), "1".into())])
}

/// The 400 for a request with a body that other servers may read differently: it has contradictory keys, or
/// needs an edit that cannot be made. Retrying does not help.
pub fn invalid_request(dialect: Dialect, message: &str) -> Denial {
    let told = ErrorBody { message: message.to_owned(), ..ErrorBody::invalid() };
    told.denial(dialect, vec![("x-should-retry".into(), "false".into())])
}

/// The 503 of a worker that has no memory for the request's holds.
pub(crate) fn overloaded(dialect: Dialect) -> Denial {
    let message = "The gateway has too many requests in flight. Please try again.".to_owned();
    ErrorBody { message, ..ErrorBody::unavailable() }
        .denial(dialect, vec![("retry-after".into(), "1".into())])
}

/// Lists the rates in a header; `put` writes each item.
fn list(known: &[&RateStatus<'_>], put: fn(&mut String, &RateStatus<'_>)) -> String {
    let mut text = String::with_capacity(known.len().saturating_mul(48));
    for (place, standing) in known.iter().enumerate() {
        text.push_str(if place > 0 { ", " } else { "" });
        put(&mut text, standing);
    }
    text
}

/// Whole seconds, rounded up, at least 1.
fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000).max(1)
}

/// Formats a duration as Go does, rounded up to whole seconds from one second on: `250ms`, `1s`, `6m0s`,
/// `23h59m50s`.
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
