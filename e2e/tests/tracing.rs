//! Weir's spans in the traces of a real Envoy, with the configuration of `docs/tracing.md`.

use e2e::adapter::Adapter;
use e2e::artefacts;
use e2e::client::Request;
use e2e::collector::{CollectedSpan, Collector};
use e2e::envoy::Config;
use e2e::jwt;
use e2e::readme;
use e2e::upstream::Answer;
use e2e::wait;
use e2e::world::{World, per_user, policy};
use serde_json::{Value, json};

/// The kind of a span that serves a call, and of one that stands for work inside a process.
const SERVER: i32 = 2;
const INTERNAL: i32 = 1;

/// Starts a world in which Envoy and the adapter send their spans to this collector.
fn start(collector: &Collector, own_spans: bool) -> World {
    let endpoint = format!("http://{}", collector.address());
    let tracing = ["--otlp-endpoint", &endpoint, "--otlp-protocol", "grpc"];
    let spec = json!({ "limits": { "tokens": per_user(1_000) } });
    let adapter = Adapter::start_as(&[policy("llm", spec)], &tracing);
    let world =
        World::build().reading_bodies(1 << 20).plugin(|plugin| plugin["gateway"] = "default/gateway".into());
    let world = world.change(|config| {
        if own_spans {
            trace(config, collector);
        }
    });
    world.start_with(adapter)
}

/// Adds the tracer and the filter of the page.
fn trace(config: &mut Config, collector: &Collector) {
    let page = artefacts::root().join("docs/tracing.md");
    let block = |title: &str| -> Value {
        let block = readme::blocks(&page, &format!("yaml title=\"{title}\"")).remove(0);
        serde_saphyr::from_str(&block).expect("it is YAML")
    };
    config.typed(".HttpConnectionManager")["tracing"] = block("tracing of the HttpConnectionManager");
    let filters = config.filters();
    let weir = filters.iter().position(|filter| filter["name"] == "weir").expect("there is Weir's filter");
    filters.insert(weir, block("an HTTP filter before Weir's"));
    let mut cluster = config.named_cluster("limitador-adapter");
    cluster["name"] = "collector".into();
    cluster["load_assignment"]["cluster_name"] = "collector".into();
    config.add_cluster(cluster);
    config.cluster("collector", collector.address());
}

fn chat(user: &str) -> Request {
    Request::chat(50).token(&jwt::token(&json!({ "userid": user })))
}

fn streamed(user: &str) -> Request {
    let message = json!({ "role": "user", "content": "How does water run?" });
    let body = json!({ "model": "m", "max_tokens": 50, "stream": true, "messages": [message] });
    Request::post("/v1/chat/completions", &body).token(&jwt::token(&json!({ "userid": user })))
}

fn parent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-b7ad6b7169203331-{flags}")
}

/// A trace id that ends in this digit.
fn trace_id(digit: char) -> String {
    format!("0af7651916cd43dd8448eb211c80319{digit}")
}

/// The adapter's span of a decision in this trace.
fn decision(collector: &Collector, trace: &str) -> CollectedSpan {
    collector.wait_for("the decision's span", |span| {
        span.trace == trace && span.kind == SERVER && span.service == "limitador-adapter"
    })
}

/// The adapter's span of an exchange in this trace.
fn exchange(collector: &Collector, trace: &str) -> CollectedSpan {
    collector.wait_for("the exchange's span", |span| span.trace == trace && span.kind == INTERNAL)
}

/// Envoy's span of a request in this trace.
fn of_envoy(collector: &Collector, trace: &str) -> CollectedSpan {
    collector.wait_for("Envoy's span", |span| {
        span.trace == trace && span.service == "gateway" && span.kind == SERVER
    })
}

#[test]
fn the_spans_of_envoy_and_weir_are_one_trace() {
    let collector = Collector::start();
    let world = start(&collector, true);
    let usage = json!({ "prompt_tokens": 20, "completion_tokens": 22, "total_tokens": 42,
        "prompt_tokens_details": { "cached_tokens": 8 }, "completion_tokens_details": { "reasoning_tokens": 7 } });
    let answer = json!({ "choices": [{ "message": { "content": "hello" } }], "usage": usage });
    world.upstream.on("whole", Answer::json(200, &answer));

    // A trace that Envoy starts.
    assert_eq!(world.send(&chat("alice").answered_by("whole")).status, 200);
    let envoy = collector.wait_for("Envoy's span", |span| span.service == "gateway");
    assert_eq!(envoy.kind, SERVER);
    let (asked, settled) = (decision(&collector, &envoy.trace), exchange(&collector, &envoy.trace));
    assert_eq!([&asked.parent, &settled.parent], [&envoy.id, &envoy.id]);
    assert_eq!(asked.attributes["weir.decision"], "allowed");
    assert_eq!(asked.attributes["rpc.system.name"], "grpc");
    assert_eq!(asked.attributes["rpc.response.status_code"], "OK");
    assert_eq!(asked.attributes["rpc.method"], asked.name.as_str());
    let (name, limit) = &asked.events[0];
    let known =
        ["weir.policy.name", "weir.limit.name", "weir.limit.unit", "weir.limit.held", "weir.limit.max"];
    assert_eq!(name, "weir.limit");
    assert_eq!(
        known.map(|key| &limit[key]),
        [&json!("default/llm"), &json!("tokens"), &json!("tokens"), &json!(100), &json!(1000)]
    );
    assert_eq!(settled.name, "chat gpt-4o");
    let expected = json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.stream": false,
        "gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 22, "weir.usage.total_tokens": 42,
        "gen_ai.usage.cache_read.input_tokens": 8, "gen_ai.usage.reasoning.output_tokens": 7,
        "weir.status": "ok", "weir.usage.source": "reported", "weir.gateway": "default/gateway", "weir.route": "llm",
        "weir.reservation.id": asked.attributes["weir.reservation.id"],
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&settled.attributes[name], value, "{name}");
    }
    assert_eq!(settled.events[0].1["weir.limit.charged"], 42);
    assert!(settled.times.0 <= asked.times.1 && asked.times.0 <= asked.times.1, "{settled:?} {asked:?}");

    // A stream in a trace that the client has started.
    let stream = trace_id('1');
    assert_eq!(world.send(&streamed("bob").header("traceparent", parent(&stream, "01"))).status, 200);
    let envoy = of_envoy(&collector, &stream);
    assert_eq!(envoy.parent, "b7ad6b7169203331");
    let (asked, settled) = (decision(&collector, &stream), exchange(&collector, &stream));
    assert_eq!([&asked.parent, &settled.parent], [&envoy.id, &envoy.id]);
    assert_eq!(settled.attributes["gen_ai.request.stream"], true);
    assert!(settled.attributes["gen_ai.response.time_to_first_chunk"].is_f64());

    // A refusal.
    world.upstream.on("all", Answer::used(1_000));
    assert_eq!(world.send(&chat("carol").answered_by("all")).status, 200);
    world.adapter.wait_for_bucket("tokens", "tokens", "carol", 1_000, 0);
    let refused = trace_id('2');
    assert_eq!(world.send(&chat("carol").header("traceparent", parent(&refused, "01"))).status, 429);
    let envoy = of_envoy(&collector, &refused);
    let asked = decision(&collector, &refused);
    assert_eq!(asked.parent, envoy.id);
    assert_eq!(asked.attributes["weir.decision"], "refused");
    assert_eq!(asked.attributes["weir.refused_by"], json!(["default/llm/tokens"]));
    assert_eq!(asked.events[0].1["weir.limit.held"], 0);

    // A trace that its client does not sample. The request after it shows that nothing is on its way.
    let (unsampled, after) = (trace_id('3'), trace_id('4'));
    for (trace, flags) in [(&unsampled, "00"), (&after, "01")] {
        assert_eq!(world.send(&chat("dave").header("traceparent", parent(trace, flags))).status, 200);
    }
    exchange(&collector, &after);
    let all = collector.all();
    assert!(all.iter().all(|span| span.trace != unsampled), "{all:#?}");
    assert!(all.iter().all(|span| span.trace != refused || span.kind != INTERNAL), "{all:#?}");

    // Nobody is named.
    let weir: Vec<_> = all.iter().filter(|span| span.service == "limitador-adapter").collect();
    let text = format!("{weir:?}");
    assert!(["alice", "bob", "carol", "dave"].iter().all(|user| !text.contains(user)), "{text}");
    // The adapter counts spans when it has the collector's answer.
    wait::until("the count of exported spans", || {
        let exported = world.adapter.metric("weir_spans_total", &["outcome=\"exported\""]);
        (exported >= weir.len() as f64).then_some(())
    });
}

/// Without the filter that names Envoy's span, the client's own trace is continued.
#[test]
fn a_client_s_trace_needs_no_tracer_in_envoy() {
    let collector = Collector::start();
    let world = start(&collector, false);
    let trace = trace_id('5');
    // Neither a request without a trace nor one with a malformed trace is disturbed.
    for header in [None, Some("00-xyz"), Some(&*format!("{0},{0}", parent(&trace, "01")))] {
        let request = chat("alice");
        let request = match header {
            Some(header) => request.header("traceparent", header),
            None => request,
        };
        assert_eq!(world.send(&request).status, 200);
    }
    let request = chat("alice").header("traceparent", parent(&trace, "01")).header("tracestate", "vendor=1");
    assert_eq!(world.send(&request).status, 200);
    let (asked, settled) = (decision(&collector, &trace), exchange(&collector, &trace));
    assert_eq!([asked.parent.as_str(), settled.parent.as_str()], ["b7ad6b7169203331"; 2]);
    assert_eq!(collector.all().len(), 2, "{:#?}", collector.all());
    assert_eq!(world.envoy.stat("wasmcustom.weir_usage_records_dropped"), 0);
}

/// A collector that is away harms nothing, and is found again.
#[test]
fn requests_pass_while_the_collector_is_away() {
    let collector = Collector::start();
    let (port, world) = (collector.address().port(), start(&collector, false));
    drop(collector);
    let request = |digit| chat("alice").header("traceparent", parent(&trace_id(digit), "01"));
    assert_eq!(world.send(&request('6')).status, 200);
    wait::until("lost spans", || {
        (world.adapter.metric("weir_spans_total", &["outcome=\"failed\""]) >= 2.0).then_some(())
    });
    assert!(world.adapter.log().contains("spans cannot be exported"), "{}", world.adapter.log());
    let collector = Collector::start_on(port);
    assert_eq!(world.send(&request('7')).status, 200);
    exchange(&collector, &trace_id('7'));
}
