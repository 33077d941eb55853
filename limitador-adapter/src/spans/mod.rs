//! Spans for OpenTelemetry: one for each [`reserve`], and one for each settled [`exchange`]. [`export`] sends them.
//!
//! Only requests whose trace is sampled have spans, so a trace never begins here. Spans contain no counter values
//! unless the operator asks for them, because these identify users.

mod cli;
mod exchange;
mod export;
mod reserve;

pub use cli::{OtlpProtocol, SpanArgs};
pub use export::{SpanExport, SpanExportError};
pub use reserve::{ReserveCall, ReserveSpan};

use opentelemetry::trace::{Event, SpanBuilder, SpanContext, Status, TraceContextExt, TraceState, Tracer};
use opentelemetry::trace::{Span, SpanId, TraceFlags, TraceId};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
use protocol::trace::TraceContext;
use std::str::FromStr;
use std::time::SystemTime;

/// The maximum length of a text in a span, in characters. Clients choose some of them.
const MAX_TEXT: usize = 256;

/// Makes spans.
#[derive(Clone, Debug)]
pub struct Spans {
    tracer: SdkTracer,
    /// Whether spans contain counter values.
    has_counters: bool,
}

/// A span that has ended.
struct EndedSpan {
    builder: SpanBuilder,
    attributes: Vec<KeyValue>,
    events: Vec<Event>,
    status: Status,
    end: SystemTime,
}

impl Spans {
    fn new(tracer: SdkTracer, has_counters: bool) -> Self {
        Self { tracer, has_counters }
    }

    /// Queues a span in this trace, unless the sampler drops it. Never waits.
    fn queue(&self, parent: &Context, span: EndedSpan) {
        let EndedSpan { builder, attributes, events, status, end } = span;
        let builder = builder.with_attributes(attributes).with_events(events);
        let mut span = self.tracer.build_with_context(builder, parent);
        span.set_status(status);
        span.end_with_timestamp(end);
    }

    /// The attribute with the values of a limit's counters, if spans contain them.
    fn counters<'c>(&self, counters: impl Iterator<Item = (&'c str, &'c str)>) -> Option<KeyValue> {
        let pairs = counters.map(|(expression, value)| format!("{expression}={value}"));
        self.has_counters.then(|| KeyValue::new("weir.limit.counters", texts(pairs)))
    }
}

/// The parent of a request's spans. `None` if its trace is not sampled.
fn parent(trace: &TraceContext) -> Option<Context> {
    if !trace.is_sampled() {
        return None;
    }
    let caller = SpanContext::new(
        TraceId::from_bytes(trace.trace_id().to_be_bytes()),
        SpanId::from_bytes(trace.span_id().to_be_bytes()),
        TraceFlags::new(trace.flags()),
        true,
        // A state that tracing systems cannot read does not make the trace unusable.
        TraceState::from_str(trace.state()).unwrap_or_default(),
    );
    Some(Context::new().with_remote_span_context(caller))
}

fn text(value: &str) -> Value {
    Value::String(shortened(value).into())
}

fn texts(values: impl Iterator<Item = String>) -> Value {
    Value::Array(Array::String(values.map(|value| StringValue::from(shortened(&value))).collect()))
}

fn shortened(value: &str) -> String {
    value.chars().take(MAX_TEXT).collect()
}

/// Spans have no unsigned numbers.
fn number(value: u64) -> Value {
    Value::I64(i64::try_from(value).unwrap_or(i64::MAX))
}
