//! The span of a Reserve: how long the decision took, and what it was.

use super::{EndedSpan, Spans, number, parent, text, texts};
use crate::observed::{ObservedRate, ObservedReserve};
use opentelemetry::trace::{Event, SpanBuilder, SpanKind, Status};
use opentelemetry::{Context, KeyValue};
use protocol::call::{RATE_LIMIT_SERVICE, RESERVATION_SERVICE};
use protocol::trace::TraceContext;
use std::time::SystemTime;
use tonic::Code;

/// How a Reserve arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveCall {
    /// As a call of its own.
    Unary,
    /// In a stream of many.
    Streamed,
}

/// The span of a Reserve that is being answered.
pub struct ReserveSpan {
    spans: Spans,
    parent: Context,
    call: ReserveCall,
    start: SystemTime,
}

impl ReserveCall {
    /// The full name of the method.
    fn method(self) -> String {
        match self {
            Self::Unary => format!("{RATE_LIMIT_SERVICE}/Reserve"),
            Self::Streamed => format!("{RESERVATION_SERVICE}/ReserveAndCommit"),
        }
    }
}

impl Spans {
    /// Begins the span of a Reserve, if the request's trace is sampled.
    pub fn reserve(&self, call: ReserveCall, trace: &TraceContext) -> Option<ReserveSpan> {
        let (spans, start) = (self.clone(), SystemTime::now());
        Some(ReserveSpan { spans, parent: parent(trace)?, call, start })
    }
}

impl ReserveSpan {
    /// Ends the span of a Reserve that was answered.
    pub fn answered(self, reservation: &str, observed: &ObservedReserve) {
        let decision = if observed.admitted { "allowed" } else { "refused" };
        let mut attributes = vec![
            KeyValue::new("weir.reservation.id", text(reservation)),
            KeyValue::new("weir.decision", decision),
        ];
        if !observed.admitted {
            let refusing = observed.rates.iter().filter(|rate| !rate.has_room && rate.enforced);
            let limits = refusing.map(|rate| format!("{}/{}", rate.policy, rate.limit));
            attributes.push(KeyValue::new("weir.refused_by", texts(limits)));
        }
        let end = SystemTime::now();
        let events = observed.rates.iter().map(|rate| self.limit(rate, observed.admitted, end)).collect();
        self.end(Code::Ok, attributes, events, end);
    }

    /// Ends the span of a Reserve that failed.
    pub fn failed(self, code: Code) {
        self.end(code, Vec::new(), Vec::new(), SystemTime::now());
    }

    fn end(self, code: Code, further: Vec<KeyValue>, events: Vec<Event>, end: SystemTime) {
        let method = self.call.method();
        let mut attributes = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method.clone()),
            KeyValue::new("rpc.response.status_code", status_name(code)),
        ];
        attributes.extend(further);
        let status = match code {
            Code::Ok => Status::Unset,
            _ => {
                attributes.push(KeyValue::new("error.type", status_name(code)));
                Status::error("")
            }
        };
        let builder = SpanBuilder::from_name(method).with_kind(SpanKind::Server).with_start_time(self.start);
        self.spans.queue(&self.parent, EndedSpan { builder, attributes, events, status, end });
    }

    fn limit(&self, rate: &ObservedRate, is_admitted: bool, time: SystemTime) -> Event {
        let mut attributes = vec![
            KeyValue::new("weir.policy.name", text(&rate.policy)),
            KeyValue::new("weir.limit.name", text(&rate.limit)),
            KeyValue::new("weir.limit.unit", text(&rate.unit)),
            KeyValue::new("weir.limit.window", text(&rate.window)),
            KeyValue::new("weir.limit.max", number(rate.max)),
            KeyValue::new("weir.limit.used", number(rate.used)),
            KeyValue::new("weir.limit.remaining", number(rate.remaining)),
            // A refused request holds nothing.
            KeyValue::new("weir.limit.held", number(if is_admitted { rate.hold } else { 0 })),
            KeyValue::new("weir.limit.needed", number(rate.hold)),
            KeyValue::new("weir.limit.has_room", rate.has_room),
            KeyValue::new("weir.limit.enforced", rate.enforced),
        ];
        let counters = rate.counters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        attributes.extend(self.spans.counters(counters));
        Event::new("weir.limit", time, attributes, 0)
    }
}

/// The name of a gRPC status, as the conventions for RPC spell it.
fn status_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
