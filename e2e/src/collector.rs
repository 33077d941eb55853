//! An OpenTelemetry collector that keeps the spans it receives, over OTLP with gRPC.

use crate::wait;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A running collector. It stops when it is dropped.
pub struct Collector {
    address: SocketAddr,
    received: Received,
    end: Option<oneshot::Sender<()>>,
}

/// A span that the collector has received.
#[derive(Clone, Debug)]
pub struct CollectedSpan {
    /// The `service.name` of its resource.
    pub service: String,
    pub name: String,
    /// The ids are hexadecimal. `parent` is empty for a root span.
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub kind: i32,
    /// When it began and ended, in nanoseconds of Unix time.
    pub times: (u64, u64),
    /// Whether its status is an error.
    pub is_error: bool,
    pub attributes: Value,
    /// The names and attributes of its events.
    pub events: Vec<(String, Value)>,
    /// The attributes of its resource.
    pub resource: Value,
}

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<CollectedSpan>>>);

impl Collector {
    /// Starts a collector on a free port.
    pub fn start() -> Self {
        Self::start_on(0)
    }

    /// Starts a collector on this port.
    pub fn start_on(port: u16) -> Self {
        let received = Received::default();
        let (end, ended) = oneshot::channel::<()>();
        let (at, address) = std::sync::mpsc::channel();
        let service = TraceServiceServer::new(received.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async move {
                let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port is free");
                at.send(listener.local_addr().expect("it has an address")).expect("the test waits");
                let until = async { drop(ended.await) };
                let server = Server::builder().add_service(service);
                server.serve_with_incoming_shutdown(TcpIncoming::from(listener), until).await
            })
        });
        Self { address: address.recv().expect("it listens"), received, end: Some(end) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns all spans so far.
    pub fn all(&self) -> Vec<CollectedSpan> {
        self.received.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a span, and returns it.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&CollectedSpan) -> bool) -> CollectedSpan {
        wait::until(what, || self.all().into_iter().find(&is_it))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = collected(request.into_inner());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Returns the spans of a call.
pub fn collected(request: ExportTraceServiceRequest) -> Vec<CollectedSpan> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = values(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.extend(spans.map(|span| one(span, &resource)));
    }
    all
}

fn one(span: Span, resource: &Value) -> CollectedSpan {
    CollectedSpan {
        service: resource["service.name"].as_str().unwrap_or_default().to_owned(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind: span.kind,
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        is_error: span.status.is_some_and(|status| status.code == 2),
        attributes: values(span.attributes),
        events: span.events.into_iter().map(|event| (event.name, values(event.attributes))).collect(),
        resource: resource.clone(),
    }
}

fn values(pairs: Vec<KeyValue>) -> Value {
    let value =
        |pair: KeyValue| (pair.key, pair.value.and_then(|value| value.value).map_or(Value::Null, json_of));
    Value::Object(pairs.into_iter().map(value).collect::<Map<_, _>>())
}

fn json_of(value: Any) -> Value {
    match value {
        Any::StringValue(text) => json!(text),
        Any::BoolValue(is) => json!(is),
        Any::IntValue(number) => json!(number),
        Any::DoubleValue(number) => json!(number),
        Any::ArrayValue(array) => {
            array.values.into_iter().filter_map(|value| value.value).map(json_of).collect()
        }
        other => json!(format!("{other:?}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
