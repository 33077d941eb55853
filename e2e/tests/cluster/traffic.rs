//! Clients that send requests continuously, and the responses that they receive.

use e2e::client::Request;
use e2e::jwt;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The values of `failureMode`, each used by one policy.
pub const MODES: [&str; 2] = ["Allow", "Deny"];
/// The header that selects the policy of a request.
const MODE: &str = "x-failure-mode";
/// The number of clients of each policy.
const CLIENTS: usize = 2;
/// The pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(30);
/// The number of requests that must be answered before and after a disruption.
const AROUND: usize = 60;

/// The outcome of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The time since the traffic began.
    pub at: Duration,
    /// The status, or 0 if there was no response.
    pub status: u16,
    /// The usage in the response.
    pub tokens: u64,
    /// Details for the messages of failing tests.
    pub about: String,
}

/// Running clients.
pub struct Traffic {
    ended: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: [Vec<JoinHandle<Vec<Outcome>>>; 2],
}

/// Returns one policy for each failure mode, with a limit that is never reached.
pub fn policies(gateway: &str) -> [String; 2] {
    MODES.map(|mode| {
        let limit = json!({
            "when": [{ "predicate": format!("request.headers['{MODE}'] == '{mode}'") }],
            "rates": [{ "limit": 1_000_000_000, "window": "24h" }],
        });
        let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway });
        json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "TokenRateLimitPolicy",
            "metadata": { "name": mode.to_ascii_lowercase(), "namespace": "default" },
            "spec": { "targetRef": target, "failureMode": mode, "limits": { "all": limit } },
        })
        .to_string()
    })
}

impl Traffic {
    /// Starts clients that send requests to this gateway.
    pub fn start(gateway: SocketAddr) -> Self {
        let (ended, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let began = Instant::now();
        let clients = MODES.map(|mode| {
            let client = |_| {
                let (ended, answers) = (Arc::clone(&ended), Arc::clone(&answers));
                std::thread::spawn(move || ask(gateway, mode, began, &ended, &answers))
            };
            (0..CLIENTS).map(client).collect()
        });
        let traffic = Self { ended, answers, clients };
        traffic.some_more();
        traffic
    }

    /// Waits until some more requests have been answered.
    pub fn some_more(&self) {
        let wanted = self.answers.load(Ordering::SeqCst) + AROUND;
        e2e::wait::until("answers to clients", || {
            (self.answers.load(Ordering::SeqCst) >= wanted).then_some(())
        });
    }

    /// Stops the clients, and returns the outcomes for each policy.
    pub fn end(self) -> [Vec<Outcome>; 2] {
        self.some_more();
        self.ended.store(true, Ordering::SeqCst);
        self.clients.map(|clients| {
            clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
        })
    }
}

fn ask(
    gateway: SocketAddr,
    mode: &str,
    began: Instant,
    ended: &AtomicBool,
    answers: &AtomicUsize,
) -> Vec<Outcome> {
    let token = jwt::token(&json!({ "sub": "load", "userid": "load" }));
    let mut outcomes = Vec::new();
    for tokens in (10..200).cycle().step_by(7) {
        if ended.load(Ordering::SeqCst) {
            break;
        }
        let at = began.elapsed();
        let answer = Request::chat(tokens).token(&token).header(MODE, mode).try_send(gateway);
        outcomes.push(match answer {
            Ok(answer) if answer.cut.is_none() => {
                let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let tokens = json["usage"]["total_tokens"].as_u64().unwrap_or_default();
                Outcome {
                    at,
                    status: answer.status,
                    tokens,
                    about: answer.text().chars().take(200).collect(),
                }
            }
            Ok(answer) => Outcome { at, status: 0, tokens: 0, about: answer.cut.unwrap_or_default() },
            Err(error) => Outcome { at, status: 0, tokens: 0, about: error.to_string() },
        });
        answers.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(PAUSE);
    }
    outcomes
}
