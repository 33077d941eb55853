//! Shared parts of the targets: facts, policies, exchanges, and input in pieces.

pub mod hold;
pub mod reading;

use engine::exchange::{ActivePlan, Event, Exchange, ReservationId};
use expression::facts::Facts;
use policy::model::Policy;
use policy::plan::BodyAccess;
use policy::plan::Plan;
use serde_json::json;
use std::sync::Arc;

/// Returns the facts of a plausible request.
pub fn facts() -> Facts {
    let mut facts = Facts::default();
    let headers = [
        (":path", "/v1/chat/completions?a=b"),
        (":method", "POST"),
        (":authority", "llm.example"),
        ("content-length", "560"),
        ("x-tenant", "blue"),
    ];
    for (name, value) in headers {
        facts.header(name, value.as_bytes());
    }
    let address = ["source".to_owned(), "address".to_owned()];
    facts.property(&address, b"[2001:db8::1]:4711");
    let annotations = json!({ "kuadrant.io/groups": "free,gold" });
    facts.auth(json!({ "identity": {
        "userid": "alice",
        "age": 7,
        "admin": false,
        "groups": ["free", "gold"],
        "metadata": { "annotations": annotations }
    } }));
    facts.estimate(140, 1024);
    facts
}

/// Splits bytes into pieces, each of which begins with its length.
pub struct Pieces<'a>(pub &'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        self.0 = rest;
        Some(piece)
    }
}

thread_local! {
    static PLAN: Arc<Plan> = Arc::new(Plan::new(vec![policy()]).with_body(BodyAccess::Buffer(1 << 16)));
}

/// A policy with a limit of each unit that applies to [`facts`].
fn policy() -> Policy {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "TokenRateLimitPolicy",
        "metadata": { "namespace": "default", "name": "tokens" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway" },
            "limits": { "free": {
                "when": [{ "predicate": "auth.identity.groups.exists(g, g == 'free')" }],
                "counters": [{ "expression": "auth.identity.userid" }],
                "rates": [
                    { "limit": 20000, "window": "24h" },
                    { "limit": 10, "window": "1m", "unit": "requests" }
                ]
            } }
        }
    });
    Policy::read(&document).expect("the policy is right")
}

/// Creates an exchange under that policy.
pub fn exchange() -> Exchange {
    let plan = ActivePlan::Plan(PLAN.with(Arc::clone));
    Exchange::new(plan, ReservationId { prefix: "fuzz".into(), number: 1 })
}

/// Creates an exchange whose request waits for the adapter.
pub fn waiting() -> Exchange {
    let mut exchange = exchange();
    exchange.handle(Event::Request { facts: facts(), bodiless: false });
    exchange.handle(Event::RequestBody { body: b"{}", end: true });
    exchange
}
