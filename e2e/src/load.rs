//! Clients that send requests continuously during a change. No request may be refused, and the usage that the
//! provider reports is recorded.

use crate::client::Request;
use crate::jwt;
use crate::upstream::{Answer, Gate, Upstream};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

const CLIENTS: usize = 4;
/// How many requests pass between two steps of a change.
const BETWEEN: usize = 40;
/// The token counts that responses report.
const SIZES: [u64; 5] = [10, 20, 30, 50, 70];

/// Makes the change while clients of this user request responses of all sizes. One client waits for its
/// response during the whole change. Returns the tokens that the provider reported.
pub fn during(to: SocketAddr, upstream: &Upstream, user: &str, change: impl FnOnce()) -> u64 {
    let gate = Gate::default();
    for tokens in SIZES {
        upstream.on(&tokens.to_string(), Answer::used(tokens).reporting(tokens));
    }
    upstream.on("long", Answer::used(1_000).reporting(1_000).wait_first(&gate));
    let ask = Request::chat(5).token(&jwt::token(&json!({ "userid": user })));
    let before = upstream.calls();
    let ended = AtomicBool::new(false);
    let long = ask.clone().answered_by("long").open(to);
    upstream.wait_for_calls(before + 1);
    let client = |first: usize| {
        let mut answers = Vec::new();
        for tokens in SIZES.iter().cycle().skip(first) {
            if ended.load(Ordering::SeqCst) {
                break;
            }
            let answer = ask.clone().answered_by(&tokens.to_string()).send(to);
            answers.push((answer.status, answer.text()));
        }
        answers
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS).map(|first| scope.spawn(move || client(first))).collect();
        let end = StopOnDrop(&ended);
        some_requests(upstream);
        change();
        some_requests(upstream);
        drop(end);
        clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect()
    });
    gate.open();
    assert_eq!(long.finish().status, 200);
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(refused.is_empty(), "{} of {} were refused: {:?}", refused.len(), answers.len(), refused.first());
    let reported = upstream.seen().iter().skip(before).map(|seen| seen.reported).sum();
    println!("{} requests, {reported} tokens", upstream.calls() - before);
    reported
}

/// Waits until some more requests have passed.
pub fn some_requests(upstream: &Upstream) {
    upstream.wait_for_calls(upstream.calls() + BETWEEN);
}

/// Tells other threads to stop when it is dropped, also if a test fails.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
