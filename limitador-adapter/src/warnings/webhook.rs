//! Delivers warnings to a webhook, one at a time and in order. Failed attempts are repeated with a growing,
//! randomised pause. No other file uses the HTTP client.

use super::event::{MEDIA_TYPE, WarningEvent};
use super::url::WebhookUrl;
use crate::https;
use crate::metrics::AdapterMetrics;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use engine::backoff::Backoff;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// The number of warnings that may wait. Further ones are dropped and counted.
const MAX_WAITING: usize = 1000;

const USER_AGENT: &str = concat!("limitador-adapter/", env!("CARGO_PKG_VERSION"));

/// How often and when a delivery is attempted.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    /// The maximum number of attempts for one warning.
    pub most: u32,
    /// The first and the longest pause between two attempts, in milliseconds.
    pub pauses: (u64, u64),
    /// The time until the receiver must have answered.
    pub timeout: Duration,
}

impl Default for Attempts {
    /// Gives up after about ten minutes.
    fn default() -> Self {
        Self { most: 20, pauses: (500, 60_000), timeout: Duration::from_secs(10) }
    }
}

/// The warnings that wait for the webhook.
#[derive(Clone)]
pub struct WebhookQueue {
    waiting: mpsc::Sender<WarningEvent>,
    metrics: Arc<AdapterMetrics>,
    /// Whether the last warning was dropped.
    is_full: Arc<AtomicBool>,
}

/// Delivers the warnings of a queue.
pub struct Webhook {
    url: WebhookUrl,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    attempts: Attempts,
    waiting: mpsc::Receiver<WarningEvent>,
    metrics: Arc<AdapterMetrics>,
    health: WebhookHealth,
}

/// The outcome of the last delivery. Only changes are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WebhookHealth {
    Works,
    Fails,
    Rejects,
}

/// The outcome of one attempt.
enum Attempted {
    Delivered,
    /// A repetition cannot help.
    Rejected(StatusCode),
    Failed(String),
}

impl WebhookQueue {
    /// Adds a warning, or drops it if too many wait.
    pub fn push(&self, event: WarningEvent) {
        let is_full = self.waiting.try_send(event).is_err();
        if is_full {
            self.metrics.webhook_dropped.increment(1);
        }
        match (is_full, self.is_full.swap(is_full, Ordering::Relaxed)) {
            (true, false) => {
                tracing::warn!("warnings for the webhook are dropped, because {MAX_WAITING} are waiting");
            }
            (false, true) => tracing::info!("warnings for the webhook are no longer dropped"),
            (true, true) | (false, false) => {}
        }
    }
}

impl Webhook {
    /// Creates a webhook and its queue. Fails if the machine has no root certificates for an `https` URL.
    pub fn new(
        url: WebhookUrl,
        attempts: Attempts,
        metrics: Arc<AdapterMetrics>,
    ) -> Result<(WebhookQueue, Self), String> {
        let client = Client::builder(TokioExecutor::new()).build(https::connector(url.is_https())?);
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let queue = WebhookQueue { waiting: sender, metrics: Arc::clone(&metrics), is_full: Arc::default() };
        Ok((queue, Self { url, client, attempts, waiting, metrics, health: WebhookHealth::Works }))
    }

    /// Delivers warnings until every queue is dropped and nothing waits.
    pub async fn deliver(mut self) {
        while let Some(event) = self.waiting.recv().await {
            match event.json() {
                Ok(body) => self.deliver_one(event.id(), body).await,
                Err(error) => {
                    self.metrics.webhook_failed.increment(1);
                    tracing::error!(%error, "a warning is not representable as JSON");
                }
            }
        }
    }

    async fn deliver_one(&mut self, id: &str, body: Vec<u8>) {
        let body = axum::body::Bytes::from(body);
        let (first, longest) = self.attempts.pauses;
        let mut backoff = Backoff::between(first, longest).with_jitter(uuid::Uuid::new_v4().as_u128());
        loop {
            match self.attempt(body.clone()).await {
                Attempted::Delivered => {
                    self.metrics.webhook_delivered.increment(1);
                    self.note(WebhookHealth::Works, "");
                    return;
                }
                Attempted::Rejected(status) => {
                    self.metrics.webhook_rejected.increment(1);
                    self.note(WebhookHealth::Rejects, status.as_str());
                    return;
                }
                Attempted::Failed(problem) => {
                    self.note(WebhookHealth::Fails, &problem);
                    let pause = backoff.failed();
                    if backoff.failures() >= self.attempts.most {
                        self.metrics.webhook_failed.increment(1);
                        tracing::warn!(webhook = %self.url, id, problem, "a warning could not be delivered");
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    async fn attempt(&self, body: axum::body::Bytes) -> Attempted {
        let request = Request::post(self.url.expose())
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::USER_AGENT, USER_AGENT)
            .body(Body::from(body));
        let request = match request {
            Ok(request) => request,
            Err(error) => return Attempted::Failed(error.to_string()),
        };
        // The body of the answer does not matter, so it is dropped unread.
        match tokio::time::timeout(self.attempts.timeout, self.client.request(request)).await {
            Err(_) => Attempted::Failed("no answer in time".to_owned()),
            Ok(Err(error)) => Attempted::Failed(causes(&error)),
            Ok(Ok(answer)) => match answer.status() {
                status if status.is_success() => Attempted::Delivered,
                status if is_temporary(status) => Attempted::Failed(format!("status {}", status.as_str())),
                status => Attempted::Rejected(status),
            },
        }
    }

    fn note(&mut self, health: WebhookHealth, problem: &str) {
        if std::mem::replace(&mut self.health, health) == health {
            return;
        }
        let webhook = &self.url;
        match health {
            WebhookHealth::Works => tracing::info!(%webhook, "the webhook accepts warnings again"),
            WebhookHealth::Fails => {
                tracing::warn!(%webhook, problem, "the webhook does not answer; warnings wait");
            }
            WebhookHealth::Rejects => {
                tracing::warn!(%webhook, status = problem, "the webhook rejects warnings, which are lost");
            }
        }
    }
}

/// Returns whether a repetition of the call may be accepted.
fn is_temporary(status: StatusCode) -> bool {
    let too_early = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || too_early.contains(&status)
}

/// Returns the error with its causes. The client's errors contain addresses, but not the URL.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
