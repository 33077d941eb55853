//! The record of a settled exchange, for an adapter that keeps such records.

use super::Effect;
use super::record::{ExchangeEnd, shortened};
use super::reservation::Reservation;
use super::stored::CreatedResult;
use crate::metric::UsageSource;
use crate::outbox::Settlement;
use expression::facts::Facts;
use llm::request::{Operation, Route};
use llm::response::Usage;
use policy::model::Unit;
use policy::plan::Hold;
use protocol::call;
use protocol::wire::kuadrant::service::ratelimit::v1::SeenResult;
use protocol::wire::weir::v1::{ChargedLimit, CounterValue, SettledUsage};

/// The parts of a record that are known when the request is judged.
#[derive(Debug)]
pub(super) struct RecordedRequest {
    provider: &'static str,
    model: String,
    operation: Option<Operation>,
    /// The adapter keeps no records, so the record is only for the trace.
    is_for_trace: bool,
}

/// A record without the parts that only the shell knows.
#[derive(Clone, Debug, PartialEq)]
pub struct SettledRecord {
    usage: SettledUsage,
    /// The response's status, or 0 if there was none.
    code: u16,
    /// Whether the response ended normally.
    is_finished: bool,
}

/// What the shell adds to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordStamp {
    pub end: ExchangeEnd,
    /// The time in milliseconds of Unix time.
    pub time: u64,
    pub gateway: String,
    pub route: String,
    pub request_id: String,
    /// From the request to the response's first byte, in milliseconds.
    pub first_byte: Option<u64>,
    /// From the request to the end, in milliseconds.
    pub duration: Option<u64>,
}

impl RecordedRequest {
    fn new(facts: &Facts, is_for_trace: bool) -> Self {
        let model = facts.model().map(|model| shortened(&model)).unwrap_or_default();
        let read = facts.read_body().filter(|body| !body.condition.hides_facts());
        let operation = read
            .map(|body| body.operation)
            .or_else(|| facts.path().and_then(|path| Route::of(path).operation));
        Self { provider: facts.dialect().name().unwrap_or_default(), model, operation, is_for_trace }
    }

    pub(super) fn size(&self) -> usize {
        self.model.len()
    }
}

impl SettledRecord {
    /// Whether the response ended normally.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Completes the record. It is sent to the adapter like a settlement.
    pub fn stamped(self, stamp: RecordStamp) -> Settlement {
        let RecordStamp { end, time, gateway, route, request_id, first_byte, duration } = stamp;
        let (status, request_id) = (end.name(self.code).to_owned(), shortened(&request_id));
        Settlement::new(call::record(&SettledUsage {
            time_ms: time,
            gateway,
            route: shortened(&route),
            request_id,
            status,
            first_byte_ms: first_byte,
            duration_ms: duration,
            ..self.usage
        }))
    }
}

impl Reservation {
    /// Keeps what a record of the exchange needs. `is_kept` is false if it is only for the trace.
    pub(super) fn keep_record(&mut self, facts: &Facts, is_kept: bool) {
        self.recorded = Some(RecordedRequest::new(facts, !is_kept));
    }

    /// The record of the exchange, with the charge of each hold. A request that only reads a stored result
    /// settles nothing.
    pub(super) fn settled_record(
        &self,
        (usage, source): (Usage, UsageSource),
        (code, is_finished): (u16, bool),
        charges: &[u64],
        created: Option<CreatedResult>,
    ) -> Option<Effect> {
        let RecordedRequest { provider, model, operation, is_for_trace } =
            self.recorded.as_ref().filter(|_| !self.holds.is_empty())?;
        let trace = self.trace.as_ref().filter(|trace| trace.is_sampled());
        let charged = || self.holds.iter().zip(charges.iter().copied());
        let money = charged().filter(|(hold, _)| hold.rate.rate.unit == Unit::Usd).map(|(_, charge)| charge);
        let Usage { input, cached, cache_write, output, reasoning, total, .. } = usage;
        let usage = SettledUsage {
            id: self.id().to_owned(),
            limits: charged().map(|(hold, charge)| charged_limit(hold, charge)).collect(),
            provider: (*provider).to_owned(),
            model: model.clone(),
            source: source.name().to_owned(),
            input,
            cached,
            cache_write,
            output,
            reasoning,
            total,
            micro_usd: money.max(),
            result_id: created.map(|result| result.id).unwrap_or_default(),
            trace: trace.map(|trace| trace.message()),
            operation: operation.map_or("", Operation::name).to_owned(),
            stream: self.streams,
            for_trace: *is_for_trace,
            ..SettledUsage::default()
        };
        Some(Effect::RecordUsage(Box::new(SettledRecord { usage, code, is_finished })))
    }

    /// Completes the record of the exchange that created a result.
    pub(super) fn record_of_seen(&self, seen: SeenResult) -> Option<Effect> {
        self.recorded.as_ref().filter(|recorded| !recorded.is_for_trace)?;
        let usage = SettledUsage { seen: Some(seen), ..SettledUsage::default() };
        Some(Effect::RecordUsage(Box::new(SettledRecord { usage, code: 0, is_finished: true })))
    }
}

/// The counters have the values of the adapter's buckets, so that records can be compared with them.
fn charged_limit(hold: &Hold, charged: u64) -> ChargedLimit {
    let counter = |(expression, value): &(String, String)| CounterValue {
        expression: expression.clone(),
        value: value.clone(),
    };
    ChargedLimit {
        policy: hold.rate.policy.to_string(),
        limit: hold.rate.limit.clone(),
        unit: hold.rate.rate.unit.name().to_owned(),
        charged,
        held: hold.amount,
        counters: hold.counters.iter().map(counter).collect(),
    }
}
