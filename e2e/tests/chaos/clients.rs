//! The clients, and what they know about their requests.

use crate::kills::{Kills, Victim};
use e2e::client::Request;
use e2e::upstream::Answer;
use e2e::{jwt, llm, wait};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The tokens that each response to a user reports.
pub const USAGE: [u64; 4] = [40, 50, 60, 70];
/// How long a client waits after a failed request.
const PAUSE: Duration = Duration::from_millis(20);
/// The answers of the provider.
pub const KINDS: [&str; 4] = ["whole", "stream", "slow-whole", "slow-stream"];

/// A request that a client has sent.
pub struct Sent {
    pub user: usize,
    /// The kills of Envoy and the adapter before it.
    pub envoy_kills: usize,
    pub adapter_kills: usize,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Refused,
    /// The response is complete. Its headers show whether the adapter has admitted the request.
    Told {
        is_admitted: bool,
    },
    /// The response is incomplete or missing.
    Cut,
}

/// The clients of a round.
pub struct Clients {
    to: SocketAddr,
    kills: Arc<Kills>,
    /// How many requests run at once.
    count: usize,
    /// Whether the clients have to stop.
    pub over: AtomicBool,
    /// The number of complete responses.
    told: AtomicUsize,
}

pub fn name(user: usize) -> String {
    format!("user-{user}")
}

/// Returns the provider's answer of this kind.
pub fn answer(kind: &str, usage: u64) -> Answer {
    let slow = Duration::from_millis(if kind.starts_with("slow") { 25 } else { 0 });
    let whole = llm::completion("gpt-4o", llm::TEXT, 1, usage - 1);
    if kind.ends_with("whole") {
        let body = whole.to_string();
        let (first, rest) = body.split_at(body.len() / 2);
        let begun = Answer::new(200).header("content-type", "application/json").bytes(first);
        return begun.pause(slow).bytes(rest);
    }
    let event = |event: Value| format!("data: {event}\n\n");
    let words = llm::TEXT.split_inclusive(' ').map(|word| {
        let choice = json!({ "index": 0, "delta": { "content": word }, "finish_reason": null });
        event(json!({ "model": "gpt-4o", "choices": [choice] }))
    });
    let begun = Answer::new(200).header("content-type", "text/event-stream");
    let begun = words.fold(begun, |answer, word| answer.bytes(word).pause(slow));
    let last = event(json!({ "model": "gpt-4o", "choices": [], "usage": whole["usage"] }));
    begun.bytes(last).bytes("data: [DONE]\n\n")
}

fn request(user: usize, kind: &str) -> Request {
    let claims = json!({ "userid": name(user), "usage": USAGE[user] });
    let body = json!({
        "model": "gpt-4o", "messages": [{ "role": "user", "content": "Hi" }],
        "max_tokens": USAGE[user] - 1, "stream": kind.ends_with("stream"), "stream_options": { "include_usage": true }
    });
    let answered_by = format!("{kind}-{user}");
    Request::post("/v1/chat/completions", &body).token(&jwt::token(&claims)).answered_by(&answered_by)
}

/// Returns the usage in a response, whole or streamed.
fn usage(body: &str) -> Option<u64> {
    let (_, usage) = body.rsplit_once("\"total_tokens\":")?;
    usage.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Clients {
    pub fn new(to: SocketAddr, kills: &Arc<Kills>, count: usize) -> Self {
        let (over, told) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { to, kills: Arc::clone(kills), count, over, told }
    }

    /// Sends requests of this user, one after another, until the round is over.
    pub fn run(&self, user: usize) -> Vec<Sent> {
        let requests = KINDS.map(|kind| request(user, kind));
        let mut all = Vec::new();
        for request in requests.iter().cycle() {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            // A kill that counts from now on may have hit the request.
            let (envoy_kills, adapter_kills) = (self.kills.of(Victim::Envoy), self.kills.of(Victim::Adapter));
            let outcome = self.send(request, USAGE[user]);
            if !matches!(outcome, Some(Outcome::Told { .. })) {
                std::thread::sleep(PAUSE);
            }
            all.extend(outcome.map(|outcome| Sent { user, envoy_kills, adapter_kills, outcome }));
        }
        all
    }

    /// Returns `None` if Envoy is not running.
    fn send(&self, request: &Request, wanted: u64) -> Option<Outcome> {
        let response = match request.try_send(self.to) {
            Ok(response) if response.cut.is_none() => response,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
            Ok(_) | Err(_) => return Some(Outcome::Cut),
        };
        let text = response.text();
        match response.status {
            200 => {
                assert_eq!(usage(&text), Some(wanted), "{text}");
                self.told.fetch_add(1, Ordering::SeqCst);
                let is_admitted = response.header("x-ratelimit-remaining-tokens").is_some();
                Some(Outcome::Told { is_admitted })
            }
            429 => Some(Outcome::Refused),
            // An Envoy without a plan.
            503 if text.contains("rate_limiter_unavailable") => Some(Outcome::Refused),
            status => panic!("{status}: {text}"),
        }
    }

    /// Waits until some more responses have arrived.
    pub fn make_progress(&self) {
        let wanted = self.told.load(Ordering::SeqCst) + 2 * self.count;
        wait::until("some responses", || (self.told.load(Ordering::SeqCst) >= wanted).then_some(()));
    }
}
