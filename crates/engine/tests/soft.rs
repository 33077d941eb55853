//! Soft limits: what they signal, and that they never refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::refusal::HeaderList;
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::call::{self, CallFailure};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{DescriptorStatus, ReserveRequest, ReserveResponse};
use serde_json::{Value, json};
use std::sync::Arc;

fn policy(limits: &Value, failure_mode: &str) -> Policy {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "failureMode": failure_mode, "limits": limits,
        },
    });
    Policy::read(&document).expect("a good policy")
}

fn soft(name: &str, value: &str) -> Value {
    json!({
        "boundary": "Soft", "softSignal": {"headers": [{"name": name, "value": value}]},
        "reservation": {"amount": "10"}, "rates": [{"limit": 100, "window": "1h"}],
    })
}

/// Sends a request under this policy, and the adapter's reply. Each status has the rate's code, and whether
/// the rate is exceeded.
fn asked(policy: Policy, reply: Result<&[(Code, bool)], CallFailure>) -> (Exchange, Vec<Effect>) {
    let plan = ActivePlan::Plan(Arc::new(Plan::new(vec![policy])));
    let mut exchange = Exchange::new(plan, ReservationId { prefix: "w".into(), number: 1 });
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header("content-length", b"400");
    exchange.handle(Event::Request { facts, bodiless: false });
    let reply = reply.map(|statuses| {
        let code = if statuses.iter().any(|(code, _)| *code == Code::OverLimit) {
            Code::OverLimit
        } else {
            Code::Ok
        };
        let status = |(code, exceeded): &(Code, bool)| DescriptorStatus {
            code: (*code).into(),
            limit: 100,
            exceeded: *exceeded,
            ..DescriptorStatus::default()
        };
        let statuses = statuses.iter().map(status).collect();
        ReserveResponse { code: code.into(), reservation_id: String::new(), statuses, lease: None }
            .encode_to_vec()
    });
    let effects = exchange.handle(Event::Reply(match &reply {
        Ok(reply) => call::reply(Ok(reply)),
        Err(failure) => Err(*failure),
    }));
    (exchange, effects)
}

/// Returns the signal headers of the request if it is forwarded.
fn signalled(effects: &[Effect]) -> Option<HeaderList> {
    let signal = effects.iter().position(|effect| matches!(effect, Effect::Signal(_)));
    let resume = effects.iter().position(|effect| *effect == Effect::Resume)?;
    assert!(signal.is_none_or(|signal| signal < resume), "{effects:?}");
    Some(match signal.map(|signal| &effects[signal]) {
        Some(Effect::Signal(headers)) => headers.clone(),
        _ => HeaderList::new(),
    })
}

fn pairs(headers: &HeaderList) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect()
}

/// Returns the headers that are set on a response with this status.
fn answered(exchange: &mut Exchange, status: u16) -> HeaderList {
    let effects = exchange.handle(Event::Response(ResponseHead { status, ..ResponseHead::default() }));
    let headers = effects.into_iter().find_map(|effect| match effect {
        Effect::SetHeaders(headers) => Some(headers),
        _ => None,
    });
    headers.unwrap_or_default()
}

#[test]
fn only_what_is_exceeded_is_signalled_and_the_first_of_two_values_applies() {
    let limits = json!({ "a": soft("x-a", "1"), "b": soft("x-b", "1"), "c": soft("x-a", "2") });
    let table = [
        ([false, false, false], &[][..]),
        ([true, false, false], &[("x-a", "1")]),
        ([false, true, true], &[("x-b", "1"), ("x-a", "2")]),
        ([true, false, true], &[("x-a", "1")]),
        ([true, true, true], &[("x-a", "1"), ("x-b", "1")]),
    ];
    for (exceeded, wanted) in table {
        let statuses = exceeded.map(|exceeded| (Code::Ok, exceeded));
        let (mut exchange, effects) = asked(policy(&limits, "Allow"), Ok(&statuses));
        assert_eq!(pairs(&signalled(&effects).unwrap()), wanted, "{exceeded:?}");
        let count = effects.iter().filter(|effect| format!("{effect:?}").contains("SoftExceeded")).count();
        assert_eq!(count, exceeded.iter().filter(|exceeded| **exceeded).count());
        // Responses contain nothing else about soft limits. A provider's own refusal carries the signal, too.
        assert_eq!(pairs(&answered(&mut exchange, 429)), wanted, "{exceeded:?}");
    }
}

#[test]
fn an_old_adapter_s_reply_signals_nothing() {
    let limits = json!({ "a": soft("x-a", "1") });
    for statuses in [&[][..], &[(Code::Unknown, false)]] {
        let (_, effects) = asked(policy(&limits, "Deny"), Ok(statuses));
        assert_eq!(signalled(&effects), Some(HeaderList::new()));
    }
}

#[test]
fn a_soft_limit_refuses_nothing_while_the_adapter_is_away() {
    for (mode, wanted) in [("Allow", &[][..]), ("Deny", &[("x-a", "1")])] {
        let (mut exchange, effects) =
            asked(policy(&json!({ "a": soft("x-a", "1") }), mode), Err(CallFailure::Timeout));
        assert_eq!(pairs(&signalled(&effects).unwrap()), wanted, "{mode}");
        assert_eq!(pairs(&answered(&mut exchange, 200)), wanted, "{mode}");
    }
    let hard = json!({ "a": soft("x-a", "1"), "b": { "rates": [{"limit": 100, "window": "1h"}] } });
    let (_, effects) = asked(policy(&hard, "Deny"), Err(CallFailure::Timeout));
    assert!(matches!(effects.last(), Some(Effect::Deny(denial)) if denial.status == 503), "{effects:?}");
}

#[test]
fn a_refusal_of_another_limit_carries_the_signal() {
    let limits = json!({ "a": soft("x-a", "1"), "b": { "reservation": {"amount": "1"}, "rates": [{"limit": 100, "window": "1h"}] } });
    let (_, effects) = asked(policy(&limits, "Allow"), Ok(&[(Code::Ok, true), (Code::OverLimit, false)]));
    let Some(Effect::Deny(denial)) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(denial.status, 429);
    assert!(pairs(&denial.headers).contains(&("x-a", "1")), "{denial:?}");
}

#[test]
fn one_that_holds_more_than_its_share_carries_the_signal() {
    let mut limit = soft("x-a", "1");
    limit["reservation"]["maxShare"] = "5%".into();
    let (_, effects) = asked(policy(&json!({ "a": limit }), "Allow"), Ok(&[(Code::Ok, false)]));
    assert_eq!(pairs(&signalled(&effects).unwrap()), [("x-a", "1")]);
}

#[test]
fn a_limit_that_is_not_enforced_signals_nothing() {
    let mut limit = soft("x-a", "1");
    limit["enforceWhen"] = "false".into();
    let (_, effects) = asked(policy(&json!({ "a": limit }), "Deny"), Ok(&[(Code::Ok, true)]));
    assert_eq!(signalled(&effects), Some(HeaderList::new()));
}

#[test]
fn a_maximum_that_is_no_number_refuses_nothing() {
    let mut limit = soft("x-a", "1");
    limit["rates"] = json!([{ "limitFrom": "request.headers['x-max']", "window": "1h" }]);
    let plan = Plan::new(vec![policy(&json!({ "a": limit }), "Deny")]);
    let mut exchange =
        Exchange::new(ActivePlan::Plan(Arc::new(plan)), ReservationId { prefix: "w".into(), number: 1 });
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header("x-max", b"many");
    let effects = exchange.handle(Event::Request { facts, bodiless: false });
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Count(_))), "{effects:?}");
}

/// If the body names two models, a hard limit refuses the request, and a soft limit uses the highest price.
#[test]
fn a_body_that_contradicts_itself_is_not_refused() {
    for (boundary, refused) in [("Hard", true), ("Soft", false)] {
        let document = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
            "spec": {
                "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
                "prices": [{"model": "cheap", "input": "1", "output": "1"}, {"model": "*", "input": "900", "output": "900"}],
                "limits": {"a": {"boundary": boundary, "rates": [{"limit": 1, "window": "1h", "unit": "usd"}]}},
            },
        });
        let plan = Plan::new(vec![Policy::read(&document).unwrap()]).with_body(BodyAccess::Buffer(1 << 16));
        let mut exchange =
            Exchange::new(ActivePlan::Plan(Arc::new(plan)), ReservationId { prefix: "w".into(), number: 1 });
        let mut facts = Facts::default();
        facts.header(":path", b"/v1/chat/completions");
        facts.header("content-type", b"application/json");
        exchange.handle(Event::Request { facts, bodiless: false });
        let body = br#"{"model": "cheap", "model": "dear", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}"#;
        let effects = exchange.handle(Event::RequestBody { body, end: true });
        assert_eq!(matches!(effects.last(), Some(Effect::Deny(_))), refused, "{effects:?}");
        if let Some(Effect::Reserve(call)) = effects.last() {
            let call = ReserveRequest::decode(call.as_slice()).unwrap();
            assert!(call.amount >= 900 * 10, "the highest price applies: {call:?}");
            assert!(call.descriptors.iter().all(|one| one.unenforced));
        }
    }
}
