//! Computes what a request holds under a limit that it never reaches.

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use expression::facts::Facts;
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveRequest;
use serde_json::{Value, json};
use std::sync::Arc;

const PATHS: &[&str] = &[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1beta/models/g:generateContent",
    "/model/m/converse",
    "/model/m/invoke",
    "/v1/chat",
    "/v2/chat",
    "/v2/rerank",
    "/api/chat",
    "/api/generate",
    "/completion",
    "/ask",
];

/// A content-encoding and a content-type. The encodings are never correct.
const LABELS: &[(&str, &str)] = &[
    ("", "application/json"),
    ("gzip", "application/json"),
    ("br", "application/json"),
    ("zstd", "application/json"),
    ("deflate", "application/json"),
    ("GZIP", "text/plain"),
    ("gzip, br", ""),
    ("snappy", "application/json"),
    ("", "multipart/form-data; boundary=x"),
    ("", "application/x-www-form-urlencoded"),
    ("identity", "application/json; charset=utf-16"),
];

thread_local! {
    static PLAN: Arc<Plan> = Arc::new(Plan::new(vec![policy()]).with_body(BodyAccess::Buffer(1 << 20)));
}

fn policy() -> Policy {
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway" });
    let rates = json!([{ "limit": 1u64 << 60, "window": "24h" }]);
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "TokenRateLimitPolicy",
        "metadata": { "namespace": "default", "name": "tokens" },
        "spec": { "targetRef": target, "limits": { "all": { "rates": rates } } }
    });
    Policy::read(&document).expect("the policy is right")
}

/// Returns how many tokens a POST of this body holds, or `None` if it is refused. The numbers select the path
/// and the labels.
pub fn held(path: u8, label: u8, body: &[u8]) -> Option<u64> {
    let (encoding, content_type) = LABELS[usize::from(label) % LABELS.len()];
    let mut facts = Facts::default();
    let length = body.len().to_string();
    let headers = [
        (":path", chosen(path)),
        (":method", "POST"),
        ("content-length", &length),
        ("content-encoding", encoding),
        ("content-type", content_type),
    ];
    for (name, value) in headers {
        if !value.is_empty() {
            facts.header(name, value.as_bytes());
        }
    }
    let plan = ActivePlan::Plan(PLAN.with(Arc::clone));
    let mut exchange = Exchange::new(plan, ReservationId { prefix: "fuzz".into(), number: 1 });
    let bodiless = body.is_empty();
    let mut effects = exchange.handle(Event::Request { facts, bodiless });
    if effects.iter().any(|effect| matches!(effect, Effect::AwaitBody(_))) {
        effects = exchange.handle(Event::RequestBody { body, end: true });
    }
    if effects.iter().any(|effect| matches!(effect, Effect::Deny(_))) {
        return None;
    }
    let call = effects.iter().find_map(|effect| match effect {
        Effect::Reserve(call) => ReserveRequest::decode(call.as_slice()).ok(),
        _ => None,
    });
    Some(call.map_or(0, |call| call.amount))
}

/// Returns the maximum output that the client requests, or 0 if the path does not determine the field.
pub fn output(path: u8, body: &Value) -> u64 {
    let name = match chosen(path) {
        "/v1/chat/completions" | "/v1/completions" | "/v1/messages" | "/v1/chat" | "/v2/chat" => "max_tokens",
        "/v1/responses" => "max_output_tokens",
        _ => return 0,
    };
    body.get(name).and_then(Value::as_u64).filter(|most| *most <= 1 << 53).unwrap_or(0)
}

fn chosen(path: u8) -> &'static str {
    PATHS[usize::from(path) % PATHS.len()]
}
