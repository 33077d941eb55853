//! The protocol without holds: Envoy's own rate limit service, and Kuadrant's two methods that split it.
//!
//! A descriptor's `hits_addend` takes precedence over the request's. In a descriptor, 0 means 0. In a
//! request, 0 cannot be distinguished from an absent value. It means 0 for `Report`, and 1 for the other
//! methods, as in Envoy's protocol. An amount has this effect:
//! - No amount: one future request. It needs room for 1, and is charged only if the whole call is admitted.
//! - An amount of `requests`: the same, for that many requests.
//! - An amount of tokens: measured usage, because it is unknown in advance. It is always charged, and the
//!   call is refused if there was no room for 1. So 0 checks without charging (Envoy's filter before the
//!   request). Later, the usage is charged (the same filter with `apply_on_stream_done`). No usage is lost,
//!   however many requests end at once.

use crate::grpc::descriptors::{FoundDescriptors, Named};
use crate::grpc::limiter::{CallError, Limiter, find};
use crate::ledger::moment::Moment;
use crate::ledger::{Hit, Key, LedgerOutcome, Status, When};
use crate::policies::snapshot::KnownRate;
use policy::model::{Period, Unit, Window};
use prost_types::Duration as WireDuration;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as Span;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use protocol::wire::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use std::sync::Arc;

/// The effect of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `ShouldRateLimit`.
    Should,
    /// `CheckRateLimit`: never charges.
    Check,
    /// `Report`: never refuses.
    Report,
}

impl Ask {
    fn name(self) -> &'static str {
        match self {
            Self::Should => "ShouldRateLimit",
            Self::Check => "CheckRateLimit",
            Self::Report => "Report",
        }
    }

    fn hit(self, amounts: &Amounts, named: &Named<'_>, rate: &KnownRate, key: &Arc<Key>) -> Hit {
        let (need, charge, when) = self.amounts(amounts, named, rate);
        let (max, warn_at) = (named.max_of(rate), named.warn_at(rate));
        Hit { key: Arc::clone(key), max, need, charge, when, enforced: named.refuses(), warn_at }
    }

    /// Returns the required room, the amount to charge, and when to charge it.
    fn amounts(self, amounts: &Amounts, named: &Named<'_>, rate: &KnownRate) -> (u64, u64, When) {
        let given = named.amount.or(amounts.of_request).map(|amount| named.amount_in(rate, amount));
        let amount = given.unwrap_or(amounts.by_default);
        let measured = rate.unit.is_of_usage() && given.is_some();
        match self {
            // These calls cannot report when a request ends.
            _ if rate.unit == Unit::Concurrency => (1, 0, When::Admitted),
            Self::Check => (amount, 0, When::Admitted),
            Self::Report => (1, amount, When::Always),
            Self::Should if measured => (1, amount, When::Always),
            Self::Should => (amount, amount, When::Admitted),
        }
    }
}

/// The call's amounts for descriptors without their own amount.
struct Amounts {
    of_request: Option<u64>,
    by_default: u64,
}

/// Answers one call.
pub async fn answer(
    limiter: &Limiter,
    ask: Ask,
    request: RateLimitRequest,
    now: Moment,
) -> Result<RateLimitResponse, CallError> {
    let in_force = limiter.now_in_force();
    let call = find(request.descriptors, &in_force)?;
    let amounts = Amounts {
        of_request: (request.hits_addend > 0).then_some(request.hits_addend.into()),
        by_default: if ask == Ask::Report { 0 } else { 1 },
    };
    let hits = call.rates().map(|(named, rate, key)| ask.hit(&amounts, named, rate, key)).collect();
    let outcome = limiter.hit(&call, ask.name(), hits, now).await?;
    call.count_overflows(&outcome);
    call.count_excused(&outcome);
    let refused = !outcome.admitted && ask != Ask::Report;
    if refused {
        limiter.metrics().hits_refused.increment(1);
        call.count_refusals(&outcome);
        let needed = |named: &Named<'_>, rate: &KnownRate| ask.amounts(&amounts, named, rate).0.max(1);
        limiter.metrics().refusals.record(call.refusals(&outcome, now, needed), now);
    } else {
        limiter.metrics().hits_admitted.increment(1);
    }
    Ok(response(&call, &outcome, refused))
}

/// Returns the response. An unknown limit must not override known ones, so it decides only if all limits are
/// unknown.
fn response(call: &FoundDescriptors<'_>, outcome: &LedgerOutcome, refused: bool) -> RateLimitResponse {
    let overall_code = match (refused, call.unknown()) {
        (true, _) => Code::OverLimit,
        (false, 0) => Code::Ok,
        (false, _) => Code::Unknown,
    };
    let statuses = call.statuses(outcome).into_iter().zip(&call.descriptors);
    let statuses = statuses.map(|(status, named)| match (status, named) {
        (Some((rate, status)), Some(named)) => descriptor_status(named, rate, status, refused),
        _ => DescriptorStatus::default(),
    });
    RateLimitResponse {
        overall_code: overall_code.into(),
        statuses: statuses.collect(),
        ..Default::default()
    }
}

fn descriptor_status(named: &Named<'_>, rate: &KnownRate, status: Status, refused: bool) -> DescriptorStatus {
    let code = if status.limited && refused { Code::OverLimit } else { Code::Ok };
    let limit = RateLimit {
        requests_per_unit: clamp(status.max),
        unit: span(&rate.window).into(),
        name: format!("{}/{}", named.limit.policy, named.limit.name),
    };
    DescriptorStatus {
        code: code.into(),
        current_limit: Some(limit),
        limit_remaining: clamp(status.remaining),
        duration_until_reset: WireDuration::try_from(status.reset).ok(),
    }
}

/// Converts an amount to the 32 bits of Envoy's protocol.
fn clamp(amount: u64) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}

/// Returns Envoy's name for a window, or `Unknown` if Envoy has none.
fn span(window: &Window) -> Span {
    let length = match window {
        Window::Fixed(length) | Window::Sliding(length) => *length,
        Window::Period(Period::Month, _) => return Span::Month,
        Window::Period(Period::Year, _) => return Span::Year,
        Window::Period(..) | Window::Now => window.length().unwrap_or_default(),
    };
    match length.as_secs() {
        _ if length.subsec_nanos() > 0 => Span::Unknown,
        1 => Span::Second,
        60 => Span::Minute,
        3_600 => Span::Hour,
        86_400 => Span::Day,
        604_800 => Span::Week,
        _ => Span::Unknown,
    }
}
