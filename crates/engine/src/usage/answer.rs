//! The answer to a question about usage, as JSON.

use super::UsageCall;
use crate::refusal::Denial;
use policy::duration;
use policy::model::Window;
use policy::plan::{Hold, PlannedRate};
use protocol::wire::weir::v1::BucketUsage;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

/// One bucket to show.
#[derive(Debug)]
pub(super) struct UsageRow {
    rate: Arc<PlannedRate>,
    max: u64,
    /// Whether the limit only signals and never refuses.
    is_soft: bool,
    /// Whether its bucket is known. If not, it depends on more of the request's body than the question
    /// describes.
    pub is_read: bool,
}

/// One bucket as the caller sees it. It never contains a counter's value.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BucketView<'a> {
    policy: &'a str,
    limit: &'a str,
    unit: &'static str,
    /// Either this or `period` is set. For `concurrency`, neither is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'a str>,
    /// Omitted for a limit that refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    boundary: Option<&'static str>,
    max: u64,
    /// Null if the bucket is not known.
    used: Option<u64>,
    held: Option<u64>,
    remaining: Option<u64>,
    /// Null if the window has no end.
    resets_in_seconds: Option<u64>,
}

/// The whole answer.
#[derive(Serialize)]
struct UsageView<'a> {
    path: &'a str,
    model: Option<&'a str>,
    limits: Vec<BucketView<'a>>,
    /// The number of further buckets.
    #[serde(skip_serializing_if = "is_zero")]
    omitted: usize,
}

/// Takes a reference, because serde requires it.
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl UsageRow {
    pub fn new(hold: &Hold) -> Self {
        let (is_soft, is_read) = (hold.signal.is_some(), !hold.lacks_counter_of_body());
        Self { rate: Arc::clone(&hold.rate), max: hold.max, is_soft, is_read }
    }

    fn view(&self, bucket: Option<&BucketUsage>) -> BucketView<'_> {
        let window = &self.rate.rate.window;
        let (length, kind, period, zone) = match window {
            Window::Fixed(length) => (Some(length), None, None, None),
            Window::Sliding(length) => (Some(length), Some("Sliding"), None, None),
            Window::Period(period, zone) => (None, None, Some(period.name()), Some(zone.name())),
            Window::Now => (None, None, None, None),
        };
        let ends = window.ends() && *window != Window::Now;
        BucketView {
            policy: &self.rate.policy,
            limit: &self.rate.limit,
            unit: self.rate.rate.unit.name(),
            window: length.map(|length| duration::short(*length)),
            window_type: kind,
            period,
            time_zone: zone.filter(|_| ends),
            boundary: self.is_soft.then_some("Soft"),
            max: bucket.map_or(self.max, |bucket| bucket.max),
            used: bucket.map(|bucket| bucket.used),
            held: bucket.map(|bucket| bucket.held),
            remaining: bucket.map(|bucket| bucket.remaining),
            resets_in_seconds: bucket.filter(|_| ends).map(|bucket| bucket.reset_ms.div_ceil(1000)),
        }
    }
}

impl UsageCall {
    /// `buckets` are the buckets that were read, in order.
    pub(super) fn view(&self, buckets: Vec<BucketUsage>) -> Denial {
        let mut read = buckets.iter();
        let rows = self.rows.iter().filter_map(|row| match row.is_read.then(|| read.next()).flatten() {
            Some(bucket) => bucket.known.then(|| row.view(Some(bucket))),
            None => Some(row.view(None)),
        });
        let limits = rows.collect();
        let view =
            UsageView { path: &self.path, model: self.model.as_deref(), limits, omitted: self.omitted };
        match serde_json::to_vec(&view) {
            Ok(body) => reply(200, body),
            Err(_) => super::unavailable(),
        }
    }
}

/// An answer that shows no usage.
pub(super) fn error(status: u16, code: &str, message: &str) -> Denial {
    let mut reply =
        reply(status, json!({ "error": { "code": code, "message": message } }).to_string().into());
    if status == 503 {
        reply.headers.push(("retry-after".into(), "1".to_owned()));
    }
    reply
}

/// The answer must not be cached: it is meant for one caller and is soon out of date.
fn reply(status: u16, body: Vec<u8>) -> Denial {
    let headers = [("content-type", "application/json"), ("cache-control", "no-store")];
    let headers = headers.into_iter().map(|(name, value)| (name.into(), value.to_owned())).collect();
    Denial { status, headers, body }
}
