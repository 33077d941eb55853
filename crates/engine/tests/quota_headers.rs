//! The headers that show the state of limits: Anthropic's own, and `quotaHeaders`, which hides a policy's
//! limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::refusal::{Denial, HeaderList};
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::Plan;
use prost::Message;
use protocol::call;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{DescriptorStatus, ReserveResponse};
use serde_json::{Value, json};
use std::sync::Arc;

/// 2026-11-28T09:30:00Z.
const NOW: u64 = 1_795_858_200_000;

fn policy(name: &str, on_exceeded: &Value) -> Policy {
    let rate = |limit: u64, unit: &str| json!({ "limit": limit, "window": "1h", "unit": unit });
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": name },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" },
            "onExceeded": on_exceeded,
            "limits": { name: { "reservation": { "amount": "1" }, "rates": [
                rate(1000, "tokens"), rate(500, "inputTokens"), rate(5, "requests"),
            ] } },
        },
    });
    Policy::read(&document).expect("a good policy")
}

fn reserved(
    policies: Vec<Policy>,
    path: &str,
    code: Code,
    statuses: &[(Code, u64, u64)],
) -> (Exchange, Vec<Effect>) {
    let plan = ActivePlan::Plan(Arc::new(Plan::new(policies)));
    let mut exchange = Exchange::new(plan, ReservationId { prefix: "w".into(), number: 1 });
    let mut facts = Facts::default();
    facts.header(":path", path.as_bytes());
    facts.header("content-length", b"400");
    exchange.handle(Event::Request { facts, bodiless: false });
    let status = |(code, limit, remaining): &(Code, u64, u64)| DescriptorStatus {
        code: (*code).into(),
        limit: *limit,
        remaining: *remaining,
        reset_ms: 90_000,
        ..DescriptorStatus::default()
    };
    let statuses = statuses.iter().map(status).collect();
    let reply = ReserveResponse { code: code.into(), reservation_id: String::new(), statuses, lease: None };
    exchange.answered_at(NOW);
    let effects = exchange.handle(Event::Reply(call::reply(Ok(&reply.encode_to_vec()))));
    (exchange, effects)
}

/// The headers of the response to an admitted request.
fn told(policies: Vec<Policy>, path: &str, statuses: &[(Code, u64, u64)]) -> HeaderList {
    let (mut exchange, _) = reserved(policies, path, Code::Ok, statuses);
    let head = ResponseHead { status: 200, ..ResponseHead::default() };
    let effects = exchange.handle(Event::Response(head));
    let headers = effects.into_iter().find_map(|effect| match effect {
        Effect::SetHeaders(headers) => Some(headers),
        _ => None,
    });
    headers.unwrap_or_default()
}

fn denial(path: &str, statuses: &[(Code, u64, u64)]) -> Denial {
    let (_, mut effects) = reserved(vec![policy("p", &json!({}))], path, Code::OverLimit, statuses);
    let Some(Effect::Deny(denial)) = effects.pop() else { panic!("{effects:?}") };
    denial
}

fn header<'a>(headers: &'a HeaderList, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

const ROOM: [(Code, u64, u64); 3] = [(Code::Ok, 1000, 900), (Code::Ok, 500, 450), (Code::Ok, 5, 4)];
const OVER: [(Code, u64, u64); 3] = [(Code::OverLimit, 1000, 0), (Code::Ok, 500, 450), (Code::Ok, 5, 4)];

#[test]
fn anthropic_s_clients_read_anthropic_s_headers() {
    for headers in
        [told(vec![policy("p", &json!({}))], "/v1/messages", &ROOM), denial("/v1/messages", &OVER).headers]
    {
        for (name, limit) in [("tokens", "1000"), ("input-tokens", "500"), ("requests", "5")] {
            let value = |part: &str| header(&headers, &format!("anthropic-ratelimit-{name}-{part}"));
            assert_eq!(value("limit"), Some(limit), "{headers:?}");
            assert!(value("remaining").is_some(), "{headers:?}");
            assert_eq!(value("reset"), Some("2026-11-28T09:31:30Z"), "{headers:?}");
        }
        assert_eq!(header(&headers, "anthropic-ratelimit-output-tokens-limit"), None, "no rate counts them");
        assert_eq!(header(&headers, "x-ratelimit-limit-tokens"), Some("1000"));
    }
}

#[test]
fn others_are_not_told_in_anthropic_s_words() {
    let headers = told(vec![policy("p", &json!({}))], "/v1/chat/completions", &ROOM);
    assert!(headers.iter().all(|(name, _)| !name.starts_with("anthropic-")), "{headers:?}");
}

#[test]
fn a_policy_keeps_its_quotas_to_itself() {
    let both = |quota: &str| {
        let policies = vec![policy("open", &json!({})), policy("shy", &json!({ "quotaHeaders": quota }))];
        let headers = told(
            policies,
            "/v1/chat/completions",
            &[ROOM, OVER.map(|(_, max, left)| (Code::Ok, max, left))].concat(),
        );
        let listed = header(&headers, "ratelimit").unwrap_or_default().matches("shy").count();
        (header(&headers, "x-ratelimit-remaining-tokens").map(str::to_owned), listed)
    };
    assert_eq!(both("All"), (Some("0".to_owned()), 3));
    assert_eq!(both("Constrained"), (Some("0".to_owned()), 1));
    assert_eq!(both("None"), (Some("900".to_owned()), 0));
}

#[test]
fn a_limit_of_nothing_is_not_too_large_a_request() {
    let denial = denial("/v1/messages", &[(Code::OverLimit, 0, 0), (Code::Ok, 500, 450), (Code::Ok, 5, 4)]);
    let body: Value = serde_json::from_slice(&denial.body).expect("it is JSON");
    let message = "Limit p of policy default/p allows no tokens. Retrying does not help.";
    assert_eq!(body["error"]["message"], message);
    assert_eq!(header(&denial.headers, "x-should-retry"), Some("false"));
}

#[test]
fn codex_is_told_in_words_that_it_prints() {
    let denial = denial("/v1/responses", &OVER);
    assert!(denial.is_long());
    let told = denial.clone().for_codex();
    let body: Value = serde_json::from_slice(&told.body).expect("it is JSON");
    assert_eq!(body["error"]["type"], "usage_limit_reached");
    assert_eq!(body["error"]["resets_in_seconds"], 90);
    let words = header(&told.headers, "x-codex-promo-message").expect("it has words");
    assert!(words.contains("limit p of policy") && !words.ends_with('.'), "{words}");
    assert_eq!(told.status, 429);
    let own = Denial { body: b"Sorry".to_vec(), ..denial };
    assert_eq!(own.clone().for_codex(), own, "a body of the policy's own stays");
}
