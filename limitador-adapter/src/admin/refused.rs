//! `/api/refusals`: which rates refused calls lately, and why.

use super::http::{Pages, whole_seconds};
use super::overview::{BucketView, RateName, RateView, RefusalsView, rfc3339};
use crate::ledger::moment::Moment;
use crate::policies::snapshot::PolicySnapshot;
use crate::refusals::{RateRefusal, RefusalCause, RefusedLately};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

/// `GET /api/refusals`.
pub(super) async fn refusals(State(pages): State<Pages>) -> Response {
    let in_force = Arc::clone(&pages.in_force.borrow());
    let lately = pages.metrics.refusals.lately(Moment::now());
    Json(RefusalsOverview::new(lately, &in_force)).into_response()
}

#[derive(Serialize)]
struct RefusalsOverview {
    minutes: Vec<MinuteView>,
    rates: Vec<RefusedRateView>,
    latest: Vec<RefusalView>,
}

#[derive(Serialize)]
struct MinuteView {
    time: Option<String>,
    #[serde(flatten)]
    refused: RefusalsView,
}

#[derive(Serialize)]
struct RefusedRateView {
    #[serde(flatten)]
    rate: RateView,
    #[serde(flatten)]
    refused: RefusalsView,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusalView {
    time: Option<String>,
    #[serde(flatten)]
    bucket: BucketView,
    cause: &'static str,
    needed: u64,
    max: u64,
    used: u64,
    held: u64,
    retry_in_seconds: Option<u64>,
}

impl RefusalsOverview {
    fn new(lately: RefusedLately, in_force: &PolicySnapshot) -> Self {
        let minutes = lately
            .minutes
            .into_iter()
            .map(|(time, counts)| MinuteView { time: rfc3339(time), refused: counts.into() });
        let rates = lately.rates.iter().map(|(rate, counts)| RefusedRateView {
            rate: RateName::from(rate).view(in_force, None),
            refused: (*counts).into(),
        });
        let latest = lately.latest.into_iter().map(|refusal| RefusalView::new(refusal, in_force));
        Self { minutes: minutes.collect(), rates: rates.collect(), latest: latest.collect() }
    }
}

impl RefusalView {
    fn new(refusal: RateRefusal, in_force: &PolicySnapshot) -> Self {
        let RateRefusal { time, key, cause, needed, max, used, held, retry } = refusal;
        Self {
            time: rfc3339(time),
            bucket: BucketView::new(&key, in_force),
            cause: match cause {
                RefusalCause::UsedUp => "usedUp",
                RefusalCause::InFlight => "inFlight",
                RefusalCause::TooLarge => "tooLarge",
            },
            needed,
            max,
            used,
            held,
            retry_in_seconds: retry.map(whole_seconds),
        }
    }
}
