//! The adapter's spans: what they contain, which requests have them, and what happens if nobody receives them.

use crate::server::{POLICY, Server, reserve, whole};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use e2e::collector::{CollectedSpan, Collector, collected};
use limitador_adapter::cli::{OtlpProtocol, SpanArgs, Storage};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveRequest;
use protocol::wire::weir::v1::{
    ChargedLimit, CounterValue, GetPlanRequest, ReserveAndCommitRequest, SettledUsage, TraceContext,
};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tonic::{Code, Request};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const NOON: u64 = 1_764_417_600_000;

fn trace(flags: &str) -> Option<TraceContext> {
    let parent = format!("00-{TRACE}-{CALLER}-{flags}");
    Some(TraceContext { parent, state: "vendor=1".to_owned() })
}

fn traced(id: &str, tokens: u64, flags: &str) -> ReserveRequest {
    ReserveRequest { trace: trace(flags), ..reserve(id, whole(tokens, 1)) }
}

async fn start(spans: SpanArgs) -> Server {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
    let mut config = Server::config(vec![folder.path().to_owned()], 100, Storage::Memory);
    config.spans = spans;
    Server::configured(folder, config).await
}

fn over_grpc(address: SocketAddr) -> SpanArgs {
    let otlp_endpoint = Some(format!("http://{address}"));
    SpanArgs { otlp_endpoint, otlp_protocol: OtlpProtocol::Grpc, span_counters: false }
}

/// Waits for this many spans. There must not be more.
async fn spans(collector: &Collector, count: usize) -> Vec<CollectedSpan> {
    let end = Instant::now() + crate::server::DEADLINE;
    loop {
        let spans = collector.all();
        assert!(spans.len() <= count && Instant::now() < end, "{count}: {spans:#?}");
        if spans.len() == count {
            return spans;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the spans with this outcome are as many as this.
async fn counted(server: &Server, outcome: &str, enough: f64) -> f64 {
    let end = Instant::now() + 3 * crate::server::DEADLINE;
    loop {
        let count = server.metric(&format!("weir_spans_total{{outcome=\"{outcome}\"}}")).await;
        if count >= enough {
            return count;
        }
        assert!(Instant::now() < end, "{outcome}: {count} of {enough}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A usage record that is only for the trace.
fn settled(id: &str) -> SettledUsage {
    let counter = CounterValue { expression: "auth.identity.userid".into(), value: "alice".into() };
    let limit = ChargedLimit {
        policy: "default/llm".into(),
        limit: "free".into(),
        unit: "tokens".into(),
        charged: 42,
        held: 100,
        counters: vec![counter],
    };
    SettledUsage {
        id: id.to_owned(),
        time_ms: NOON,
        limits: vec![limit],
        provider: "bedrock".into(),
        model: "m".into(),
        status: "ok".into(),
        source: "reported".into(),
        input: 20,
        cached: 8,
        cache_write: 4,
        output: 22,
        reasoning: 7,
        total: 42,
        micro_usd: Some(1_500_000),
        first_byte_ms: Some(250),
        duration_ms: Some(2000),
        trace: trace("01"),
        operation: "message".into(),
        stream: Some(true),
        for_trace: true,
        ..SettledUsage::default()
    }
}

#[tokio::test]
async fn a_decision_has_a_span_in_the_trace_of_its_request() {
    let collector = Collector::start();
    let server = start(over_grpc(collector.address())).await;
    let mut client = server.kuadrant();
    client.reserve(traced("allowed", 600, "01")).await.unwrap();
    let allowed = spans(&collector, 1).await.remove(0);
    assert_eq!((allowed.trace.as_str(), allowed.parent.as_str()), (TRACE, CALLER));
    let method = "kuadrant.service.ratelimit.v1.RateLimitService/Reserve";
    assert_eq!((allowed.name.as_str(), allowed.kind, allowed.is_error), (method, 2, false));
    assert_eq!(
        allowed.attributes,
        json!({
            "rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": "OK",
            "weir.reservation.id": "allowed", "weir.decision": "allowed",
        })
    );
    assert_eq!(allowed.events.len(), 3, "one for each rate");
    assert_eq!(
        allowed.events[0],
        (
            "weir.limit".to_owned(),
            json!({
                "weir.policy.name": "default/llm", "weir.limit.name": "free", "weir.limit.unit": "tokens",
                "weir.limit.window": "1h", "weir.limit.max": 1000, "weir.limit.used": 0, "weir.limit.remaining": 400,
                "weir.limit.needed": 600, "weir.limit.held": 600, "weir.limit.has_room": true,
                "weir.limit.enforced": true,
            })
        )
    );
    assert_eq!(allowed.resource["service.name"], "limitador-adapter");
    assert_eq!(allowed.resource["service.version"], env!("CARGO_PKG_VERSION"));

    // A refusal is no error: the adapter did what it is for.
    let refused = client.reserve(traced("refused", 600, "01")).await.unwrap();
    let span = spans(&collector, 2).await.remove(1);
    assert_eq!(refused.into_inner().code, 2);
    assert_eq!((&span.attributes["weir.decision"], span.is_error), (&json!("refused"), false));
    assert_eq!(span.attributes["weir.refused_by"], json!(["default/llm/free"]));
    let held = |event: &(String, Value)| event.1["weir.limit.held"].clone();
    assert_eq!(span.events.iter().map(held).collect::<Vec<_>>(), [0, 0, 0]);

    // A call that fails is one.
    let mut invalid = traced("invalid", 1, "01");
    invalid.descriptors = vec![invalid.descriptors[0].clone(); 5000];
    assert_eq!(client.reserve(invalid).await.unwrap_err().code(), Code::InvalidArgument);
    let span = spans(&collector, 3).await.remove(2);
    let attributes = [&span.attributes["rpc.response.status_code"], &span.attributes["error.type"]];
    assert_eq!((attributes, span.is_error), ([&json!("INVALID_ARGUMENT"); 2], true));
    let text = format!("{:?}", collector.all());
    assert!(!text.contains("alice"), "{text}");
}

#[tokio::test]
async fn the_trace_comes_with_the_message_or_in_the_metadata() {
    let collector = Collector::start();
    let server = start(over_grpc(collector.address())).await;
    // In a stream, each message has its own.
    let call =
        ReserveAndCommitRequest { number: 1, reserve: Some(traced("1", 1, "01")), ..Default::default() };
    let call = tokio_stream::iter([call]);
    let mut answers = server.reservations().reserve_and_commit(call).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let span = spans(&collector, 1).await.remove(0);
    assert_eq!(
        (span.name.as_str(), span.trace.as_str()),
        ("weir.v1.ReservationService/ReserveAndCommit", TRACE)
    );

    let mut call = Request::new(reserve("2", whole(1, 1)));
    let other = TRACE.replace('0', "1");
    call.metadata_mut().insert("traceparent", format!("00-{other}-{CALLER}-01").parse().unwrap());
    server.kuadrant().reserve(call).await.unwrap();
    let span = spans(&collector, 2).await.remove(1);
    assert_eq!((span.trace, span.parent.as_str()), (other, CALLER));
}

#[tokio::test]
async fn only_valid_and_sampled_traces_have_spans() {
    let collector = Collector::start();
    let server = start(over_grpc(collector.address())).await;
    let mut client = server.kuadrant();
    client.reserve(reserve("none", whole(1, 1))).await.unwrap();
    client.reserve(traced("unsampled", 1, "00")).await.unwrap();
    client.reserve(traced("malformed", 1, "1")).await.unwrap();
    let mut usage = server.usage();
    for trace in [None, trace("00"), trace("x")] {
        usage.record_usage(SettledUsage { trace, ..settled("1") }).await.unwrap();
    }
    usage.record_usage(settled("2")).await.unwrap();
    assert_eq!(spans(&collector, 1).await[0].attributes["weir.reservation.id"], "2");
}

#[tokio::test]
async fn an_exchange_has_a_span_with_its_usage() {
    let collector = Collector::start();
    let server = start(over_grpc(collector.address())).await;
    let call = SettledUsage {
        further: vec![SettledUsage {
            status: "upstream_error".into(),
            source: "none".into(),
            operation: "rerank".into(),
            provider: "cohere".into(),
            model: "x".repeat(1000),
            input: 0,
            output: 0,
            total: 0,
            cached: 0,
            cache_write: 0,
            reasoning: 0,
            micro_usd: None,
            stream: None,
            ..settled("2")
        }],
        ..settled("1")
    };
    assert_eq!(server.usage().record_usage(call).await.unwrap().into_inner().settled, 2);
    let [usual, failed] = <[_; 2]>::try_from(spans(&collector, 2).await).unwrap();
    assert_eq!((usual.trace.as_str(), usual.parent.as_str(), usual.kind), (TRACE, CALLER, 1));
    assert_eq!((usual.name.as_str(), usual.is_error), ("chat m", false));
    assert_eq!(usual.times, ((NOON - 2000) * 1_000_000, NOON * 1_000_000));
    assert_eq!(
        usual.attributes,
        json!({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "aws.bedrock", "gen_ai.request.model": "m",
            "gen_ai.request.stream": true, "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 22,
            "gen_ai.usage.cache_read.input_tokens": 8, "gen_ai.usage.cache_creation.input_tokens": 4,
            "gen_ai.usage.reasoning.output_tokens": 7, "weir.usage.total_tokens": 42,
            "weir.charged.usd": 1.5, "weir.status": "ok", "weir.usage.source": "reported",
            "weir.reservation.id": "1",
        })
    );
    assert_eq!(
        usual.events,
        [(
            "weir.limit".to_owned(),
            json!({
                "weir.policy.name": "default/llm", "weir.limit.name": "free", "weir.limit.unit": "tokens",
                "weir.limit.held": 100, "weir.limit.charged": 42,
            })
        )]
    );
    // What is unknown is absent, and long texts are shortened.
    assert_eq!((failed.name.len(), failed.is_error), (256, true));
    assert_eq!(
        failed.attributes,
        json!({
            "gen_ai.operation.name": "rerank", "gen_ai.provider.name": "cohere",
            "gen_ai.request.model": "x".repeat(256), "error.type": "upstream_error",
            "weir.status": "upstream_error", "weir.usage.source": "none", "weir.reservation.id": "2",
        })
    );
}

#[tokio::test]
async fn counter_values_are_in_spans_only_on_request() {
    let collector = Collector::start();
    let server = start(SpanArgs { span_counters: true, ..over_grpc(collector.address()) }).await;
    server.kuadrant().reserve(traced("1", 1, "01")).await.unwrap();
    server.usage().record_usage(settled("1")).await.unwrap();
    for span in spans(&collector, 2).await {
        let counters = &span.events[0].1["weir.limit.counters"];
        assert_eq!(counters, &json!(["auth.identity.userid=alice"]), "{span:#?}");
    }
}

#[tokio::test]
async fn without_an_endpoint_filters_pass_no_traces_on() {
    let collector = Collector::start();
    let (with, without) = (start(over_grpc(collector.address())).await, start(SpanArgs::default()).await);
    let asked = GetPlanRequest { gateway: "*".into(), knows_doubt: true, ..GetPlanRequest::default() };
    let plan = |server: &Server| {
        let (mut plans, asked) = (server.plans(), asked.clone());
        async move { plans.get_plan(asked).await.unwrap().into_inner() }
    };
    let (traced_plan, other) = (plan(&with).await, plan(&without).await);
    assert!(traced_plan.traces && !traced_plan.records_usage && !other.traces);
    assert_ne!(traced_plan.version, other.version, "a change reaches waiting filters");
    // Filters with an earlier plan may still send traces and their records.
    without.kuadrant().reserve(traced("1", 1, "01")).await.unwrap();
    assert_eq!(without.usage().record_usage(settled("1")).await.unwrap().into_inner().settled, 1);
    let kept = SettledUsage { for_trace: false, ..settled("2") };
    assert_eq!(without.usage().record_usage(kept).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn calls_are_unharmed_and_spans_are_counted_while_the_collector_is_away() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let server = start(over_grpc(address)).await;
    // The queue has room for 2,048 of them, and one call for 512.
    let further = (0..3999).map(|number| settled(&number.to_string())).collect();
    let call = SettledUsage { further, ..settled("first") };
    assert_eq!(server.usage().record_usage(call).await.unwrap().into_inner().settled, 4000);
    server.kuadrant().reserve(traced("1", 1, "01")).await.unwrap();
    let dropped = counted(&server, "dropped", 1.0).await;
    assert!(dropped <= 1953.0, "{dropped}");
    let failed = counted(&server, "failed", 512.0).await;
    let collector = Collector::start_on(address.port());
    let exported = counted(&server, "exported", 1.0).await;
    let failed = failed.max(server.metric("weir_spans_total{outcome=\"failed\"}").await);
    assert!(dropped + failed + exported <= 4001.0, "{dropped} {failed} {exported}");
    assert!(!collector.all().is_empty());
}

/// A collector with HTTP, and how it answers.
#[derive(Clone)]
struct HttpCollector {
    spans: Arc<Mutex<Vec<CollectedSpan>>>,
    status: Arc<Mutex<StatusCode>>,
}

async fn receive(State(collector): State<HttpCollector>, body: Bytes) -> StatusCode {
    let status = *collector.status.lock().unwrap();
    if status.is_success() {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        collector.spans.lock().unwrap().extend(collected(request));
    }
    status
}

#[tokio::test]
async fn spans_also_go_over_http() {
    let collector = HttpCollector { spans: Arc::default(), status: Arc::new(Mutex::new(StatusCode::OK)) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Router::new().route("/v1/traces", post(receive)).with_state(collector.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, service).await });
    let endpoint = Some(format!("http://{address}/"));
    let server = start(SpanArgs { otlp_endpoint: endpoint, ..SpanArgs::default() }).await;
    server.kuadrant().reserve(traced("1", 1, "01")).await.unwrap();
    counted(&server, "exported", 1.0).await;
    assert_eq!(collector.spans.lock().unwrap()[0].trace, TRACE);

    // A collector that rejects spans is not asked again.
    *collector.status.lock().unwrap() = StatusCode::BAD_REQUEST;
    server.kuadrant().reserve(traced("2", 1, "01")).await.unwrap();
    assert_eq!(counted(&server, "failed", 1.0).await, 1.0);
    assert_eq!(collector.spans.lock().unwrap().len(), 1);
    serving.abort();
}

#[tokio::test]
async fn waiting_spans_are_sent_when_the_adapter_ends() {
    let collector = Collector::start();
    let server = start(over_grpc(collector.address())).await;
    server.kuadrant().reserve(traced("1", 1, "01")).await.unwrap();
    server.serving.drain().await;
    assert_eq!(collector.all().len(), 1);
}
