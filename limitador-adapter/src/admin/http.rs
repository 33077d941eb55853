//! The HTTP server, for people and probes.

use crate::admin::access::{ApiAccess, guard, guard_change};
use crate::admin::counters;
use crate::admin::live::{self, Live};
use crate::admin::module::{Module, Modules};
use crate::admin::overview::rfc3339;
use crate::admin::usage::{self, UsageReports};
use crate::admin::{page, refused, warned};
use crate::grpc::observe::Observers;
use crate::ledger::moment::Moment;
use crate::ledger::{CounterReading, Durability, Ledger, Unavailable};
use crate::metrics::{AdapterMetrics, StorageState};
use crate::observed::ObservedReserve;
use crate::policies::audit::AuditTrail;
use crate::policies::collection::PolicyReport;
use crate::policies::snapshot::PolicySnapshot;
use axum::extract::{self, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use policy::model::Window;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

/// The state that the endpoints need.
#[derive(Clone)]
pub struct Pages {
    /// The holds and charges.
    pub ledger: Arc<dyn Ledger>,
    /// The policies in force.
    pub in_force: watch::Receiver<Arc<PolicySnapshot>>,
    /// The adapter's metrics.
    pub metrics: Arc<AdapterMetrics>,
    /// Whether the process is shutting down.
    pub drain: watch::Receiver<bool>,
    /// Whether the policies have been read.
    pub known: watch::Receiver<bool>,
    /// The filter modules to serve.
    pub modules: Modules,
    /// The callers of `explain --watch`.
    pub observers: Observers,
    /// Decides who may call `/api/*`.
    pub access: ApiAccess,
    /// Stores usage records, if the adapter keeps them.
    pub usage: Option<UsageReports>,
    /// Receives changes of counters.
    pub audit: AuditTrail,
    /// Reads the buckets for open pages.
    pub live: Arc<Live>,
}

impl Pages {
    /// Serves the endpoints until the drain.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let mut draining = self.drain.clone();
        let drained = async move { drop(draining.wait_for(|draining| *draining).await) };
        axum::serve(listener, self.router()).with_graceful_shutdown(drained).await
    }

    /// The endpoints.
    pub fn router(self) -> Router {
        // Unknown paths are refused in the same way as known ones.
        let access = self.access.clone();
        let needs_token = axum::middleware::from_fn_with_state(access, guard_change);
        let api = Router::new()
            .route("/counters", get(counters::list))
            .route("/counters/reset", post(counters::reset).layer(needs_token.clone()))
            .route("/counters/grant", post(counters::grant).layer(needs_token))
            .route("/events", get(live::events))
            .route("/overview", get(live::overview))
            .route("/policies", get(policies))
            .route("/refusals", get(refused::refusals))
            .route("/usage", get(usage::totals))
            .route("/warnings", get(warned::warnings))
            .route("/watch", get(watched))
            .fallback(|| async { StatusCode::NOT_FOUND })
            .layer(axum::middleware::from_fn_with_state(self.access.clone(), guard))
            .layer(axum::middleware::map_response(private));
        Router::new()
            .nest("/api", api)
            .route("/", get(page::index))
            .route("/page/{*file}", get(page::file))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/weir.wasm", get(module))
            .route("/weir.wasm.sha256", get(digest))
            .route("/{file}", get(named_module))
            .with_state(self)
    }
}

/// Browsers do not store answers of the API, and do not guess their type: an error may quote the caller.
async fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn module(State(pages): State<Pages>) -> Response {
    pages.modules.current().map_or_else(no_module, wasm)
}

async fn named_module(State(pages): State<Pages>, file: extract::Path<String>) -> Response {
    pages.modules.named(&file).map_or_else(|| StatusCode::NOT_FOUND.into_response(), wasm)
}

fn wasm(module: &Module) -> Response {
    ([(header::CONTENT_TYPE, "application/wasm")], module.bytes.clone()).into_response()
}

async fn digest(State(pages): State<Pages>) -> Response {
    pages.modules.current().map_or_else(no_module, |module| format!("{}\n", module.sha256).into_response())
}

fn no_module() -> Response {
    (StatusCode::NOT_FOUND, "no module is served here; use --wasm FILE\n").into_response()
}

/// The Kubernetes probe excludes the storage. Without its storage, an adapter still serves plans and the
/// module. Its errors let each policy's `failureMode` decide.
const WITHOUT_STORAGE: &str = "exclude=storage";

/// Warns about counters in memory.
pub const FORGETS: &str =
    "counters are in memory, and a restart forgets them; use --storage sqlite:PATH to keep them";

async fn ready(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    if *pages.drain.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if !*pages.known.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the policies are not known yet\n").into_response();
    }
    // Charging does not depend on the usage store, so an adapter without it stays ready. Everybody may read this,
    // so the reason is only in the log.
    let is_away = pages.usage.as_ref().is_some_and(UsageReports::is_away);
    let notes = [
        is_away.then_some("the usage store is unavailable; filters keep their usage records"),
        (pages.ledger.durability() == Durability::UntilRestart).then_some(FORGETS),
    ];
    let ok = || {
        let notes: Vec<_> = notes.iter().flatten().copied().collect();
        let but = if notes.is_empty() { "" } else { ", but " };
        format!("ok{but}{}\n", notes.join(", and ")).into_response()
    };
    if query.as_deref() == Some(WITHOUT_STORAGE) {
        return ok();
    }
    match pages.ledger.ready().await {
        Ok(()) => ok(),
        Err(error) => unavailable(&error),
    }
}

/// Answers even if the storage does not, because that is when the metrics are needed.
async fn metrics(State(pages): State<Pages>) -> Response {
    let (size, ready) = match pages.ledger.size().await {
        Ok(size) => (Some(size), pages.ledger.ready().await),
        Err(error) => (None, Err(error)),
    };
    let fault = ready.err().map(|error| error.fault);
    let state = StorageState { size, fault, since: pages.ledger.counting_since() };
    let exposition = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (exposition, pages.metrics.render(&state)).into_response()
}

pub(super) fn unavailable(error: &Unavailable) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
}

/// One bucket. If its rate is no longer in force, it has no maximum. It lasts until its window ends, and
/// continues to count if the rate returns.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CounterView {
    policy: String,
    limit: String,
    unit: &'static str,
    counters: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    used: u64,
    held: u64,
    /// The part of `held` that workers have leased.
    leased: u64,
    granted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
    /// Present unless `period` is. Both are omitted for `concurrency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<&'static str>,
    /// Omitted for UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    /// `Soft` if the limit never refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    boundary: Option<&'static str>,
    /// Null if only an operator's reset ends the window.
    resets_in_seconds: Option<u64>,
    /// Since when the storage has been counting without a loss. Omitted if the storage does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    counting_since: Option<String>,
    /// Omitted if true.
    #[serde(skip_serializing_if = "is_true")]
    in_force: bool,
    /// Omitted if false. This bucket counts all requests for which the limit had no room for a separate
    /// bucket. It has no counter values.
    #[serde(skip_serializing_if = "is_false")]
    overflow: bool,
}

/// Takes a reference, because serde requires one.
fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !*value
}

impl CounterView {
    pub(super) fn new(
        reading: &CounterReading,
        in_force: &PolicySnapshot,
        since: Option<Duration>,
        now: Moment,
    ) -> Self {
        let CounterReading { key, used, held, leased, granted, reset } = reading;
        let max = in_force.maximum(key);
        let (period, zone) = match &key.window {
            Window::Period(period, zone) => (Some(period.name()), Some(zone).filter(|zone| !zone.is_utc())),
            Window::Fixed(_) | Window::Sliding(_) | Window::Now => (None, None),
        };
        let resets = || whole_seconds(reset.unwrap_or_else(|| now.until_end_of(&key.window)));
        let (policy, limit) = in_force.names_of(key);
        Self {
            policy: policy.to_owned(),
            limit: limit.to_owned(),
            unit: key.unit.name(),
            window: matches!(key.window, Window::Fixed(_) | Window::Sliding(_))
                .then(|| key.window.to_string()),
            period,
            time_zone: zone.map(|zone| zone.name().to_owned()),
            counters: match key.is_overflow() {
                true => BTreeMap::new(),
                false => key.counters.iter().cloned().collect(),
            },
            max,
            used: *used,
            held: *held,
            leased: *leased,
            granted: *granted,
            remaining: max.map(|max| max.saturating_add(*granted).saturating_sub(used.saturating_add(*held))),
            resets_in_seconds: key.window.ends().then(resets),
            counting_since: since.and_then(rfc3339),
            boundary: in_force.limit_of(key).filter(|limit| limit.is_soft).map(|_| "Soft"),
            in_force: in_force.has(key),
            overflow: key.is_overflow(),
        }
    }
}

pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// How long a call waits for a Reserve before it returns 204. Proxies have longer timeouts.
const WATCH: Duration = Duration::from_secs(25);

/// Returns the next Reserve that matches the policy and limit in the query, or 204 if there is none for a
/// while.
async fn watched(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let wanted = |name: &str| {
        let parts = query.as_deref().unwrap_or_default().split('&');
        parts.filter_map(|part| part.split_once('=')).find(|(key, value)| *key == name && !value.is_empty())
    };
    let (policy, limit) = (wanted("policy"), wanted("limit"));
    let is_wanted = |reserve: &ObservedReserve| {
        reserve.rates.iter().any(|rate| {
            policy.is_none_or(|(_, policy)| rate.policy == policy)
                && limit.is_none_or(|(_, limit)| rate.limit == limit)
        })
    };
    let (mut observed, mut draining) = (pages.observers.observe(), pages.drain.clone());
    let next = async {
        loop {
            match observed.recv().await {
                Ok(reserve) if is_wanted(&reserve) => return Some(reserve),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    };
    let next = tokio::select! {
        next = next => next,
        () = tokio::time::sleep(WATCH) => None,
        _ = draining.wait_for(|draining| *draining) => None,
    };
    next.map_or_else(|| StatusCode::NO_CONTENT.into_response(), |reserve| Json(&*reserve).into_response())
}

/// One policy, or a part of a file that is not a policy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyView<'a> {
    policy: Option<&'a str>,
    file: String,
    document: Option<usize>,
    in_force: bool,
    mistakes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl<'a> PolicyView<'a> {
    fn new(entry: &'a PolicyReport) -> Self {
        Self {
            policy: entry.policy.as_deref(),
            file: entry.file.display().to_string(),
            document: entry.document,
            in_force: entry.in_force,
            mistakes: entry.mistakes.iter().map(ToString::to_string).collect(),
            warnings: entry.warnings.iter().map(ToString::to_string).collect(),
        }
    }
}

async fn policies(State(pages): State<Pages>) -> Response {
    let in_force = Arc::clone(&pages.in_force.borrow());
    Json(in_force.entries.iter().map(PolicyView::new).collect::<Vec<_>>()).into_response()
}
