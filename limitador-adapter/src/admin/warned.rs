//! `/api/warnings`: which buckets reached a threshold (`warnAt`) lately.

use super::http::{Pages, whole_seconds};
use super::overview::{BucketView, rfc3339};
use crate::ledger::crossing::Crossing;
use crate::policies::snapshot::PolicySnapshot;
use crate::warned::RaisedWarning;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

/// `GET /api/warnings`.
pub(super) async fn warnings(State(pages): State<Pages>) -> Response {
    let in_force = Arc::clone(&pages.in_force.borrow());
    let latest = pages.metrics.warnings.latest();
    let latest = latest.into_iter().map(|warning| WarningView::new(warning, &in_force)).collect();
    Json(WarningsView { latest }).into_response()
}

#[derive(Serialize)]
struct WarningsView {
    /// The newest first.
    latest: Vec<WarningView>,
}

/// The fields have the names of the webhook's events.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WarningView {
    time: Option<String>,
    #[serde(flatten)]
    bucket: BucketView,
    threshold: String,
    max: u64,
    used: u64,
    /// When the warning was raised. Null if only an operator's reset ends the window.
    resets_in_seconds: Option<u64>,
}

impl WarningView {
    fn new(warning: RaisedWarning, in_force: &PolicySnapshot) -> Self {
        let RaisedWarning { time, crossing: Crossing { key, threshold, max, used, reset } } = warning;
        Self {
            time: rfc3339(time),
            bucket: BucketView::new(&key, in_force),
            threshold: threshold.to_string(),
            max,
            used,
            resets_in_seconds: key.window.ends().then(|| whole_seconds(reset)),
        }
    }
}
