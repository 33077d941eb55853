//! Tests a sliding window through Envoy with 64 concurrent clients. No interval of the window's length may
//! exceed the maximum. `WEIR_SLIDING_SECONDS` sets the duration.

use e2e::client::Request;
use e2e::jwt;
use e2e::redis::Redis;
use e2e::upstream::Answer;
use e2e::world::{Builder, World, policy};
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

const AT_ONCE: usize = 64;
const MAX: usize = 40;
const WINDOW: Duration = Duration::from_secs(2);

fn sliding() -> Builder {
    let rate = json!({ "unit": "requests", "limit": MAX, "window": "2s", "windowType": "Sliding" });
    let limit = json!({ "counters": [{ "expression": "auth.identity.userid" }], "rates": [rate] });
    World::build().policy(&policy("llm", json!({ "failureMode": "Deny", "limits": { "per-user": limit } })))
}

/// Returns when each admitted request was sent and when its response arrived. It was charged in between.
fn admitted(world: &World, run: Duration) -> Vec<(Duration, Duration)> {
    world.upstream.on("answer", Answer::used(3));
    let alice = Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" }))).answered_by("answer");
    let begun = Instant::now();
    let one = || {
        let mut admitted = Vec::new();
        while begun.elapsed() < run {
            let sent = begun.elapsed();
            let answer = world.send(&alice);
            match answer.status {
                200 => admitted.push((sent, begun.elapsed())),
                status => assert_eq!(status, 429),
            }
            thread::sleep(Duration::from_millis(20));
        }
        admitted
    };
    let mut all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort();
    all
}

fn holds_in_every_interval(world: &World) {
    let seconds = std::env::var("WEIR_SLIDING_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let run = Duration::from_secs(seconds.unwrap_or(6));
    let admitted = admitted(world, run);
    for (start, _) in &admitted {
        let within = admitted.iter().filter(|(sent, had)| sent >= start && *had < *start + WINDOW);
        assert!(within.count() <= MAX, "in the {WINDOW:?} from {start:?} on");
    }
    let windows = run.as_secs_f64() / WINDOW.as_secs_f64();
    let least = (MAX as f64 * windows * 0.7) as usize;
    println!("{} of at most {} requests in {run:?}", admitted.len(), MAX * (windows as usize + 1));
    assert!(admitted.len() > least, "only {} in {run:?}", admitted.len());
}

#[test]
fn sixty_four_at_once_never_exceed_a_sliding_window() {
    holds_in_every_interval(&sliding().workers(2).start());
}

#[test]
fn nor_if_the_counters_are_in_a_redis() {
    let redis = Redis::start();
    holds_in_every_interval(&sliding().workers(2).storage(&redis.url(0)).start());
}
