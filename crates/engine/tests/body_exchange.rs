//! Exchanges with request bodies that Weir cannot read or cannot edit.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::outbox::{CommitRoute, Outbox};
use engine::refusal::Denial;
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::BodyAccess;
use policy::plan::Plan;
use prost::Message;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveRequest, ReserveResponse};
use serde_json::{Value, json};
use std::sync::Arc;

const MOST: usize = 1000;

type Header = (&'static str, &'static str);

const CHAT: &str = "/v1/chat/completions";

fn exchange(access: BodyAccess, limit: &Value) -> Exchange {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "p" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" },
            "limits": { "all": limit },
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]).with_body(access);
    Exchange::new(ActivePlan::Plan(Arc::new(plan)), ReservationId { prefix: "w".into(), number: 1 })
}

fn capped() -> Exchange {
    let limit = json!({ "rates": [{ "limit": 10_000, "window": "1h" }], "outputCap": "Inject" });
    exchange(BodyAccess::Buffer(MOST), &limit)
}

fn tokens(access: BodyAccess) -> Exchange {
    exchange(access, &json!({ "rates": [{ "limit": 100_000, "window": "1h" }] }))
}

fn facts(headers: &[(&str, &str)]) -> Facts {
    let mut facts = Facts::default();
    for (name, value) in [(":path", CHAT), (":method", "POST")].iter().chain(headers) {
        facts.header(name, value.as_bytes());
    }
    facts
}

fn sent(exchange: &mut Exchange, headers: &[(&str, &str)], body: &[u8], end: bool) -> Vec<Effect> {
    let effects = exchange.handle(Event::Request { facts: facts(headers), bodiless: false });
    assert!(matches!(effects.as_slice(), [Effect::AwaitBody(_)]), "{effects:?}");
    exchange.handle(Event::RequestBody { body, end })
}

fn denial(effects: &[Effect]) -> Option<&Denial> {
    effects.iter().find_map(|effect| if let Effect::Deny(denial) = effect { Some(denial) } else { None })
}

fn held(effects: &[Effect]) -> u64 {
    let call =
        effects.iter().find_map(|effect| if let Effect::Reserve(call) = effect { Some(call) } else { None });
    let call = ReserveRequest::decode(&**call.unwrap_or_else(|| panic!("{effects:?}"))).unwrap();
    call.descriptors[0].hits_addend.unwrap()
}

fn charged(effects: &[Effect]) -> u64 {
    let commit = effects
        .iter()
        .find_map(|effect| if let Effect::Commit(it) = effect { Some(it.clone()) } else { None });
    let mut outbox = Outbox::new(1);
    outbox.push(commit.unwrap_or_else(|| panic!("{effects:?}")));
    CommitRequest::decode(&*outbox.send(CommitRoute::Unary, 0).unwrap().message).unwrap().descriptors[0]
        .hits_addend
        .unwrap()
}

fn counts(effects: &[Effect]) -> Vec<String> {
    let name = |effect: &Effect| {
        if let Effect::Count(count) = effect { Some(count.name().into_owned()) } else { None }
    };
    effects.iter().filter_map(name).collect()
}

fn admit(exchange: &mut Exchange) {
    let reply = ReserveResponse { code: Code::Ok.into(), ..ReserveResponse::default() };
    exchange.handle(Event::Reply(Ok(reply)));
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_body_that_has_to_be_changed_and_cannot_be_is_refused() {
    let long = format!(r#"{{"messages":"{}"}}"#, "x".repeat(2 * MOST)).into_bytes();
    let short = utf16(r#"{"messages":"hi"}"#);
    let twice =
        b"{\"messages\":\"hi\"}\r\n--b\r\nContent-Disposition: form-data; name=prompt\r\n\r\nx\r\n--b--"
            .to_vec();
    let form = ("content-type", "multipart/form-data; boundary=b");
    let cases: [(&[Header], &[u8], &str); 4] = [
        (&[], &long, "incomplete"),
        (&[], &short, "not_utf8"),
        (&[form], &twice, "ambiguous"),
        (&[("content-encoding", "lz4")], b"\x04\x22\x4d\x18 what this is nobody knows", "encoding"),
    ];
    for (headers, body, cause) in cases {
        let mut exchange = capped();
        let effects = sent(&mut exchange, headers, body, true);
        let denial = denial(&effects).unwrap_or_else(|| panic!("{cause}: {effects:?}"));
        assert_eq!(denial.status, 400, "{cause}");
        let body: Value = serde_json::from_slice(&denial.body).unwrap();
        assert_eq!(body["error"]["type"], "invalid_request_error", "{cause}");
        assert!(counts(&effects).contains(&format!("weir_invalid_requests.cause.{cause}")), "{effects:?}");
        assert!(
            !effects.iter().any(|effect| matches!(effect, Effect::Reserve(_) | Effect::Resume)),
            "{effects:?}"
        );
        assert!(exchange.is_over());
    }
}

#[test]
fn what_need_not_be_changed_is_not_refused() {
    let bodies = [
        utf16(r#"{"messages":"hi","max_tokens":5}"#),
        format!(r#"{{"max_tokens":5,"messages":"{}"}}"#, "x".repeat(2 * MOST)).into_bytes(),
        b"{\"messages\":\"no end".to_vec(),
        b"no json".to_vec(),
    ];
    for body in bodies {
        let effects = sent(&mut capped(), &[], &body, true);
        assert_eq!(denial(&effects), None, "{}", String::from_utf8_lossy(&body));
        assert!(held(&effects) >= 5);
    }
    // A dry run never refuses.
    let limit = json!({
        "rates": [{ "limit": 10_000, "window": "1h" }], "outputCap": "Inject", "enforceWhen": "false"
    });
    let mut exchange = exchange(BodyAccess::Buffer(MOST), &limit);
    let streaming = utf16(r#"{"messages":"hi","stream":true}"#);
    assert_eq!(denial(&sent(&mut exchange, &[], &streaming, true)), None);
}

#[test]
fn a_stream_in_utf_16_is_refused_and_half_of_one_goes_on_without_its_usage() {
    let access = BodyAccess::Buffer(MOST);
    let effects = sent(&mut tokens(access), &[], &utf16(r#"{"stream":true,"messages":"hi"}"#), true);
    assert_eq!(denial(&effects).map(|denial| denial.status), Some(400));
    let effects = sent(&mut tokens(access), &[], &utf16(r#"{"messages":"hi"}"#), true);
    assert_eq!(denial(&effects), None);
    let long = format!(r#"{{"stream":true,"messages":"{}"}}"#, "x".repeat(2 * MOST));
    let effects = sent(&mut tokens(access), &[("content-length", "40000")], long.as_bytes(), false);
    assert_eq!(held(&effects), 20_000);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Edit(_) | Effect::Deny(_))), "{effects:?}");
}

#[test]
fn a_get_has_its_body_read_unless_it_is_a_web_socket() {
    let body = json!({ "model": "m", "messages": "x".repeat(400), "max_tokens": 50 }).to_string();
    for method in ["GET", "DELETE", "HEAD", "OPTIONS", "POST"] {
        let effects =
            sent(&mut tokens(BodyAccess::Buffer(MOST)), &[(":method", method)], body.as_bytes(), true);
        assert_eq!(held(&effects), 150, "{method}");
    }
    let length = body.len().to_string();
    let upgrades: [(&[(&str, &str)], u64); 3] = [
        (&[(":method", "GET"), ("upgrade", "websocket")], 1),
        (&[(":method", "CONNECT")], 1),
        (&[(":method", "GET"), ("upgrade", "websocket"), ("content-length", &length)], 1000),
    ];
    for (headers, least) in upgrades {
        let mut exchange = tokens(BodyAccess::Buffer(MOST));
        let effects = exchange.handle(Event::Request { facts: facts(headers), bodiless: false });
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::AwaitBody(_))), "{effects:?}");
        assert!(held(&effects) >= least, "{headers:?}: {effects:?}");
    }
}

#[test]
fn a_body_that_nobody_reads_is_charged_by_what_has_passed() {
    for (headers, passed, expected) in [
        (&[][..], 320_000u64, 80_003u64),
        (&[("content-length", "400")], 400, 103),
        (&[("content-length", "400")], 40_000, 10_003),
        (&[], 0, 3),
    ] {
        let mut exchange = tokens(BodyAccess::None);
        let effects = exchange.handle(Event::Request { facts: facts(headers), bodiless: false });
        assert!(held(&effects) >= 1);
        assert!(exchange.counts_request_body());
        assert_eq!(exchange.handle(Event::RequestPassed(passed / 2)), []);
        admit(&mut exchange);
        assert_eq!(exchange.handle(Event::RequestPassed(passed)), []);
        let head =
            ResponseHead { status: 200, content_type: "application/json".into(), ..ResponseHead::default() };
        exchange.handle(Event::Response(head));
        let answer = br#"{"choices":[{"message":{"content":"twelve chars"}}]}"#;
        assert_eq!(charged(&exchange.handle(Event::Body { chunk: answer, end: true })), expected);
    }
    let mut exchange = tokens(BodyAccess::None);
    exchange.handle(Event::Request { facts: facts(&[]), bodiless: false });
    admit(&mut exchange);
    exchange.handle(Event::RequestPassed(4000));
    assert_eq!(charged(&exchange.handle(Event::Closed)), 1000, "the client went away");
}

#[test]
fn the_rest_of_a_body_that_is_cut_is_charged_and_that_of_one_that_was_read_is_not() {
    let long = format!(r#"{{"messages":"{}"}}"#, "x".repeat(2 * MOST));
    let mut exchange = tokens(BodyAccess::Buffer(MOST));
    sent(&mut exchange, &[], long.as_bytes(), false);
    assert!(exchange.counts_request_body());
    admit(&mut exchange);
    exchange.handle(Event::RequestPassed(40_000));
    assert_eq!(charged(&exchange.handle(Event::Closed)), 10_000);
    let mut exchange = tokens(BodyAccess::Buffer(MOST));
    sent(&mut exchange, &[], br#"{"messages":"hi"}"#, true);
    assert!(!exchange.counts_request_body());
}

#[test]
fn a_body_that_does_not_come_is_judged_by_its_headers() {
    for (headers, least) in [(&[][..], 1024), (&[("content-length", "40000")], 20_000)] {
        let mut exchange = tokens(BodyAccess::Buffer(100_000));
        exchange.handle(Event::Request { facts: facts(headers), bodiless: false });
        let effects = exchange.handle(Event::NoRequestBody);
        assert_eq!(held(&effects), least);
        assert!(counts(&effects).contains(&"weir_request_errors.cause.unread".to_owned()), "{effects:?}");
    }
    let limit = json!({
        "when": [{ "predicate": "request.path == '/elsewhere'" }], "rates": [{ "limit": 1, "window": "1h" }]
    });
    let mut exchange = exchange(BodyAccess::Buffer(MOST), &limit);
    assert_eq!(exchange.handle(Event::Request { facts: facts(&[]), bodiless: false }), []);
}
