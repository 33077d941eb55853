//! Weir together with Envoy AI Gateway's external processor, which translates between the client's API and the
//! provider's API. The tests cover both orders of the filters. The processor is a stand-in.

use e2e::ai_gateway::{AiGateway, MODEL};
use e2e::client::Request;
use e2e::jwt;
use e2e::wait;
use e2e::world::{Builder, World, per_user, policy};
use serde_json::{Value, json};

/// The order of the two filters.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// The processor runs before Weir.
    ProcessorFirst,
    /// Weir runs before the processor, as the documentation recommends.
    WeirFirst,
}
use Order::{ProcessorFirst, WeirFirst};

struct Both {
    world: World,
    processor: AiGateway,
}

impl Both {
    fn start(order: Order, limits: Value) -> Self {
        Self::start_with(order, json!({ "limits": limits }), |build| build)
    }

    fn start_with(order: Order, spec: Value, change: impl FnOnce(Builder) -> Builder) -> Self {
        let processor = AiGateway::start();
        let build = World::build().policy(&policy("llm", spec)).reading_bodies(1 << 20);
        let build = build.change(|config| processor.install(config, order == ProcessorFirst));
        Self { world: change(build).start(), processor }
    }

    /// Returns the last request that the provider received.
    fn forwarded(&self) -> Value {
        let seen = self.world.upstream.seen().pop().expect("the provider was called");
        assert_eq!(seen.path, "/v1/messages");
        serde_json::from_slice(&seen.body).expect("JSON")
    }

    fn reported(&self) -> u64 {
        self.world.upstream.seen().iter().map(|seen| seen.reported).sum()
    }

    /// Waits until this much is charged and nothing is held.
    fn charged(&self, used: u64) {
        self.world.adapter.wait_for_bucket("tokens", "tokens", "alice", used, 0);
    }
}

fn chat(body: &Value) -> Request {
    Request::post("/v1/chat/completions", body).token(&jwt::token(&json!({ "userid": "alice" })))
}

fn plain() -> Value {
    json!({ "model": "claude", "max_tokens": 12, "messages": [{ "role": "user", "content": "How does water run?" }] })
}

fn streamed() -> Value {
    let mut body = plain();
    body["stream"] = true.into();
    body
}

#[test]
fn a_whole_response_is_charged_as_reported_in_both_orders() {
    for order in [WeirFirst, ProcessorFirst] {
        let both = Both::start(order, json!({ "tokens": per_user(10_000) }));
        let answer = both.world.send(&chat(&plain()));
        assert_eq!((answer.status, &answer.json()["object"]), (200, &json!("chat.completion")));
        let told = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
        assert_eq!(told, both.reported());
        both.charged(told);
        assert_eq!(both.processor.chats(), 1);
    }
}

/// Returns a limit for which Weir edits requests: Weir requests the usage of streams and adds a maximum output.
fn edited() -> Value {
    json!({ "tokens": {
        "counters": [{ "expression": "auth.identity.userid" }], "outputCap": "Inject",
        "reservation": { "amount": "100" }, "rates": [{ "limit": 10_000, "window": "1h" }],
    } })
}

fn streamed_without_maximum() -> Value {
    let mut body = streamed();
    body.as_object_mut().unwrap().remove("max_tokens");
    body
}

#[test]
fn weir_s_edits_reach_the_provider_if_weir_is_first() {
    let both = Both::start(WeirFirst, edited());
    let answer = both.world.send(&chat(&streamed_without_maximum()));
    let text = answer.text();
    assert!(answer.status == 200 && text.contains("level.") && text.ends_with("data: [DONE]\n\n"), "{text}");
    // Weir requested the usage, and removes it from the response because the client did not request it.
    assert!(!text.contains("\"usage\""), "{text}");
    both.charged(both.reported());
    let cap = both.forwarded()["max_tokens"].as_u64().unwrap();
    assert!(cap <= 100, "{cap}");
}

#[test]
fn weir_s_edits_are_lost_if_the_processor_is_first() {
    let both = Both::start(ProcessorFirst, edited());
    let answer = both.world.send(&chat(&streamed_without_maximum()));
    let text = answer.text();
    assert!(answer.status == 200 && text.ends_with("data: [DONE]\n\n") && !text.contains("usage"), "{text}");
    assert_eq!(both.forwarded()["max_tokens"], 4096, "the translation's own default");
    // Weir sees the provider's original stream, which always reports its usage.
    both.charged(both.reported());
}

#[test]
fn a_refusal_speaks_the_client_s_api_and_costs_the_processor_nothing_if_weir_is_first() {
    for order in [WeirFirst, ProcessorFirst] {
        let both = Both::start(order, json!({ "tokens": per_user(110) }));
        let first = both.world.send(&chat(&plain()));
        assert_eq!(first.status, 200, "{}", first.text());
        both.charged(both.reported());
        let refused = both.world.send(&chat(&plain()));
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded", "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        assert_eq!(both.world.upstream.calls(), 1);
        assert_eq!(both.processor.chats(), if order == WeirFirst { 1 } else { 2 });
    }
}

/// The processor's header is available only after the processor. Before it, `llm.model` has the same value.
#[test]
fn the_processor_s_header_is_a_fact_after_it_alone() {
    let limit = |predicate: &str| {
        let mut limit = per_user(10_000);
        limit["when"] = json!([{ "predicate": predicate }]);
        limit
    };
    let header = format!("request.headers['{MODEL}'] == 'claude'");
    for (order, by_header) in [(WeirFirst, false), (ProcessorFirst, true)] {
        let limits = json!({ "tokens": limit("llm.model == 'claude'"), "header": limit(&header) });
        let both = Both::start(order, limits);
        assert_eq!(both.world.send(&chat(&plain())).status, 200);
        both.charged(both.reported());
        let counted = both.world.adapter.counters().iter().any(|counter| counter.limit == "header");
        assert_eq!(counted, by_header);
    }
}

#[test]
fn long_bodies_pass_in_both_orders() {
    for order in [WeirFirst, ProcessorFirst] {
        let both = Both::start(order, json!({ "tokens": per_user(1_000_000) }));
        let mut body = plain();
        body["messages"][0]["content"] = "water ".repeat(50_000).into();
        let answer = both.world.send(&chat(&body));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(both.forwarded()["messages"], body["messages"]);
        both.charged(both.reported());
    }
}

/// Nothing remains held if the client disconnects or the processor is unavailable.
#[test]
fn every_hold_ends() {
    for order in [WeirFirst, ProcessorFirst] {
        let limits = json!({
            "tokens": per_user(10_000),
            "at-once": { "counters": [{ "expression": "auth.identity.userid" }],
                "rates": [{ "limit": 5, "unit": "concurrency" }] },
        });
        let both = Both::start(order, limits);
        let mut slow = streamed();
        slow["messages"][0]["content"] = "slowly".into();
        let mut begun = both.world.open(&chat(&slow));
        assert_eq!(begun.head().start[1], "200");
        both.world.adapter.wait_for_bucket("at-once", "concurrency", "alice", 0, 1);
        begun.hang_up();
        both.world.adapter.wait_for_bucket("at-once", "concurrency", "alice", 0, 0);

        let used = || both.world.adapter.counters().iter().map(|counter| counter.used).sum::<u64>();
        let before = used();
        let Both { world, processor } = both;
        drop(processor);
        wait::until("the processor to be away", || (world.send(&chat(&plain())).status >= 500).then_some(()));
        world.adapter.wait_for_bucket("at-once", "concurrency", "alice", 0, 0);
        wait::until("nothing to be held", || {
            world.adapter.counters().iter().all(|counter| counter.held == 0).then_some(())
        });
        let charged = world.adapter.counters().iter().map(|counter| counter.used).sum::<u64>() - before;
        assert_eq!(charged, 0, "a call that failed costs nothing");
    }
}
