use super::play::{Reply, Worker};
use serde_json::{Value, json};

fn tokens() -> Value {
    json!({ "limits": { "all": {
        "reservation": { "amount": "100" },
        "rates": [{ "limit": 1_000_000, "window": "1h" }],
    } } })
}

const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "llm"), ("content-length", "9")];
const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/json")];
const ANSWER: &[u8] = br#"{"usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}}"#;

/// Sends a request with a short body. Returns its context.
fn request(worker: &mut Worker) -> u32 {
    let request = worker.request(POST, false);
    worker.body(request, b"{\"a\": 1}", true);
    request
}

fn respond(worker: &mut Worker, request: u32) {
    worker.respond(request, OK, false);
    worker.response_body(request, ANSWER, true);
    worker.end(request);
}

/// Returns a worker with a lease for 64 requests.
fn leased() -> Worker {
    let mut worker = Worker::new(tokens(), "Allow", false);
    worker.open_stream();
    for _ in 0..16 {
        let request = request(&mut worker);
        while !worker.waiting.is_empty() {
            worker.answer(0, Reply::Ok);
        }
        respond(&mut worker, request);
    }
    for _ in 0..3 {
        worker.advance(100);
        while !worker.waiting.is_empty() {
            worker.answer(0, Reply::Ok);
        }
    }
    worker
}

#[test]
fn a_busy_worker_admits_requests_without_a_call_and_sends_their_usage_together() {
    let mut worker = leased();
    let (asked, ended) = (worker.asked.len(), worker.ended.len());
    for _ in 0..10 {
        let request = request(&mut worker);
        assert!(!worker.is_held(request));
        respond(&mut worker, request);
        worker.advance(1);
    }
    assert!(worker.waiting.is_empty(), "nothing is sent yet: {:?}", worker.waiting);
    worker.advance(50);
    assert_eq!(worker.waiting.len(), 1, "{:?}", worker.waiting);
    worker.answer(0, Reply::Ok);
    assert_eq!((worker.asked.len(), worker.ended.len()), (asked, ended + 10));
    assert!(worker.ended.values().all(|charged| *charged == 42));
}

#[test]
fn a_request_without_room_in_a_lease_asks() {
    let mut worker = leased();
    let running: Vec<u32> = (0..64).map(|_| request(&mut worker)).collect();
    assert!(running.iter().all(|request| !worker.is_held(*request)));
    let another = request(&mut worker);
    assert!(worker.is_held(another));
    worker.answer(0, Reply::OverLimit);
    assert_eq!(Worker::replied(another), Some(429));
}

#[test]
fn a_recall_ends_leases_and_tells_of_running_requests() {
    let mut worker = leased();
    let running = request(&mut worker);
    let (detached, ended) = (worker.detached.len(), worker.ended.len());
    worker.recall();
    worker.advance(1);
    worker.answer(0, Reply::Ok);
    assert_eq!(worker.detached.len(), detached + 1);
    assert_eq!(worker.ended.len(), ended + 1, "the lease is returned");
    let next = request(&mut worker);
    assert!(worker.is_held(next));
    worker.answer(0, Reply::Ok);
    respond(&mut worker, running);
    respond(&mut worker, next);
    worker.finish();
}

#[test]
fn while_the_adapter_is_away_a_lease_lasts_for_seconds() {
    let mut worker = leased();
    super::host::with(|host| host.unreachable = true);
    worker.close_stream(14);
    let early = request(&mut worker);
    assert!(!worker.is_held(early));
    worker.advance(6_000);
    let late = request(&mut worker);
    // `Allow` forwards it unchecked.
    assert!(!worker.is_held(late));
    assert!(worker.asked.len() < 20, "no call has reached the adapter");
    respond(&mut worker, early);
    respond(&mut worker, late);
    worker.finish();
    assert!(worker.ended.values().filter(|charged| **charged == 42).count() >= 18);
}
