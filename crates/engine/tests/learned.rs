//! What a request without a maximum of its own holds, after the responses to earlier ones.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::{BodyAccess, LearnedOutputs, Plan};
use prost::Message;
use protocol::call;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{ReserveRequest, ReserveResponse};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The responses after which a worker uses what it has learned.
const ENOUGH: usize = 32;
/// What a request without a maximum holds before, and the least that it holds afterwards.
const FLOOR: u64 = 1024;
const LEAST: u64 = FLOOR / 4;

/// A worker with a plan that allows a million output tokens in the limits `free`, `given` (with an amount), `capped` (with an
/// output cap) and `costly` (with a `cost`), each for requests that name it in `x-limit` or name `all`.
struct Worker {
    outputs: LearnedOutputs,
    plan: ActivePlan,
}

impl Worker {
    fn new() -> Self {
        let outputs = LearnedOutputs::default();
        Self { plan: plan(&outputs), outputs }
    }

    /// Replaces the plan by an equal one.
    fn reload(&mut self) {
        self.plan = plan(&self.outputs);
    }

    /// Sends a request, and returns what each limit holds for it. Then `respond` plays the response.
    fn send(
        &self,
        limit: &str,
        request: &Value,
        respond: impl FnOnce(&mut Exchange),
    ) -> BTreeMap<String, u64> {
        self.send_to("/v1/chat/completions", limit, request, respond)
    }

    fn send_to(
        &self,
        path: &str,
        limit: &str,
        request: &Value,
        respond: impl FnOnce(&mut Exchange),
    ) -> BTreeMap<String, u64> {
        let mut exchange = Exchange::new(self.plan.clone(), ReservationId { prefix: "w".into(), number: 1 });
        let body = request.to_string();
        let mut facts = Facts::default();
        facts.header(":path", path.as_bytes());
        facts.header("content-length", body.len().to_string().as_bytes());
        facts.header("x-limit", limit.as_bytes());
        exchange.handle(Event::Request { facts, bodiless: false });
        let effects = exchange.handle(Event::RequestBody { body: body.as_bytes(), end: true });
        let reserve = effects.iter().find_map(|effect| match effect {
            Effect::Reserve(call) => Some(ReserveRequest::decode(&**call).unwrap()),
            _ => None,
        });
        let held = reserve.expect("a reserve").descriptors.into_iter().map(|descriptor| {
            let limit = descriptor.entries[0].value.rsplit('/').next().unwrap().to_owned();
            (limit, descriptor.hits_addend.unwrap())
        });
        let held = held.collect();
        let reply = ReserveResponse { code: Code::Ok.into(), ..ReserveResponse::default() }.encode_to_vec();
        exchange.handle(Event::Reply(call::reply(Ok(&reply))));
        respond(&mut exchange);
        exchange.handle(Event::Closed);
        held
    }

    fn held(&self, limit: &str, request: &Value) -> u64 {
        self.send(limit, request, |_| {})[limit]
    }

    /// Completes this many exchanges in which the provider reports this output.
    fn teach(&self, count: usize, request: &Value, output: u64) {
        for _ in 0..count {
            self.send("all", request, |exchange| answer(exchange, 200, output, true));
        }
    }
}

fn plan(outputs: &LearnedOutputs) -> ActivePlan {
    let limit = |name: &str, more: Value| {
        let predicate =
            format!("request.headers['x-limit'] == '{name}' || request.headers['x-limit'] == 'all'");
        let mut limit = json!({
            "when": [{ "predicate": predicate }],
            "rates": [{ "limit": 1_000_000, "window": "1h", "unit": "outputTokens" }],
        });
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        limit
    };
    let cost = json!({ "rates": [
        { "limit": 1_000_000, "window": "1h", "cost": "usage.output * 2" },
    ] });
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "p" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" },
            "limits": {
                "free": limit("free", json!({})),
                "given": limit("given", json!({ "reservation": { "amount": "7" } })),
                "capped": limit("capped", json!({ "outputCap": "Inject" })),
                "costly": limit("costly", cost),
            },
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]);
    ActivePlan::Plan(Arc::new(plan.with_body(BodyAccess::Buffer(1 << 20)).learning(outputs.clone())))
}

fn answer(exchange: &mut Exchange, status: u16, output: u64, end: bool) {
    let head = ResponseHead { status, content_type: "application/json".into(), ..ResponseHead::default() };
    exchange.handle(Event::Response(head));
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": output, "total_tokens": output + 3 });
    let body = json!({ "choices": [{ "message": { "content": "hello" } }], "usage": usage }).to_string();
    exchange.handle(Event::Body { chunk: body.as_bytes(), end });
}

fn chat(more: Value) -> Value {
    let mut chat = json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": "hello, world" }] });
    chat.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    chat
}

#[test]
fn a_request_without_a_maximum_holds_what_such_requests_use() {
    let mut worker = Worker::new();
    let chat = chat(json!({}));
    worker.teach(ENOUGH - 1, &chat, 400);
    assert_eq!(worker.held("free", &chat), FLOOR);
    worker.teach(1, &chat, 400);
    assert_eq!(worker.held("free", &chat), 415);
    worker.reload();
    assert_eq!(worker.held("free", &chat), 415, "a new plan keeps what was learned");
    worker.teach(ENOUGH, &chat, 5000);
    assert_eq!(worker.held("free", &chat), 5119, "it also learns to hold more");
}

#[test]
fn each_limit_and_model_learns_for_itself() {
    let worker = Worker::new();
    for _ in 0..ENOUGH {
        worker.send("costly", &chat(json!({})), |exchange| answer(exchange, 200, 400, true));
    }
    assert_eq!(worker.held("costly", &chat(json!({}))), 2 * 415, "the cost of the learned output");
    assert_eq!(worker.held("free", &chat(json!({}))), FLOOR);
    assert_eq!(worker.held("costly", &chat(json!({ "model": "gpt-4o-mini" }))), 2 * FLOOR);
}

#[test]
fn a_maximum_an_amount_and_a_cap_are_held_as_before() {
    let worker = Worker::new();
    let before = worker.send("all", &chat(json!({})), |_| {});
    worker.teach(ENOUGH, &chat(json!({})), 400);
    let after = worker.send("all", &chat(json!({})), |_| {});
    assert_eq!(after["given"], 7);
    assert_eq!(
        after["capped"], before["capped"],
        "a cap must not cut responses at the length of earlier ones"
    );
    for maximum in [10, 3000] {
        assert_eq!(worker.held("free", &chat(json!({ "max_tokens": maximum }))), maximum);
        assert_eq!(worker.held("free", &chat(json!({ "max_tokens": maximum, "n": 2 }))), 2 * maximum);
    }
}

#[test]
fn several_completions_hold_and_teach_as_many_times() {
    let worker = Worker::new();
    worker.teach(ENOUGH, &chat(json!({ "n": 4 })), 1600);
    assert_eq!(worker.held("free", &chat(json!({}))), 415);
    assert_eq!(worker.held("free", &chat(json!({ "n": 4 }))), 4 * 415);
}

/// Otherwise, a user with long responses could keep others from their limits.
#[test]
fn a_learned_output_holds_at_most_an_eighth_of_the_limit() {
    let worker = Worker::new();
    worker.teach(ENOUGH, &chat(json!({})), 1_000_000);
    let held = worker.send("all", &chat(json!({})), |_| {});
    assert_eq!((held["free"], held["costly"]), (125_000, 125_000));
}

#[test]
fn short_outputs_do_not_make_a_hold_disappear() {
    let worker = Worker::new();
    worker.teach(10 * ENOUGH, &chat(json!({})), 1);
    assert_eq!(worker.held("free", &chat(json!({}))), LEAST);
    assert_eq!(worker.held("free", &chat(json!({ "model": "gpt-4o-mini" }))), FLOOR);
}

#[test]
fn only_a_complete_successful_reported_response_teaches() {
    let worker = Worker::new();
    let chat = chat(json!({}));
    for _ in 0..2 * ENOUGH {
        worker.send("all", &chat, |exchange| answer(exchange, 500, 1, true));
        worker.send("all", &chat, |exchange| answer(exchange, 200, 1, false));
        worker.send("all", &chat, |_| {});
        worker.send("all", &chat, |exchange| {
            let head = ResponseHead {
                status: 200,
                content_type: "application/json".into(),
                ..ResponseHead::default()
            };
            exchange.handle(Event::Response(head));
            let body = br#"{"choices":[{"message":{"content":"no usage"}}]}"#;
            exchange.handle(Event::Body { chunk: body, end: true });
        });
        // A client's maximum cuts responses short, so they do not show how long others are.
        let mut with_maximum = chat.clone();
        with_maximum["max_tokens"] = 1.into();
        worker.teach(1, &with_maximum, 1);
    }
    assert_eq!(worker.held("free", &chat), FLOOR);
}

/// A server may ignore a maximum: Ollama's OpenAI path does not know `max_completion_tokens`.
#[test]
fn a_maximum_that_a_response_has_exceeded_does_not_reduce_later_holds() {
    let worker = Worker::new();
    let ignored = chat(json!({ "max_completion_tokens": 1 }));
    worker.teach(ENOUGH, &ignored, 18);
    assert_eq!(worker.held("free", &ignored), 1, "servers count some tokens differently");
    worker.teach(1, &ignored, 900);
    assert_eq!(worker.held("free", &ignored), FLOOR, "as without a maximum");
    assert_eq!(worker.held("free", &chat(json!({ "max_completion_tokens": 3000 }))), 3000);
    let others = [
        json!({ "max_tokens": 1 }),
        json!({ "max_tokens": 1, "max_completion_tokens": 1 }),
        json!({ "max_completion_tokens": 1, "model": "gpt-4o-mini" }),
    ];
    for other in others {
        assert_eq!(worker.held("free", &chat(other)), 1, "other fields and models hold what they did");
    }
    assert_eq!(worker.send("all", &ignored, |_| {})["given"], 7);

    worker.teach(ENOUGH, &ignored, 900);
    assert_eq!(worker.held("free", &ignored), 959, "what such responses use");
    assert_eq!(worker.held("free", &chat(json!({ "max_completion_tokens": 1, "n": 2 }))), 2 * 959);
    worker.teach(10_000, &ignored, 1);
    assert_eq!(worker.held("free", &ignored), LEAST);
}

#[test]
fn responses_that_end_early_or_report_nothing_show_that_a_maximum_is_ignored() {
    let ignored = chat(json!({ "max_completion_tokens": 1 }));
    let text = json!({ "choices": [{ "message": { "content": "many words ".repeat(100) } }] }).to_string();
    let respond = |status: u16, end: bool| {
        let worker = Worker::new();
        worker.send("free", &ignored, |exchange| {
            let head =
                ResponseHead { status, content_type: "application/json".into(), ..ResponseHead::default() };
            exchange.handle(Event::Response(head));
            exchange.handle(Event::Body { chunk: text.as_bytes(), end });
        });
        worker.held("free", &ignored)
    };
    assert_eq!((respond(200, true), respond(200, false), respond(500, true)), (FLOOR, FLOOR, 1));
}

/// Otherwise, a client could use another unknown name in each request.
#[test]
fn an_estimate_does_not_show_that_a_maximum_is_ignored() {
    let worker = Worker::new();
    let own = json!({ "model": "m", "input": "hello", "max_output_tokens": 1 });
    let mut odd = own.clone();
    odd.as_object_mut().unwrap().extend([
        ("background".to_owned(), json!(true)),
        ("extra".to_owned(), json!({ "max_tokens": 50_000 })),
    ]);
    let held = |request: &Value| worker.send_to("/v1/responses", "free", request, |_| {})["free"];
    for leaves_early in [true, false] {
        worker.send_to("/v1/responses", "free", &odd, |exchange| {
            if !leaves_early {
                exchange.handle(Event::Response(ResponseHead { status: 200, ..ResponseHead::default() }));
            }
        });
        assert_eq!(held(&own), 1, "a client cannot make the holds of others grow");
    }
}

#[test]
fn an_unreadable_or_long_name_of_a_model_is_no_way_out() {
    for model in [json!(["a", "b"]), json!("m".repeat(1000))] {
        let worker = Worker::new();
        let ignored = chat(json!({ "model": model, "max_completion_tokens": 1 }));
        worker.teach(1, &ignored, 900);
        assert_eq!(worker.held("free", &ignored), FLOOR);
    }
}

#[test]
fn a_model_in_the_path_and_a_list_of_prompts_teach_as_well() {
    let worker = Worker::new();
    let gemini = |model: &str, respond: &dyn Fn(&mut Exchange)| {
        let body = json!({ "contents": [{ "parts": [{ "text": "hello, world" }] }] });
        let path = format!("/v1beta/models/{model}:generateContent");
        worker.send_to(&path, "free", &body, |exchange| respond(exchange))["free"]
    };
    for _ in 0..ENOUGH {
        gemini("gemini-3", &|exchange| answer(exchange, 200, 400, true));
    }
    assert_eq!((gemini("gemini-3", &|_| {}), gemini("gemini-2", &|_| {})), (415, FLOOR));

    let prompts = |prompts: Value, output: Option<u64>| {
        let body = json!({ "model": "m", "prompt": prompts });
        worker.send_to("/v1/completions", "free", &body, |exchange| {
            output.iter().for_each(|output| answer(exchange, 200, *output, true));
        })["free"]
    };
    for _ in 0..ENOUGH {
        prompts(json!(["one", "two"]), Some(800));
    }
    assert_eq!((prompts(json!(["one", "two"]), None), prompts(json!("one"), None)), (830, 415));
}
