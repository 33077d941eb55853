//! How the hold of a stream grows while it is delivered.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::outbox::{CommitRoute, Outbox, Raise};
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::call;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveRequest, ReserveResponse};
use serde_json::{Value, json};
use std::sync::Arc;

/// Plays a stream under a limit of output tokens with these fields. Returns what it holds at first, and how many tokens
/// are delivered and held at each raise.
fn raises(limit: &Value, request: &Value, tokens: usize) -> (u64, Vec<(usize, u64)>) {
    let mut limit = limit.clone();
    limit["rates"] = json!([{ "limit": 1_000_000, "window": "1h", "unit": "outputTokens" }]);
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "p" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" },
            "limits": { "all": limit },
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]);
    let plan = ActivePlan::Plan(Arc::new(plan.with_body(BodyAccess::Buffer(1 << 20))));
    let mut exchange = Exchange::new(plan, ReservationId { prefix: "w".into(), number: 1 });
    let body = request.to_string();
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header("content-length", body.len().to_string().as_bytes());
    exchange.handle(Event::Request { facts, bodiless: false });
    let effects = exchange.handle(Event::RequestBody { body: body.as_bytes(), end: true });
    let amount =
        |message: &[u8]| ReserveRequest::decode(message).unwrap().descriptors[0].hits_addend.unwrap();
    let held = effects.iter().find_map(|effect| match effect {
        Effect::Reserve(message) => Some(amount(message)),
        _ => None,
    });
    let reply = ReserveResponse { code: Code::Ok.into(), ..ReserveResponse::default() }.encode_to_vec();
    exchange.handle(Event::Reply(call::reply(Ok(&reply))));
    let head =
        ResponseHead { status: 200, content_type: "text/event-stream".into(), ..ResponseHead::default() };
    exchange.handle(Event::Response(head));
    let mut raises = Vec::new();
    for delivered in (10..=tokens).step_by(10) {
        let event =
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "a".repeat(40));
        for effect in exchange.handle(Event::Body { chunk: event.as_bytes(), end: false }) {
            if let Effect::Raise(raise) = effect {
                raises.push((delivered, raised(raise)));
            }
        }
    }
    (held.expect("a reserve"), raises)
}

fn raised(raise: Raise) -> u64 {
    let mut outbox = Outbox::new(1 << 10);
    assert!(outbox.raise(raise));
    let call = outbox.send(CommitRoute::Stream, 0).expect("a call");
    let request = CommitRequest::decode(&*call.message).unwrap();
    request.raised[0].descriptors[0].hits_addend.unwrap()
}

fn chat(more: Value) -> Value {
    let mut chat =
        json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
    chat.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    chat
}

#[test]
fn a_hold_is_always_larger_than_what_was_delivered() {
    let (held, raises) = raises(&json!({}), &chat(json!({})), 5000);
    assert_eq!(held, 1024);
    let mut last = held;
    for (delivered, raised) in &raises {
        assert!(*delivered as u64 <= last, "{raises:?}");
        assert_eq!(*raised, 2 * *delivered as u64, "{raises:?}");
        last = *raised;
    }
    assert!(last >= 5000 && raises.len() <= 5, "{raises:?}");
}

#[test]
fn a_hold_grows_beyond_a_client_s_maximum_only_if_the_provider_ignores_it() {
    let maximum = chat(json!({ "max_tokens": 1000 }));
    assert_eq!(raises(&json!({}), &maximum, 1000), (1000, Vec::new()));
    let (_, ignored) = raises(&json!({}), &maximum, 2000);
    assert!(!ignored.is_empty() && ignored[0].1 == 2 * ignored[0].0 as u64, "{ignored:?}");
    // The maximum is also the most that an amount of the policy grows to.
    let given = json!({ "reservation": { "amount": "1" } });
    let (held, raised) = raises(&given, &chat(json!({ "max_tokens": 300 })), 300);
    assert_eq!((held, raised.last().map(|(_, amount)| *amount)), (1, Some(300)), "{raised:?}");
}

#[test]
fn a_hold_that_may_cut_the_stream_grows_to_what_was_delivered() {
    let (_, raises) = raises(&json!({ "overrun": "Cut" }), &chat(json!({})), 5000);
    assert!(!raises.is_empty());
    assert!(raises.iter().all(|(delivered, raised)| *raised == *delivered as u64), "{raises:?}");
}
