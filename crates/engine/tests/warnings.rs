//! `x-ratelimit-warning`: the limits that are nearly used up. And what the adapter needs to warn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::outbox::{CommitRoute, Outbox};
use engine::refusal::HeaderList;
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::Plan;
use prost::Message;
use protocol::call;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, DescriptorStatus, ReserveResponse};
use serde_json::{Value, json};
use std::sync::Arc;

fn policy(limits: &Value, on_exceeded: &Value) -> Policy {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "p" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" },
            "onExceeded": on_exceeded, "limits": limits,
        },
    });
    Policy::read(&document).expect("a good policy")
}

fn limit(warn_at: &[&str]) -> Value {
    json!({ "warnAt": warn_at, "reservation": { "amount": "1" }, "rates": [{ "limit": 1000, "window": "1h" }] })
}

/// Sends a request. The adapter answers with (maximum, used) of each rate; `None` if it does not tell what is
/// used.
fn reserved(policy: Policy, code: Code, statuses: &[(u64, Option<u64>)]) -> (Exchange, Vec<Effect>) {
    let plan = ActivePlan::Plan(Arc::new(Plan::new(vec![policy])));
    let mut exchange = Exchange::new(plan, ReservationId { prefix: "w".into(), number: 1 });
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header("content-length", b"400");
    facts.header("x-budget", b"500");
    exchange.handle(Event::Request { facts, bodiless: false });
    let status = |(limit, used): &(u64, Option<u64>)| DescriptorStatus {
        code: code.into(),
        limit: *limit,
        used: *used,
        reset_ms: 90_000,
        ..DescriptorStatus::default()
    };
    let statuses = statuses.iter().map(status).collect();
    let reply = ReserveResponse { code: code.into(), reservation_id: String::new(), statuses, lease: None };
    let effects = exchange.handle(Event::Reply(call::reply(Ok(&reply.encode_to_vec()))));
    (exchange, effects)
}

fn warning(headers: &HeaderList) -> Option<&str> {
    headers.iter().find(|(name, _)| name == "x-ratelimit-warning").map(|(_, value)| value.as_str())
}

/// Returns the warning of the response with this status.
fn answered(policy: Policy, status: u16, statuses: &[(u64, Option<u64>)]) -> Option<String> {
    let (mut exchange, _) = reserved(policy, Code::Ok, statuses);
    let effects = exchange.handle(Event::Response(ResponseHead { status, ..ResponseHead::default() }));
    effects.iter().find_map(|effect| match effect {
        Effect::SetHeaders(headers) => warning(headers).map(str::to_owned),
        _ => None,
    })
}

#[test]
fn the_highest_threshold_that_is_reached_is_shown() {
    for (max, used, shown) in [
        (1000, Some(499), None),
        (1000, Some(500), Some("free;at=50%")),
        (1000, Some(799), Some("free;at=50%")),
        (1000, Some(800), Some("free;at=80%")),
        (1000, Some(u64::MAX), Some("free;at=80%")),
        // An operator's grant raises the maximum.
        (2000, Some(999), None),
        (0, Some(0), None),
        (1000, None, None),
    ] {
        let policy = policy(&json!({ "free": limit(&["80%", "50%"]) }), &json!({}));
        assert_eq!(answered(policy, 200, &[(max, used)]).as_deref(), shown, "{max} {used:?}");
    }
}

#[test]
fn each_limit_is_shown_once_and_eight_at_most() {
    let rates =
        json!([{ "limit": 1000, "window": "1h" }, { "limit": 9, "window": "1h", "unit": "requests" }]);
    let two = json!({ "warnAt": ["50%", "80%"], "reservation": { "amount": "1" }, "rates": rates });
    let policy_of = |limits: &Value| policy(limits, &json!({}));
    let both = policy_of(&json!({ "b": two, "a": limit(&["50%"]) }));
    let shown = answered(both, 200, &[(1000, Some(500)), (1000, Some(500)), (9, Some(8))]);
    assert_eq!(shown.as_deref(), Some("b;at=80%, a;at=50%"));
    let names: Vec<String> = (0..12).map(|number| format!("n{number:02}")).collect();
    let many: serde_json::Map<_, _> =
        names.iter().map(|name| (name.clone(), limit(&["50%", "90%"]))).collect();
    let statuses: Vec<_> = (0..12).map(|number| (1000, Some(if number == 11 { 950 } else { 600 }))).collect();
    let shown = answered(policy_of(&Value::Object(many)), 200, &statuses).unwrap();
    let members: Vec<_> = shown.split(", ").collect();
    assert_eq!((members.len(), members[0], members[7]), (8, "n11;at=90%", "n06;at=50%"));
}

#[test]
fn refusals_and_the_provider_s_own_refusals_have_it() {
    let policy = || policy(&json!({ "free": limit(&["50%"]) }), &json!({}));
    let (_, effects) = reserved(policy(), Code::OverLimit, &[(1000, Some(1000))]);
    let Some(Effect::Deny(denial)) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(warning(&denial.headers), Some("free;at=50%"));
    assert_eq!(answered(policy(), 429, &[(1000, Some(500))]).as_deref(), Some("free;at=50%"));
}

#[test]
fn what_clients_may_not_know_is_not_shown() {
    let free = json!({ "free": limit(&["50%"]) });
    for (quota, shown) in [("All", Some("free;at=50%")), ("Constrained", Some("free;at=50%")), ("None", None)]
    {
        let policy = policy(&free, &json!({ "quotaHeaders": quota }));
        assert_eq!(answered(policy, 200, &[(1000, Some(900))]).as_deref(), shown, "{quota}");
    }
    for (field, value, shown) in [("enforceWhen", "false", None), ("boundary", "Soft", Some("free;at=50%"))] {
        let mut limit = limit(&["50%"]);
        limit[field] = json!(value);
        let policy = policy(&json!({ "free": limit }), &json!({}));
        assert_eq!(answered(policy, 200, &[(1000, Some(900))]).as_deref(), shown, "{field}");
    }
}

/// Returns the maximum in the commit of a request that was not answered.
fn committed_max(limit: &Value) -> Option<u64> {
    let policy = policy(&json!({ "free": limit }), &json!({}));
    let (mut exchange, _) = reserved(policy, Code::Ok, &[(500, Some(0))]);
    let effects = exchange.handle(Event::Closed);
    let mut outbox = Outbox::new(usize::MAX);
    for effect in effects {
        if let Effect::Commit(settlement) = effect {
            outbox.push(settlement);
        }
    }
    let call = outbox.send(CommitRoute::Unary, 0).expect("a commit");
    CommitRequest::decode(&*call.message).unwrap().descriptors[0].max
}

#[test]
fn a_commit_tells_a_maximum_only_if_the_adapter_needs_it() {
    let from = json!([{ "limitFrom": "int(request.headers['x-budget'])", "window": "1h" }]);
    let dynamic = json!({ "warnAt": ["50%"], "reservation": { "amount": "1" }, "rates": from });
    let silent = json!({ "reservation": { "amount": "1" }, "rates": from });
    assert_eq!(committed_max(&dynamic), Some(500));
    assert_eq!(committed_max(&silent), None);
    assert_eq!(committed_max(&limit(&["50%"])), None);
}
