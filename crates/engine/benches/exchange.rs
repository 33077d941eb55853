//! Measures what one exchange costs the core, from the request's facts to the settlement, in nanoseconds.
//! Reports the best of several rounds. Run `cargo bench -p engine --bench exchange`, or add `-- NAME` for the
//! cases with this text in their names.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../llm/benches/timer/mod.rs"]
mod timer;

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::leases::Leases;
use expression::facts::{Facts, Need};
use expression::identity;
use expression::identity::IdentityEncoding;
use llm::memory::MemoryBudget;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::Plan;
use prost::Message;
use protocol::wire::kuadrant::service::ratelimit::v1::{
    DescriptorStatus, GrantedLease, ReserveRequest, ReserveResponse,
};
use serde_json::{Map, Value, json};
use std::hint::black_box;
use std::sync::Arc;

const IDENTITY: &str =
    r#"{"iss":"https://idp.example","userid":"alice","group":"free","exp":1900000000,"aud":["llm"]}"#;
const ANSWER: &[u8] =
    br#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":
    {"role":"assistant","content":"A weir is a low wall across a river."},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":20,"completion_tokens":30,"total_tokens":50}}"#;

/// The default memory of a VM, in bytes.
const MEMORY: usize = 128 << 20;

fn measure<T>(name: &str, what: impl FnMut() -> T) {
    println!("{:>8.0} ns  {name}", timer::best(200, what));
}

/// Builds a plan with this many equal limits for this path and group.
fn plan(limits: usize, path: &str, group: &str) -> Arc<Plan> {
    Arc::new(Plan::new(vec![policy(limits, path, group)]))
}

/// Without a path, the limit applies to every path.
fn policy(limits: usize, path: &str, group: &str) -> Policy {
    let path = (!path.is_empty()).then(|| json!({"predicate": format!("request.path == {path:?}")}));
    let group = json!({"predicate": format!("auth.identity.group == {group:?}")});
    let limit = json!({
        "when": path.into_iter().chain([group]).collect::<Vec<_>>(),
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
    Policy::read(&policy).unwrap()
}

/// Builds a plan with one limit for the path and a thousand policies for other paths or other groups.
fn among_others(by_path: bool, own: &str) -> Arc<Plan> {
    let others = (0..1_000).map(|number| match by_path {
        true => policy(1, &format!("/team-{number}/v1/chat/completions"), "free"),
        false => policy(1, "", &format!("team-{number}")),
    });
    let own = policy(1, own, "free");
    Arc::new(Plan::new(others.chain([own]).collect()))
}

/// Plays one exchange as the filter does. Without a reply, it is admitted from a lease.
fn exchange(plan: &Arc<Plan>, leases: &Leases, reply: Option<&ReserveResponse>, prefix: &Arc<str>) {
    let id = ReservationId { prefix: prefix.clone(), number: 10 };
    let in_force = ActivePlan::Plan(plan.clone());
    let mut facts = Facts::default();
    let concerned = in_force.rounds().iter().all(|round| {
        for need in round.needs() {
            match need {
                Need::Header(name) if name == ":path" => facts.header(name, b"/v1/chat/completions"),
                Need::Header(name) => facts.header(name, b"560"),
                _ => facts.auth(identity::from_header(IDENTITY.as_bytes(), IdentityEncoding::Json).unwrap()),
            }
        }
        round.is_open(&facts)
    });
    if !concerned {
        return;
    }
    let mut exchange = Exchange::new(in_force, id).leasing(leases);
    let effects = black_box(exchange.handle(Event::Request { facts, bodiless: false }));
    assert!(reply.is_some() || !effects.iter().any(|effect| matches!(effect, Effect::Reserve(_))));
    if exchange.is_over() {
        return;
    }
    if let Some(reply) = reply {
        black_box(exchange.handle(Event::Reply(Ok(reply.clone()))));
    }
    let head =
        ResponseHead { status: 200, content_type: "application/json".into(), ..ResponseHead::default() };
    black_box(exchange.handle(Event::Response(head)));
    black_box(exchange.handle(Event::Body { chunk: ANSWER, end: true }));
}

/// Builds a reply that admits the request.
fn reply(plan: &Arc<Plan>) -> ReserveResponse {
    let mut exchange =
        Exchange::new(ActivePlan::Plan(plan.clone()), ReservationId { prefix: "w".into(), number: 1 });
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.auth(identity::from_header(IDENTITY.as_bytes(), IdentityEncoding::Json).unwrap());
    let effects = exchange.handle(Event::Request { facts, bodiless: false });
    let reserve = effects.iter().find_map(|effect| match effect {
        Effect::Reserve(call) => Some(ReserveRequest::decode(&**call).unwrap()),
        _ => None,
    });
    let status = DescriptorStatus {
        code: 1,
        limit: 1_000_000,
        remaining: 900_000,
        reset_ms: 80_000_000,
        ..DescriptorStatus::default()
    };
    let statuses = vec![status; reserve.map_or(0, |reserve| reserve.descriptors.len())];
    ReserveResponse {
        code: 1,
        reservation_id: "0123456789abcdef0123456789abcdef-1".into(),
        statuses,
        lease: None,
    }
}

/// Returns the leases of a worker with a lease for each of these users.
fn leased(plan: &Plan, users: impl Iterator<Item = String>, memory: &MemoryBudget) -> Leases {
    let leases = Leases::new(&"0123456789abcdef0123456789abcdef".into(), memory);
    for user in users {
        let mut facts = Facts::default();
        facts.header(":path", b"/v1/chat/completions");
        facts.header("content-length", b"560");
        let identity = IDENTITY.replace("alice", &user);
        facts.auth(identity::from_header(identity.as_bytes(), IdentityEncoding::Json).unwrap());
        let holds = plan.judge(&mut facts, false).holds;
        (0..16).for_each(|number| assert!(leases.admit(number, &holds).is_none()));
        let mut number = 1_000_000;
        let calls = leases.calls(0, || {
            number += 1;
            number
        });
        for call in calls {
            let granted = ReserveResponse {
                code: 1,
                statuses: vec![DescriptorStatus::default()],
                lease: Some(GrantedLease { amount: u64::MAX, ttl_ms: 10_000, counter: 7 }),
                ..ReserveResponse::default()
            };
            assert!(leases.answered(call.number, Ok(granted), 0).is_none());
        }
    }
    leases
}

fn main() {
    let prefix: Arc<str> = "0123456789abcdef0123456789abcdef".into();
    let cases = [
        ("no limit for the path", plan(1, "/v1/embeddings", "free")),
        ("no limit for who is asking", plan(1, "/v1/chat/completions", "gold")),
        ("one limit", plan(1, "/v1/chat/completions", "free")),
        ("eight limits", plan(8, "/v1/chat/completions", "free")),
        ("one limit, and a thousand for other paths", among_others(true, "/v1/chat/completions")),
        ("one limit, and a thousand for other groups", among_others(false, "/v1/chat/completions")),
        ("a thousand limits for other paths", among_others(true, "/elsewhere")),
    ];
    measure("the identity alone", || {
        identity::from_header(IDENTITY.as_bytes(), IdentityEncoding::Json).unwrap()
    });
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, plan) in cases {
        if !wanted.iter().all(|part| name.contains(part.as_str())) {
            continue;
        }
        let reply = reply(&plan);
        measure(name, || exchange(&plan, &Leases::default(), Some(&reply), &prefix));
    }
    let plan = plan(1, "/v1/chat/completions", "free");
    let memory = MemoryBudget::new(MEMORY);
    let leases = leased(&plan, std::iter::once("alice".to_owned()), &memory);
    measure("one limit, admitted from a lease", || exchange(&plan, &leases, None, &prefix));
    let memory = MemoryBudget::new(MEMORY);
    let leases = leased(&plan, (0..1_000).map(|number| format!("user-{number}")), &memory);
    println!("{:>8} bytes of the memory budget for each leased bucket", memory.used() / leases.len());
}
