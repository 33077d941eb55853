//! What one exchange costs the core, from the request's facts to the settlement, in nanoseconds: the best of some
//! rounds. `cargo bench -p policy --bench exchange`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use policy::config::Encoding;
use policy::exchange::{Effect, Event, Exchange, InForce, ReservationId};
use policy::facts::Facts;
use policy::identity;
use policy::meter::ResponseHead;
use policy::model::Policy;
use policy::plan::Plan;
use policy::wire::kuadrant::service::ratelimit::v1::{DescriptorStatus, ReserveRequest, ReserveResponse};
use prost::Message;
use serde_json::{Map, Value, json};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: u32 = 500;
const TIMES: u32 = 200;
const IDENTITY: &str =
    r#"{"iss":"https://idp.example","userid":"alice","group":"free","exp":1900000000,"aud":["llm"]}"#;
const ANSWER: &[u8] =
    br#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":
    {"role":"assistant","content":"A weir is a low wall across a river."},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":20,"completion_tokens":30,"total_tokens":50}}"#;

fn measure<T>(name: &str, mut what: impl FnMut() -> T) {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..TIMES {
            black_box(what());
        }
        start.elapsed().as_nanos() / u128::from(TIMES)
    };
    println!("{:>8} ns  {name}", (0..ROUNDS).map(round).min().unwrap_or_default());
}

/// So many limits that are alike, for this path and group.
fn plan(limits: usize, path: &str, group: &str) -> Arc<Plan> {
    let limit = json!({
        "when": [
            {"predicate": format!("request.path == {path:?}")},
            {"predicate": format!("auth.identity.group == {group:?}")},
        ],
        "counters": [{"expression": "auth.identity.userid"}],
        "rates": [{"limit": 1_000_000, "window": "24h"}],
    });
    let limits: Map<String, Value> =
        (0..limits).map(|number| (format!("free-{number}"), limit.clone())).collect();
    let policy = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": limits,
        },
    });
    Arc::new(Plan::new(vec![Policy::read(&policy).unwrap()]))
}

/// As the filter drives it.
fn exchange(plan: &Arc<Plan>, reply: &ReserveResponse, prefix: &Arc<str>) {
    let id = ReservationId { prefix: prefix.clone(), number: 10 };
    let mut exchange = Exchange::new(InForce::Plan(plan.clone()), id);
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    if exchange.further_needs(&facts).is_none() {
        return;
    }
    facts.header("content-length", b"560");
    facts.auth(identity::from_header(IDENTITY.as_bytes(), Encoding::Json).unwrap());
    black_box(exchange.handle(Event::Request { facts, bodiless: false }));
    if exchange.is_over() {
        return;
    }
    black_box(exchange.handle(Event::Reply(Ok(reply.clone()))));
    let head =
        ResponseHead { status: 200, content_type: "application/json".into(), ..ResponseHead::default() };
    black_box(exchange.handle(Event::Response(&head)));
    black_box(exchange.handle(Event::Body { chunk: ANSWER, end: true }));
}

/// What an adapter with room would answer.
fn reply(plan: &Arc<Plan>) -> ReserveResponse {
    let mut exchange =
        Exchange::new(InForce::Plan(plan.clone()), ReservationId { prefix: "w".into(), number: 1 });
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.auth(identity::from_header(IDENTITY.as_bytes(), Encoding::Json).unwrap());
    let effects = exchange.handle(Event::Request { facts, bodiless: false });
    let reserve = effects.iter().find_map(|effect| match effect {
        Effect::Reserve(call) => Some(ReserveRequest::decode(&**call).unwrap()),
        _ => None,
    });
    let status = DescriptorStatus { code: 1, limit: 1_000_000, remaining: 900_000, reset_ms: 80_000_000 };
    let statuses = vec![status; reserve.map_or(0, |reserve| reserve.descriptors.len())];
    ReserveResponse { code: 1, reservation_id: "0123456789abcdef0123456789abcdef-1".into(), statuses }
}

fn main() {
    let prefix: Arc<str> = "0123456789abcdef0123456789abcdef".into();
    let cases = [
        ("no limit for the path", plan(1, "/v1/embeddings", "free")),
        ("no limit for who is asking", plan(1, "/v1/chat/completions", "gold")),
        ("one limit", plan(1, "/v1/chat/completions", "free")),
        ("eight limits", plan(8, "/v1/chat/completions", "free")),
    ];
    measure("the identity alone", || identity::from_header(IDENTITY.as_bytes(), Encoding::Json).unwrap());
    for (name, plan) in cases {
        let reply = reply(&plan);
        measure(name, || exchange(&plan, &reply, &prefix));
    }
}
