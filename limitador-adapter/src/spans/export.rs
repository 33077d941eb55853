//! Sends spans over OTLP. No call waits for it: spans wait in a bounded queue, and are dropped if it is full.

use super::{OtlpProtocol, Spans};
use crate::https;
use crate::metrics::AdapterMetrics;
use metrics::Counter;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{
    EnvResourceDetector, SdkProvidedResourceDetector, TelemetryResourceDetector,
};
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::ClientTlsConfig;

/// The maximum number of spans that wait, the maximum number in one call, and how long they are collected. The
/// first two are the defaults of OpenTelemetry's SDKs.
const MAX_WAITING: usize = 2048;
const MAX_BATCH: usize = 512;
const GATHERING: Duration = Duration::from_secs(1);

/// The longest that one call may take with all its retries.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the service, unless the environment has another one.
const SERVICE_NAME: &str = "limitador-adapter";

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum SpanExportError {
    #[error("{0}")]
    Tls(String),
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// Where to send spans, and what they contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanExport {
    /// The URL to send spans to. For HTTP, it includes the path.
    pub endpoint: String,
    pub protocol: OtlpProtocol,
    /// Whether spans contain counter values.
    pub has_counters: bool,
}

/// Receives spans that have ended.
#[derive(Debug)]
struct SpanQueue {
    waiting: mpsc::Sender<SpanData>,
    /// Counts spans for which the queue has no room.
    dropped: Counter,
}

/// Sends spans.
struct SpanSender {
    exporter: SpanExporter,
    waiting: mpsc::Receiver<SpanData>,
    metrics: Arc<AdapterMetrics>,
    /// The outcome of the last call. Only changes are logged.
    is_failing: bool,
}

impl SpanExport {
    /// Returns the source of spans, and the task that sends them. The task ends when the source is dropped and
    /// nothing waits. The receiver of the spans does not have to be reachable.
    pub fn open(
        self,
        metrics: &Arc<AdapterMetrics>,
    ) -> Result<(Spans, impl Future<Output = ()> + Send + 'static), SpanExportError> {
        let mut exporter = self.exporter()?;
        let resource = resource();
        exporter.set_resource(&resource);
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(SpanQueue { waiting: queue, dropped: metrics.spans_dropped.clone() })
            .build();
        let sender = SpanSender { exporter, waiting, metrics: Arc::clone(metrics), is_failing: false };
        Ok((Spans::new(provider.tracer("weir"), self.has_counters), sender.run()))
    }

    /// Timeouts, headers and compression come from the environment.
    fn exporter(&self) -> Result<SpanExporter, SpanExportError> {
        let exporter = SpanExporter::builder();
        let is_https = self.endpoint.starts_with("https:");
        Ok(match self.protocol {
            OtlpProtocol::Grpc => {
                let exporter = exporter.with_tonic().with_endpoint(&self.endpoint);
                let tls = is_https.then(|| ClientTlsConfig::new().with_native_roots());
                match tls {
                    Some(tls) => exporter.with_tls_config(tls).build()?,
                    None => exporter.build()?,
                }
            }
            OtlpProtocol::Http => {
                let connector = https::connector(is_https).map_err(SpanExportError::Tls)?;
                let client = HyperClient::new(connector, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, None);
                let exporter = exporter.with_http().with_protocol(Protocol::HttpBinary);
                exporter.with_endpoint(&self.endpoint).with_http_client(client).build()?
            }
        })
    }
}

/// The attributes of this process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` take precedence.
fn resource() -> Resource {
    let resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detectors(&[
            Box::new(SdkProvidedResourceDetector),
            Box::new(TelemetryResourceDetector),
            Box::new(EnvResourceDetector::new()),
        ]);
    let found = Resource::builder().build().get(&Key::new("service.name"));
    let is_named = found.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named { resource.build() } else { resource.with_service_name(SERVICE_NAME).build() }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.waiting.try_send(span).is_err() {
            self.dropped.increment(1);
        }
    }

    /// The task flushes the queue when the source is dropped.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl SpanSender {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while self.waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let end = Instant::now() + GATHERING;
            while let Some(room) = MAX_BATCH.checked_sub(batch.len()).filter(|room| *room > 0) {
                match timeout_at(end, self.waiting.recv_many(&mut batch, room)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Sends spans. The exporter repeats failed calls for a while.
    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let problem = match timeout(PATIENCE, self.exporter.export(batch)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let counter =
            if problem.is_none() { &self.metrics.spans_exported } else { &self.metrics.spans_failed };
        counter.increment(count);
        let was_failing = std::mem::replace(&mut self.is_failing, problem.is_some());
        match (problem, was_failing) {
            (Some(problem), false) => tracing::warn!(problem, "spans cannot be exported and are lost"),
            (None, true) => tracing::info!("spans are exported again"),
            (Some(_), true) | (None, false) => {}
        }
    }
}
