use super::host;
use super::play::{Reply, Worker};
use proptest::prelude::*;
use serde_json::{Value, json};

fn tokens() -> Value {
    json!({ "limits": { "all": {
        "reservation": { "amount": "100" },
        "rates": [{ "limit": 1000, "window": "1h" }],
    } } })
}

/// A policy that needs the request's body.
fn by_model() -> Value {
    json!({ "limits": { "all": {
        "when": [{ "predicate": "llm.model == 'gpt-5'" }],
        "reservation": { "amount": "100" },
        "rates": [{ "limit": 1000, "window": "1h" }],
    } } })
}

const POST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    (":authority", "llm"),
    ("content-type", "application/json"),
];
const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/json")];
const EVENTS: &[(&str, &str)] = &[(":status", "200"), ("content-type", "text/event-stream")];
const BODY: &[u8] =
    br#"{"model": "gpt-5", "stream": true, "messages": [{"role": "user", "content": "hello"}]}"#;
const ANSWER: &[u8] = br#"{"choices": [{"message": {"content": "hi"}}],
    "usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}}"#;

#[test]
fn a_request_is_held_for_its_reserve_and_charged_what_its_response_reports() {
    for streamed in [false, true] {
        let mut worker = Worker::new(tokens(), "Allow", true);
        if streamed {
            worker.open_stream();
        }
        let request = worker.request(POST, false);
        worker.body(request, &BODY[..20], false);
        assert!(worker.is_held(request));
        worker.body(request, &BODY[20..], true);
        assert!(worker.is_held(request) && worker.upstream(request).is_empty());
        worker.answer(0, Reply::Ok);
        assert!(!worker.is_held(request));
        let sent: Value = serde_json::from_slice(worker.upstream(request)).unwrap();
        assert_eq!(sent["stream_options"]["include_usage"], true);
        worker.respond(request, OK, false);
        worker.response_body(request, &ANSWER[..50], false);
        worker.response_body(request, &ANSWER[50..], true);
        assert_eq!(worker.client(request), ANSWER);
        worker.end(request);
        worker.finish();
        assert_eq!(worker.ended.values().collect::<Vec<_>>(), [&42], "streamed: {streamed}");
    }
}

#[test]
fn a_refused_request_is_answered_and_goes_nowhere() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    let request = worker.request(POST, false);
    worker.body(request, BODY, true);
    worker.answer(0, Reply::OverLimit);
    assert_eq!(Worker::replied(request), Some(429));
    assert!(worker.is_held(request) && worker.upstream(request).is_empty());
    worker.end(request);
    worker.finish();
    assert!(worker.ended.is_empty());
}

#[test]
fn the_usage_is_in_the_filter_state_when_envoy_writes_its_access_log() {
    let recorded = |context: u32| host::with(|host| host.filter_state.remove(&context)).unwrap_or_default();
    let mut reporting = tokens();
    reporting["usageReporting"] = json!({ "enabled": true, "includeDetails": true });
    let mut worker = Worker::new(reporting, "Allow", true);
    let (answered, refused, left) =
        (worker.request(POST, false), worker.request(POST, false), worker.request(POST, false));
    for request in [answered, refused, left] {
        worker.body(request, BODY, true);
    }
    worker.answer(0, Reply::Ok);
    worker.answer(0, Reply::OverLimit);
    worker.answer(0, Reply::Ok);
    worker.respond(answered, OK, false);
    // The body is read after it has passed, and before the log is written.
    worker.response_body(answered, ANSWER, true);
    worker.respond(left, OK, false);
    [answered, refused, left].iter().for_each(|request| drop(worker.end(*request)));
    let values = |context, names: &[&str]| {
        let recorded = recorded(context);
        let value = |name: &&str| recorded.get(&format!("weir.usage.{name}")).cloned().unwrap_or_default();
        names.iter().map(value).collect::<Vec<_>>().join(" ")
    };
    let names = ["status", "source", "model", "stream", "input", "output", "total", "cached"];
    assert_eq!(values(answered, &names), "ok reported gpt-5 true 30 12 42 0");
    assert_eq!(values(refused, &names[..4]), "refused none gpt-5 true");
    // The input is estimated, and nothing was delivered.
    assert_eq!(values(left, &[&names[..4], &["output"]].concat()), "upstream_error estimated gpt-5 true 0");

    drop(worker);
    let mut reporting = tokens();
    reporting["usageReporting"] = json!({ "enabled": true });
    let mut worker = Worker::new(reporting, "Allow", true);
    let forging = worker.request(POST, false);
    worker.body(forging, br#"{"model": "gpt-5\n200 ok 99999", "messages": []}"#, true);
    worker.answer(0, Reply::Ok);
    worker.end(forging);
    let recorded_model = recorded(forging).remove("weir.usage.model");
    assert_eq!(
        recorded_model.as_deref(),
        Some("gpt-5 200 ok 99999"),
        "no model begins a new line of the log"
    );

    drop(worker);
    let mut worker = Worker::new(tokens(), "Allow", true);
    let request = worker.request(POST, false);
    worker.body(request, BODY, true);
    worker.answer(0, Reply::Ok);
    worker.respond(request, OK, true);
    worker.end(request);
    assert!(recorded(request).is_empty(), "nothing is written unless it is asked for");
}

#[test]
fn an_adapter_that_is_away_is_asked_again_and_then_the_failure_mode_decides() {
    for (mode, replied) in [("Allow", None), ("Deny", Some(503))] {
        let mut worker = Worker::new(tokens(), mode, true);
        let request = worker.request(POST, false);
        worker.body(request, BODY, true);
        let mut attempts = 0;
        while worker.is_held(request) && Worker::replied(request).is_none() {
            worker.answer(0, Reply::Fail(14));
            attempts += 1;
        }
        assert_eq!((attempts, Worker::replied(request)), (8, replied), "{mode}");
        worker.end(request);
        worker.finish();
        assert_eq!(worker.ended.len(), 1, "what was held by a call whose answer is lost ends");
    }
}

#[test]
fn a_call_that_the_connection_ended_is_repeated_once() {
    for (second, replied) in [(Reply::Ok, None), (Reply::OverLimit, Some(429)), (Reply::Fail(13), Some(503))]
    {
        let mut worker = Worker::new(tokens(), "Deny", true);
        let request = worker.request(POST, false);
        worker.body(request, BODY, true);
        worker.answer(0, Reply::Fail(13));
        assert!(worker.is_held(request), "{second:?}");
        worker.answer(0, second);
        assert_eq!(Worker::replied(request), replied, "{second:?}");
        worker.end(request);
        worker.finish();
        assert_eq!(worker.ended.len(), usize::from(second != Reply::OverLimit), "{second:?}");
    }
}

#[test]
fn what_a_stream_leaves_is_asked_by_calls_of_their_own() {
    let mut worker = Worker::new(tokens(), "Deny", true);
    worker.open_stream();
    let requests: Vec<u32> = (0..3).map(|_| worker.request(POST, false)).collect();
    requests.iter().for_each(|request| worker.body(*request, BODY, true));
    worker.end(requests[1]);
    worker.close_stream(14);
    while !worker.waiting.is_empty() {
        worker.answer(0, Reply::Ok);
    }
    assert!(!worker.is_held(requests[0]) && !worker.is_held(requests[2]));
}

#[test]
fn a_client_that_leaves_while_its_reserve_is_under_way_holds_nothing() {
    for streamed in [false, true] {
        let mut worker = Worker::new(tokens(), "Allow", true);
        if streamed {
            worker.open_stream();
        }
        let request = worker.request(POST, false);
        worker.body(request, BODY, true);
        worker.end(request);
        worker.finish();
        assert_eq!(worker.ended.values().collect::<Vec<_>>(), [&0], "streamed: {streamed}");
    }
}

#[test]
fn a_reserve_that_nobody_answers_is_over_after_the_timeout() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    worker.open_stream();
    let request = worker.request(POST, false);
    worker.body(request, BODY, true);
    worker.advance(100);
    assert!(worker.is_held(request));
    worker.advance(200);
    assert!(!worker.is_held(request));
}

#[test]
fn an_unreachable_adapter_holds_no_request() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    host::with(|host| host.unreachable = true);
    let request = worker.request(POST, false);
    worker.body(request, BODY, true);
    assert!(!worker.is_held(request));
    assert!(!worker.upstream(request).is_empty());
}

/// One step of a random play.
#[derive(Clone, Debug)]
enum Step {
    Request { get: bool, end: bool },
    Body { which: usize, size: usize, end: bool },
    RequestTrailers(usize),
    Respond { which: usize, events: bool, end: bool },
    ResponseBody { which: usize, size: usize, end: bool },
    ResponseTrailers(usize),
    End(usize),
    Answer { place: usize, reply: Reply },
    OpenStream,
    CloseStream,
    Advance(u64),
    Reachable(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = || 0..4_usize;
    let reply = prop_oneof![
        4 => Just(Reply::Ok),
        2 => Just(Reply::OverLimit),
        1 => Just(Reply::Fail(14)),
        1 => Just(Reply::Fail(4)),
        1 => Just(Reply::Fail(13)),
    ];
    let size = || prop_oneof![Just(0), 1..40_usize, Just(usize::MAX)];
    let step = prop_oneof![
        3 => (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(get, end)| Step::Request { get, end }),
        4 => (which(), size(), any::<bool>())
            .prop_map(|(which, size, end)| Step::Body { which, size, end }),
        1 => which().prop_map(Step::RequestTrailers),
        3 => (which(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(which, events, end)| Step::Respond { which, events, end }),
        5 => (which(), size(), prop::bool::weighted(0.3))
            .prop_map(|(which, size, end)| Step::ResponseBody { which, size, end }),
        1 => which().prop_map(Step::ResponseTrailers),
        1 => which().prop_map(Step::End),
        5 => (0..3_usize, reply).prop_map(|(place, reply)| Step::Answer { place, reply }),
        1 => Just(Step::OpenStream),
        1 => Just(Step::CloseStream),
        2 => prop_oneof![0..50_u64, 200..400_u64, Just(6_000)].prop_map(Step::Advance),
        1 => prop::bool::weighted(0.8).prop_map(Step::Reachable),
    ];
    prop::collection::vec(step, 0..80)
}

fn perform(worker: &mut Worker, step: &Step) {
    let contexts = worker.contexts();
    let context = |which: &usize| contexts.get(*which).copied().unwrap_or_default();
    let part = |bytes: &'static [u8], size: usize| &bytes[..size.min(bytes.len())];
    match step {
        Step::Request { get, end } => {
            let get_headers = &[(":method", "GET"), (":path", "/v1/models"), (":authority", "llm")];
            worker.request(if *get { get_headers } else { POST }, *end);
        }
        Step::Body { which, size, end } => worker.body(context(which), part(BODY, *size), *end),
        Step::RequestTrailers(which) => worker.request_trailers(context(which)),
        Step::Respond { which, events, end } => {
            worker.respond(context(which), if *events { EVENTS } else { OK }, *end);
        }
        Step::ResponseBody { which, size, end } => {
            worker.response_body(context(which), part(ANSWER, *size), *end);
        }
        Step::ResponseTrailers(which) => worker.response_trailers(context(which)),
        Step::End(which) => drop(worker.end(context(which))),
        Step::Answer { place, reply } => worker.answer(*place, *reply),
        Step::OpenStream => worker.open_stream(),
        Step::CloseStream => worker.close_stream(14),
        Step::Advance(milliseconds) => worker.advance(*milliseconds),
        Step::Reachable(reachable) => host::with(|host| host.unreachable = !reachable),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// For any events in any order, nothing panics, and every hold ends.
    #[test]
    fn every_hold_ends(
        steps in steps(),
        reads_bodies in any::<bool>(),
        mode in prop_oneof![Just("Allow"), Just("Deny")],
    ) {
        let spec = if reads_bodies { by_model() } else { tokens() };
        let mut worker = Worker::new(spec, mode, reads_bodies);
        for step in &steps {
            perform(&mut worker, step);
        }
        worker.finish();
        let open: Vec<_> =
            worker.asked.iter().filter(|id| !worker.ended.contains_key(*id) && !worker.refused.contains(*id)).collect();
        prop_assert!(open.is_empty(), "{open:?} are still held");
    }
}
