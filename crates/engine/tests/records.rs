//! The records of settled exchanges, for an adapter that keeps them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{
    ActivePlan, Effect, Event, Exchange, ExchangeEnd, RecordStamp, ReservationId, SettledRecord,
};
use engine::outbox::{CommitRoute, Outbox};
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::call::CallFailure;
use protocol::trace::TraceContext;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{ReserveRequest, ReserveResponse};
use protocol::wire::weir::v1::SettledUsage;
use serde_json::{Value, json};
use std::sync::Arc;

fn policy(name: &str, limits: &Value) -> Policy {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": name},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": limits, "prices": [{"model": "*", "input": "1.00", "output": "2.00"}],
        },
    });
    Policy::read(&document).expect("a good policy")
}

const BODY: &[u8] =
    br#"{"model": "gpt\u0007", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}"#;

/// An exchange that waits for the adapter.
fn asked(records: bool) -> Exchange {
    asked_in(records, None).0
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

fn trace(flags: &str) -> Option<Box<TraceContext>> {
    let trace = TraceContext::parse(format!("{PARENT}-{flags}").as_bytes());
    Some(Box::new(trace.expect("a trace").with_state(b"vendor=1")))
}

/// An exchange of this trace, and its message to the adapter.
fn asked_in(records: bool, trace: Option<Box<TraceContext>>) -> (Exchange, ReserveRequest) {
    let tokens = json!({"a": {"counters": [{"expression": "request.headers['x-team']"}], "rates": [{"limit": 1000, "window": "1h"}]}});
    let money = json!({"b": {"rates": [{"limit": "5.00", "window": "1h", "unit": "usd"}]}});
    let plan = Plan::new(vec![policy("one", &tokens), policy("two", &money)]);
    let plan = plan.with_body(BodyAccess::Buffer(1000)).recording_usage(records);
    let id = ReservationId { prefix: "w".into(), number: 1 };
    let mut exchange = Exchange::new(ActivePlan::Plan(Arc::new(plan)), id).traced(trace);
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header(":method", b"POST");
    facts.header("content-type", b"application/json");
    facts.header("content-length", BODY.len().to_string().as_bytes());
    facts.header("x-team", b"red");
    exchange.handle(Event::Request { facts, bodiless: false });
    let effects = exchange.handle(Event::RequestBody { body: BODY, end: true });
    let sent = effects.iter().find_map(|effect| match effect {
        Effect::Reserve(message) => Some(ReserveRequest::decode(&**message).unwrap()),
        _ => None,
    });
    (exchange, sent.expect("a Reserve"))
}

fn reply(exchange: &mut Exchange, code: Code) -> Vec<Effect> {
    let response = ReserveResponse { code: code.into(), ..ReserveResponse::default() };
    exchange.handle(Event::Reply(Ok(response)))
}

/// Returns the records, each after the settlement that it belongs to.
fn records(effects: Vec<Effect>) -> Vec<SettledRecord> {
    let mut has_settled = false;
    let mut records = Vec::new();
    for effect in effects {
        match effect {
            Effect::Commit(_) => has_settled = true,
            Effect::RecordUsage(record) => {
                assert!(has_settled);
                records.push(*record);
            }
            _ => {}
        }
    }
    records
}

/// Ends an exchange with this response.
fn responded(exchange: &mut Exchange, status: u16, body: &[u8]) -> Vec<SettledRecord> {
    reply(exchange, Code::Ok);
    let content_type = "application/json".to_owned();
    exchange.handle(Event::Response(ResponseHead { status, content_type, ..ResponseHead::default() }));
    records(exchange.handle(Event::Body { chunk: body, end: true }))
}

/// Returns the message that the adapter receives.
fn sent(record: SettledRecord, end: ExchangeEnd) -> SettledUsage {
    let stamp = RecordStamp {
        end,
        time: 7,
        gateway: "default/g".to_owned(),
        route: "r".to_owned(),
        request_id: "i".repeat(1000),
        first_byte: Some(1),
        duration: Some(2),
    };
    let mut outbox = Outbox::new(1 << 20);
    outbox.push(record.stamped(stamp));
    SettledUsage::decode(&*outbox.send(CommitRoute::Unary, 0).unwrap().message).unwrap()
}

const ANSWER: &[u8] = br#"{"choices": [{"message": {"content": "hi"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 4}}}"#;

#[test]
fn a_settled_exchange_has_one_record() {
    let mut exchange = asked(true);
    assert!(exchange.is_reported());
    let mut all = responded(&mut exchange, 200, ANSWER);
    assert_eq!(all.len(), 1);
    let record = sent(all.remove(0), ExchangeEnd::Complete);
    assert_eq!((record.id.as_str(), record.time_ms, record.gateway.as_str()), ("w-1", 7, "default/g"));
    assert_eq!((record.provider.as_str(), record.model.as_str()), ("openai", "gpt "));
    assert_eq!((record.status.as_str(), record.source.as_str()), ("ok", "reported"));
    assert_eq!((record.input, record.cached, record.output, record.total), (10, 4, 5, 15));
    assert_eq!((record.first_byte_ms, record.duration_ms), (Some(1), Some(2)));
    assert_eq!(record.request_id.len(), 256);
    let limits: Vec<_> =
        record.limits.iter().map(|limit| (&*limit.policy, &*limit.unit, limit.charged)).collect();
    let money = record.micro_usd.unwrap();
    assert_eq!(limits, [("default/one", "tokens", 15), ("default/two", "usd", money)]);
    let counter = &record.limits[0].counters[0];
    assert_eq!((&*counter.expression, &*counter.value), ("request.headers['x-team']", "red"));
    assert!(money >= 15, "{money}");
}

#[test]
fn failures_and_disconnects_have_records_and_refusals_have_none() {
    let status = |records: Vec<SettledRecord>, end| {
        let [record] = <[_; 1]>::try_from(records).expect("one record");
        let is_finished = record.is_finished();
        (sent(record, end).status, is_finished)
    };
    let failed = responded(&mut asked(true), 500, b"{}");
    assert_eq!(status(failed, ExchangeEnd::Complete), ("upstream_error".to_owned(), true));

    let mut left = asked(true);
    reply(&mut left, Code::Ok);
    let left = records(left.handle(Event::Closed));
    assert_eq!(status(left, ExchangeEnd::ClientLeft).0, "client_disconnect");

    // If the adapter does not answer in time, the request passes, and its usage is charged and recorded.
    let mut unchecked = asked(true);
    unchecked.handle(Event::Reply(Err(CallFailure::Timeout)));
    assert_eq!(records(unchecked.handle(Event::Closed)).len(), 1);

    assert_eq!(records(reply(&mut asked(true), Code::OverLimit)), []);
    assert_eq!(records(asked(true).handle(Event::Closed)), [], "it was not forwarded");
}

#[test]
fn without_a_store_there_are_no_records() {
    let mut exchange = asked(false);
    assert!(!exchange.is_reported());
    assert_eq!(responded(&mut exchange, 200, ANSWER), []);
}

#[test]
fn a_traced_request_passes_its_trace_on_and_has_a_record_for_it() {
    let (mut exchange, reserve) = asked_in(false, trace("01"));
    let passed = reserve.trace.unwrap();
    assert_eq!((passed.parent, passed.state.as_str()), (format!("{PARENT}-01"), "vendor=1"));
    let mut all = responded(&mut exchange, 200, ANSWER);
    assert_eq!(all.len(), 1);
    let record = sent(all.remove(0), ExchangeEnd::Complete);
    assert_eq!(record.trace.unwrap().parent, format!("{PARENT}-01"));
    assert_eq!((record.for_trace, record.operation.as_str(), record.stream), (true, "chat", Some(false)));
    assert!(record.limits.iter().all(|limit| limit.held > 0), "{:?}", record.limits);
}

#[test]
fn a_trace_that_nobody_records_is_passed_on_without_a_record() {
    let (mut exchange, reserve) = asked_in(false, trace("00"));
    assert_eq!(reserve.trace.unwrap().parent, format!("{PARENT}-00"));
    assert_eq!(responded(&mut exchange, 200, ANSWER), []);
}

#[test]
fn a_kept_record_names_its_trace_if_it_is_sampled() {
    for (flags, is_named) in [("01", true), ("00", false)] {
        let (mut exchange, _) = asked_in(true, trace(flags));
        let record = sent(responded(&mut exchange, 200, ANSWER).remove(0), ExchangeEnd::Complete);
        assert_eq!((record.trace.is_some(), record.for_trace), (is_named, false), "{flags}");
    }
}

#[test]
fn a_request_without_a_trace_sends_none() {
    assert_eq!(asked_in(true, None).1.trace, None);
}

const CREATED: &[u8] =
    br#"{"id": "resp_1", "object": "response", "status": "queued", "background": true, "output": []}"#;
const RESULT: &[u8] = br#"{"id": "resp_1", "object": "response", "status": "completed", "background": true,
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}}"#;

/// An exchange with the provider's API of stored results.
fn stored(method: &str, path: &str, body: Option<&[u8]>) -> Exchange {
    let tokens = json!({"a": {"rates": [{"limit": 1000, "window": "1h"}]}});
    let plan =
        Plan::new(vec![policy("one", &tokens)]).with_body(BodyAccess::Buffer(1000)).recording_usage(true);
    let id = ReservationId { prefix: "w".into(), number: 1 };
    let mut exchange = Exchange::new(ActivePlan::Plan(Arc::new(plan)), id);
    let mut facts = Facts::default();
    facts.header(":path", path.as_bytes());
    facts.header(":method", method.as_bytes());
    if let Some(body) = body {
        facts.header("content-type", b"application/json");
        facts.header("content-length", body.len().to_string().as_bytes());
    }
    exchange.handle(Event::Request { facts, bodiless: body.is_none() });
    if let Some(body) = body {
        exchange.handle(Event::RequestBody { body, end: true });
    }
    exchange
}

#[test]
fn the_record_of_a_background_result_is_completed_by_its_reader() {
    let body = br#"{"model": "gpt-5", "background": true, "input": "hello"}"#;
    let mut created = responded(&mut stored("POST", "/v1/responses", Some(body)), 200, CREATED);
    assert_eq!(created.len(), 1);
    let created = sent(created.remove(0), ExchangeEnd::Complete);
    assert_eq!((created.source.as_str(), created.result_id.as_str()), ("deferred", "resp_1"));
    assert_eq!((created.limits[0].charged, created.total), (0, 0), "nothing is charged for now");

    let mut read = responded(&mut stored("GET", "/v1/responses/resp_1", None), 200, RESULT);
    assert_eq!(read.len(), 1, "reading is no exchange under a limit");
    let read = sent(read.remove(0), ExchangeEnd::Complete);
    assert_eq!((read.id.as_str(), read.time_ms), ("", 7));
    let seen = read.seen.unwrap();
    assert_eq!((seen.id.as_str(), seen.total, seen.ends, seen.partial), ("resp_1", 15, true, false));
}
