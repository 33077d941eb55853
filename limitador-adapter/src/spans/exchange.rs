//! The span of a settled exchange: the usage under the names of OpenTelemetry's conventions for generative AI, and
//! the charges under Weir's own names.

use super::{EndedSpan, Spans, number, parent, shortened, text};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Event, SpanBuilder, SpanKind, Status};
use protocol::trace::TraceContext;
use protocol::wire::weir::v1::{ChargedLimit, SettledUsage};
use std::time::{Duration, SystemTime};

impl Spans {
    /// Queues the span of a settled exchange, if its trace is sampled.
    pub fn settled(&self, usage: &SettledUsage) {
        let trace = usage.trace.as_ref().and_then(TraceContext::from_message);
        let Some(parent) = trace.as_ref().and_then(parent) else { return };
        let end = moment(usage.time_ms).unwrap_or_else(SystemTime::now);
        let duration = Duration::from_millis(usage.duration_ms.unwrap_or_default());
        let start = end.checked_sub(duration).unwrap_or(end);
        let operation = operation(usage);
        let name = format!("{operation} {}", usage.model);
        let mut attributes = vec![KeyValue::new("gen_ai.operation.name", text(operation))];
        attributes.extend(request(usage));
        attributes.extend(counts(usage));
        attributes.extend(outcome(usage));
        let status = match usage.status.as_str() {
            status @ "upstream_error" => {
                attributes.push(KeyValue::new("error.type", text(status)));
                Status::error("")
            }
            _ => Status::Unset,
        };
        let builder = SpanBuilder::from_name(shortened(name.trim_end()))
            .with_kind(SpanKind::Internal)
            .with_start_time(start);
        let events = usage.limits.iter().map(|limit| self.charged(limit, end)).collect();
        self.queue(&parent, EndedSpan { builder, attributes, events, status, end });
    }

    fn charged(&self, limit: &ChargedLimit, time: SystemTime) -> Event {
        let mut attributes = vec![
            KeyValue::new("weir.policy.name", text(&limit.policy)),
            KeyValue::new("weir.limit.name", text(&limit.limit)),
            KeyValue::new("weir.limit.unit", text(&limit.unit)),
            KeyValue::new("weir.limit.held", number(limit.held)),
            KeyValue::new("weir.limit.charged", number(limit.charged)),
        ];
        let counters = limit.counters.iter();
        let counters = counters.map(|counter| (counter.expression.as_str(), counter.value.as_str()));
        attributes.extend(self.counters(counters));
        Event::new("weir.limit", time, attributes, 0)
    }
}

/// What the request asked for.
fn request(usage: &SettledUsage) -> impl Iterator<Item = KeyValue> {
    let named = |name, value: &str| (!value.is_empty()).then(|| KeyValue::new(name, text(value)));
    let first_byte = usage.first_byte_ms.filter(|_| usage.stream == Some(true));
    [
        named("gen_ai.provider.name", provider(&usage.provider)),
        named("gen_ai.request.model", &usage.model),
        usage.stream.map(|stream| KeyValue::new("gen_ai.request.stream", stream)),
        first_byte.map(|ms| {
            KeyValue::new("gen_ai.response.time_to_first_chunk", Duration::from_millis(ms).as_secs_f64())
        }),
        named("weir.gateway", &usage.gateway),
        named("weir.route", &usage.route),
        named("weir.request.id", &usage.request_id),
        named("weir.reservation.id", &usage.id),
    ]
    .into_iter()
    .flatten()
}

/// The tokens. There are none if nothing is known about them, because zero would be a claim.
fn counts(usage: &SettledUsage) -> impl Iterator<Item = KeyValue> {
    let all = [
        ("gen_ai.usage.input_tokens", usage.input),
        ("gen_ai.usage.output_tokens", usage.output),
        ("weir.usage.total_tokens", usage.total),
    ];
    // These are parts of the others.
    let parts = [
        ("gen_ai.usage.cache_read.input_tokens", usage.cached),
        ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write),
        ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
    ];
    let is_known = usage.source != "none";
    let parts = parts.into_iter().filter(|(_, count)| *count > 0);
    all.into_iter()
        .chain(parts)
        .filter(move |_| is_known)
        .map(|(name, count)| KeyValue::new(name, number(count)))
}

fn outcome(usage: &SettledUsage) -> impl Iterator<Item = KeyValue> {
    let dollars = |micro_usd: u64| micro_usd as f64 / 1e6;
    [
        Some(KeyValue::new("weir.status", text(&usage.status))),
        Some(KeyValue::new("weir.usage.source", text(&usage.source))),
        usage.micro_usd.map(|micro_usd| KeyValue::new("weir.charged.usd", dollars(micro_usd))),
    ]
    .into_iter()
    .flatten()
}

/// The conventions' name of an operation, or Weir's name if they have none.
fn operation(usage: &SettledUsage) -> &str {
    match (usage.operation.as_str(), usage.provider.as_str()) {
        ("chat", "gemini") => "generate_content",
        ("chat" | "message" | "response", _) => "chat",
        ("completion", _) => "text_completion",
        ("embedding", _) => "embeddings",
        ("", _) => "other",
        (other, _) => other,
    }
}

/// The conventions' name of an API, or Weir's name if they have none.
fn provider(name: &str) -> &str {
    match name {
        // Whether it is Vertex AI or AI Studio is unknown.
        "gemini" => "gcp.gen_ai",
        "bedrock" => "aws.bedrock",
        other => other,
    }
}

fn moment(unix_ms: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms))
}
