//! The trace of a request is passed on, if the adapter exports spans.

use super::host::module::*;
use super::host::{self, GrpcCall, HttpStream};
use super::plans::{is_answered, starts};
use prost::Message;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveRequest;
use protocol::wire::weir::v1::GetPlanResponse;
use serde_json::json;

const ROOT: u32 = 1;
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Sends a request with these headers under a plan. Returns the Reserve, which is a call of its own.
fn reserve(traces: bool, headers: &[(&str, &str)]) -> GrpcCall {
    host::with(host::Host::reset);
    let (call, _) = starts(ROOT, "default/llm", "weir");
    let policy = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "llm" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "llm" },
            "limits": { "all": { "rates": [{ "limit": 1000, "window": "1h" }] } },
        },
    });
    let policies = vec![policy.to_string().into_bytes()];
    is_answered(
        ROOT,
        call,
        &GetPlanResponse { version: "1".to_owned(), policies, traces, ..Default::default() },
    );
    let context = ROOT + 1;
    let usual = [(":path", "/v1/chat/completions"), (":method", "POST"), (":authority", "llm")];
    let all = usual.iter().chain(headers);
    let request_headers = all.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    host::with(|host| {
        host.streams.insert(context, HttpStream { request_headers, ..HttpStream::default() });
        host.enter(context);
    });
    proxy_on_context_create(context, ROOT);
    host::with(|host| host.enter(context));
    assert_eq!(proxy_on_request_headers(context, 3, true), 1, "it waits for the adapter");
    let sent = host::with(|host| host.sent.iter().find(|call| call.method == "Reserve").cloned());
    sent.expect("it asks the adapter")
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_trace_is_passed_on_in_the_message_and_in_the_metadata() {
    let call = reserve(true, &[("traceparent", PARENT), ("tracestate", "vendor=1")]);
    let trace = ReserveRequest::decode(&*call.message).unwrap().trace.unwrap();
    assert_eq!((trace.parent.as_str(), trace.state.as_str()), (PARENT, "vendor=1"));
    for text in ["traceparent", PARENT, "tracestate", "vendor=1"] {
        assert!(has(&call.metadata, text), "{text}");
    }
}

#[test]
fn nothing_is_passed_on_without_a_valid_trace_or_an_adapter_that_exports_spans() {
    let long = format!("{PARENT}-{}", "x".repeat(1 << 16));
    let cases: [(bool, &[(&str, &str)]); 4] = [
        (false, &[("traceparent", PARENT)]),
        (true, &[]),
        (true, &[("traceparent", "00-malformed")]),
        (true, &[("traceparent", &long), ("tracestate", "vendor=1")]),
    ];
    for (traces, headers) in cases {
        // Each thread has a host and a VM of its own.
        let call = std::thread::scope(|scope| scope.spawn(|| reserve(traces, headers)).join().unwrap());
        assert_eq!(ReserveRequest::decode(&*call.message).unwrap().trace, None, "{headers:?}");
        assert!(!has(&call.metadata, "trace"), "{headers:?}");
    }
}
