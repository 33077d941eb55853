//! `/api/overview` and `/api/events`: the state of the buckets, once and live.
//!
//! While somebody listens, the buckets are read about once a second for all listeners together. A slow listener
//! skips states. `/api/counters?maxAge=N` uses the same readings, so that open pages do not read the storage again.

use super::access::ApiAccess;
use super::http::{Pages, unavailable};
use super::overview::{Overview, OverviewInput};
use crate::ledger::moment::Moment;
use crate::ledger::{CounterReading, Ledger, Unavailable};
use crate::metrics::AdapterMetrics;
use crate::policies::snapshot::PolicySnapshot;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::json;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;

/// The minimum time between two states.
const PERIOD: Duration = Duration::from_secs(1);

/// If reading takes long, as with a Redis of many counters, the pause is this many times as long.
const PAUSE: u32 = 4;

/// The maximum number of listeners.
pub const MAX_LISTENERS: usize = 32;

/// The number of states or lists that are read and computed at once. Others wait, which bounds the memory for
/// readings, and leaves most of the machine to the rate limiter.
const AT_ONCE: usize = 2;

/// How old the state of `/api/overview` may be.
const OVERVIEW_AGE: Duration = Duration::from_secs(1);

/// Reads the buckets for the listeners.
pub struct Live {
    source: LiveSource,
    latest: watch::Sender<Option<Arc<LiveState>>>,
    reader: Mutex<Option<JoinHandle<()>>>,
    seats: Arc<Semaphore>,
    turns: Semaphore,
}

/// What a state is made of.
pub struct LiveSource {
    pub ledger: Arc<dyn Ledger>,
    pub in_force: watch::Receiver<Arc<PolicySnapshot>>,
    pub metrics: Arc<AdapterMetrics>,
    /// Whether counters can be reset and raised.
    pub can_change: bool,
}

/// The readings of all buckets, and the overview as JSON.
#[derive(Clone)]
pub(super) struct LiveReadings {
    pub(super) taken: Moment,
    pub(super) readings: Arc<[CounterReading]>,
    overview: Bytes,
}

type LiveState = Result<LiveReadings, LiveError>;

/// Why there are no readings.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LiveError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("the computation failed: {0}")]
    Failed(String),
}

impl IntoResponse for LiveError {
    fn into_response(self) -> Response {
        match self {
            Self::Unavailable(error) => unavailable(&error),
            Self::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{self}\n")).into_response(),
        }
    }
}

impl Live {
    /// Nothing is read until somebody listens.
    pub fn new(source: LiveSource) -> Arc<Self> {
        Arc::new(Self {
            source,
            latest: watch::channel(None).0,
            reader: Mutex::default(),
            seats: Arc::new(Semaphore::new(MAX_LISTENERS)),
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// Waits for a turn to read all buckets.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, LiveError> {
        self.turns.acquire().await.map_err(|error| LiveError::Failed(error.to_string()))
    }

    /// Returns the readings of all buckets. They may be this old.
    pub(super) async fn readings(
        &self,
        max_age: Duration,
    ) -> Result<(Moment, Arc<[CounterReading]>), LiveError> {
        if let Some(state) = self.young(max_age) {
            return Ok((state.taken, state.readings));
        }
        let now = Moment::now();
        Ok((now, self.source.ledger.readings(now).await?.into()))
    }

    /// Runs a computation over many buckets on another thread, because it would delay the calls that this
    /// thread handles.
    pub(super) async fn compute<T: Send + 'static>(
        computation: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LiveError> {
        let result = tokio::task::spawn_blocking(computation).await;
        result.map_err(|error| LiveError::Failed(error.to_string()))
    }

    fn young(&self, max_age: Duration) -> Option<LiveReadings> {
        let latest = self.latest.borrow().clone()?;
        let state = latest.as_ref().as_ref().ok()?;
        (state.taken.instant.elapsed() < max_age).then(|| state.clone())
    }

    async fn state(&self) -> LiveState {
        let _turn = self.turn().await?;
        let (taken, readings) = self.readings(Duration::ZERO).await?;
        let in_force = Arc::clone(&self.source.in_force.borrow());
        let refused = self.source.metrics.refusals.lately(taken);
        let (can_change, since) = (self.source.can_change, self.source.ledger.counting_since());
        let of_readings = Arc::clone(&readings);
        let json = Self::compute(move || {
            let input = OverviewInput { in_force: &in_force, refused, can_change, since, now: taken };
            serde_json::to_vec(&Overview::new(&of_readings, input))
        });
        let overview = json.await?.map_err(|error| LiveError::Failed(error.to_string()))?.into();
        Ok(LiveReadings { taken, readings, overview })
    }

    /// Subscribes to the states, and starts reading if nobody has listened so far.
    fn listen(self: &Arc<Self>) -> watch::Receiver<Option<Arc<LiveState>>> {
        let receiver = self.latest.subscribe();
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.as_ref().is_none_or(JoinHandle::is_finished) {
            *reader = Some(tokio::spawn(Arc::clone(self).read_on()));
        }
        receiver
    }

    /// Reads until nobody listens.
    async fn read_on(self: Arc<Self>) {
        loop {
            let start = Instant::now();
            let state = self.state().await;
            self.latest.send_replace(Some(Arc::new(state)));
            tokio::time::sleep(PERIOD.max(start.elapsed().saturating_mul(PAUSE))).await;
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            // A new listener subscribes before it takes the lock.
            if self.latest.receiver_count() == 0 {
                *reader = None;
                self.latest.send_replace(None);
                return;
            }
        }
    }
}

/// `GET /api/overview`.
pub(super) async fn overview(State(pages): State<Pages>) -> Response {
    let state = match pages.live.young(OVERVIEW_AGE) {
        Some(state) => Ok(state),
        None => pages.live.state().await,
    };
    match state {
        Ok(state) => ([(header::CONTENT_TYPE, "application/json")], state.overview).into_response(),
        Err(error) => error.into_response(),
    }
}

/// One listener of `/api/events`.
struct EventListener {
    states: watch::Receiver<Option<Arc<LiveState>>>,
    drain: watch::Receiver<bool>,
    access: ApiAccess,
    headers: HeaderMap,
    _seat: OwnedSemaphorePermit,
}

/// `GET /api/events`: server-sent events. `overview` has the same data as `/api/overview`; `problem`
/// has the reason if there is none.
pub(super) async fn events(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let Ok(seat) = Arc::clone(&pages.live.seats).try_acquire_owned() else {
        let problem = "too many listeners; GET /api/overview has the same data\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], problem).into_response();
    };
    let mut states = pages.live.listen();
    states.mark_changed();
    let listener = EventListener { states, drain: pages.drain, access: pages.access, headers, _seat: seat };
    let events = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl EventListener {
    /// Returns the next state. Ends in a drain, and if the token is no longer valid.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                changed = self.states.changed() => changed.ok()?,
                _ = self.drain.wait_for(|draining| *draining) => return None,
            }
            if !self.access.admits(&self.headers) {
                return None;
            }
            let state = self.states.borrow_and_update().clone();
            let Some(state) = state else { continue };
            return Some(match state.as_ref() {
                Ok(state) => {
                    Event::default().event("overview").data(String::from_utf8_lossy(&state.overview))
                }
                Err(error) => Event::default().event("problem").data(json!(error.to_string()).to_string()),
            });
        }
    }
}
