use super::play::{Reply, Worker};
use protocol::wire::weir::v1::ReserveAndCommitResponse;
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
    be_busy(&mut worker);
    worker
}

/// Sends as many requests as it takes to get a lease.
fn be_busy(worker: &mut Worker) {
    for _ in 0..16 {
        let request = request(worker);
        while !worker.waiting.is_empty() {
            worker.answer(0, Reply::Ok);
        }
        respond(worker, request);
    }
    for _ in 0..3 {
        worker.advance(100);
        while !worker.waiting.is_empty() {
            worker.answer(0, Reply::Ok);
        }
    }
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

/// Returns whether a request has to ask, and ends it.
fn asks(worker: &mut Worker) -> bool {
    let request = request(worker);
    let asks = worker.is_held(request);
    while worker.is_held(request) {
        worker.answer(0, Reply::Ok);
    }
    respond(worker, request);
    asks
}

#[test]
fn a_worker_without_a_stream_keeps_its_leases_until_an_adapter_answers() {
    let mut worker = leased();
    let ended = worker.ended.len();
    worker.close_stream(14);
    assert!(!asks(&mut worker) && !asks(&mut worker));
    // The charges are sent in a separate call.
    worker.advance(1);
    worker.advance(60);
    assert_eq!(worker.waiting.len(), 1, "{:?}", worker.waiting);
    assert!(!asks(&mut worker), "no adapter has answered");
    worker.answer(0, Reply::Ok);
    for _ in 0..2 {
        worker.advance(1);
        worker.answer(0, Reply::Ok);
    }
    assert_eq!(worker.ended.len(), ended + 3 + 1, "the lease is returned");
    assert!(asks(&mut worker));
    worker.finish();
}

#[test]
fn a_failed_call_ends_no_lease() {
    let mut worker = leased();
    worker.close_stream(14);
    assert!(!asks(&mut worker));
    worker.advance(1);
    worker.advance(60);
    assert_eq!(worker.waiting.len(), 1, "{:?}", worker.waiting);
    worker.answer(0, Reply::Fail(14));
    assert!(!asks(&mut worker));
    worker.finish();
}

#[test]
fn a_worker_with_leases_opens_another_stream_soon_and_then_returns_them() {
    let mut worker = leased();
    worker.close_stream(0);
    for _ in 0..3 {
        worker.advance(25);
        worker.close_stream(14);
    }
    worker.advance(25);
    assert!(!asks(&mut worker));
    worker.open_stream();
    assert!(asks(&mut worker));
    be_busy(&mut worker);
    assert!(!asks(&mut worker), "there is another lease");
    worker.finish();
}

#[test]
fn all_leases_may_be_recalled() {
    let mut worker = leased();
    worker.say(&ReserveAndCommitResponse { all_recalled: true, ..Default::default() });
    assert!(asks(&mut worker));
    worker.finish();
}

#[test]
fn an_adapter_that_grants_no_leases_is_not_asked_for_them() {
    let mut worker = Worker::new(tokens(), "Allow", false);
    worker.say(&ReserveAndCommitResponse::default());
    be_busy(&mut worker);
    let asked = worker.asked.len();
    assert_eq!(asked, 16, "one call for each request");
    worker.finish();
}
