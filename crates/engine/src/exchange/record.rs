//! The usage of an exchange, for Envoy's access log.

use super::Effect;
use super::reservation::{self, Reservation};
use crate::metric::UsageSource;
use expression::facts::Facts;
use llm::response::Usage;
use policy::model::{Unit, UsageReporting};
use policy::plan::Hold;
use serde_json::json;
use std::sync::Arc;

/// The maximum number of limits that a record lists. If there are more, the record contains the number of
/// omitted limits.
const MAX_LIMITS: usize = 32;
/// The maximum length of a text in a record, in characters.
const MAX_TEXT: usize = 256;

/// The usage of one exchange, or of all calls inside a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    model: Option<String>,
    streams: Option<bool>,
    usage: Usage,
    source: UsageSource,
    micro_usd: Option<u64>,
    /// The limits with their charges, or those that refused the request. At most [`MAX_LIMITS`].
    limits: Vec<RecordedLimit>,
    /// The number of further limits.
    omitted: usize,
    outcome: RequestOutcome,
    /// The response's status, or 0 if there was none.
    code: u16,
    has_details: bool,
    /// The number of calls inside a WebSocket.
    calls: Option<u64>,
}

/// A limit that applied to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RecordedLimit {
    policy: Arc<str>,
    limit: String,
    unit: Unit,
    counters: Vec<(String, String)>,
    /// `None` if nothing was charged, because the request was refused.
    charged: Option<u64>,
}

/// What happened to a request, from the mildest to the most severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RequestOutcome {
    Admitted,
    /// It was refused, because the adapter did not answer.
    Unavailable,
    /// A limit refused it.
    Refused,
}

/// How an exchange ended, according to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeEnd {
    /// The response was complete.
    Complete,
    /// The client disconnected.
    ClientLeft,
    /// The response ended early for another reason.
    Cut,
}

impl ExchangeEnd {
    /// The name in the access log and in usage records, for a response with this status.
    pub(super) fn name(self, code: u16) -> &'static str {
        match self {
            Self::ClientLeft => "client_disconnect",
            Self::Cut => "upstream_error",
            Self::Complete if code >= 400 => "upstream_error",
            Self::Complete => "ok",
        }
    }
}

impl UsageRecord {
    /// Its size in bytes.
    pub fn size(&self) -> usize {
        let model = self.model.as_ref().map_or(0, String::len);
        let limits = self.limits.iter().map(RecordedLimit::size);
        limits.fold(size_of::<Self>().saturating_add(model), usize::saturating_add)
    }

    /// Returns the names and values of the record.
    pub fn fields(&self, end: ExchangeEnd) -> Vec<(&'static str, String)> {
        let status = match self.outcome {
            RequestOutcome::Refused => "refused",
            RequestOutcome::Unavailable => "unavailable",
            RequestOutcome::Admitted => end.name(self.code),
        };
        let mut fields = vec![("status", status.to_owned()), ("source", self.source.name().to_owned())];
        fields.extend(self.model.clone().map(|model| ("model", model)));
        fields.extend(self.streams.map(|streams| ("stream", streams.to_string())));
        let Usage { input, output, total, cached, cache_write, reasoning, .. } = self.usage;
        let mut counts = vec![("input", input), ("output", output), ("total", total)];
        if self.has_details {
            counts.extend([("cached", cached), ("cacheWrite", cache_write), ("reasoning", reasoning)]);
        }
        counts.extend(self.micro_usd.map(|micro_usd| ("microUsd", micro_usd)));
        counts.extend(self.calls.map(|calls| ("calls", calls)));
        fields.extend(counts.into_iter().map(|(name, count)| (name, count.to_string())));
        fields.push(("limits", self.limits_as_json()));
        fields
    }

    /// The record of a WebSocket without calls.
    pub fn of_socket() -> Self {
        Self { calls: Some(0), ..Self::nothing() }
    }

    /// Whether the record of a WebSocket has calls.
    pub fn has_calls(&self) -> bool {
        self.calls.is_some_and(|calls| calls > 0)
    }

    /// Adds a call to the record of its WebSocket. The model is that of the last call, the source is the least
    /// certain one, and each limit is listed once.
    pub fn add(&mut self, call: Self) {
        self.calls = Some(self.calls.unwrap_or_default().saturating_add(1));
        self.model = call.model.or(self.model.take());
        self.streams = call.streams.or(self.streams);
        self.usage = self.usage.plus(call.usage);
        self.source = self.source.max(call.source);
        self.micro_usd = match (self.micro_usd, call.micro_usd) {
            (Some(before), Some(more)) => Some(before.saturating_add(more)),
            (before, more) => before.or(more),
        };
        self.outcome = self.outcome.max(call.outcome);
        self.code = self.code.max(call.code);
        self.has_details |= call.has_details;
        self.omitted = self.omitted.max(call.omitted);
        for limit in call.limits {
            let has_room = self.limits.len() < MAX_LIMITS;
            match self.limits.iter_mut().find(|known| known.is_same(&limit)) {
                Some(known) => known.add(limit.charged),
                None if has_room => self.limits.push(limit),
                None => self.omitted = self.omitted.saturating_add(1),
            }
        }
    }

    fn limits_as_json(&self) -> String {
        let mut limits: Vec<_> = self.limits.iter().map(RecordedLimit::json).collect();
        limits.extend((self.omitted > 0).then(|| json!({ "omitted": self.omitted })));
        serde_json::Value::from(limits).to_string()
    }

    fn nothing() -> Self {
        Self {
            model: None,
            streams: None,
            usage: Usage::default(),
            source: UsageSource::None,
            micro_usd: None,
            limits: Vec::new(),
            omitted: 0,
            outcome: RequestOutcome::Admitted,
            code: 0,
            has_details: false,
            calls: None,
        }
    }

    fn with_limits<'h>(self, limits: impl Iterator<Item = (&'h Hold, Option<u64>)>, count: usize) -> Self {
        let limits = limits.take(MAX_LIMITS).map(|(hold, charged)| RecordedLimit::new(hold, charged));
        Self { limits: limits.collect(), omitted: count.saturating_sub(MAX_LIMITS), ..self }
    }
}

impl RecordedLimit {
    fn new(hold: &Hold, charged: Option<u64>) -> Self {
        let counters = hold.counters.iter().map(|(name, value)| (name.clone(), shortened(value)));
        Self {
            policy: Arc::clone(&hold.rate.policy),
            limit: hold.rate.limit.clone(),
            unit: hold.rate.rate.unit,
            counters: counters.collect(),
            charged,
        }
    }

    fn size(&self) -> usize {
        let text = |(name, value): &(String, String)| {
            size_of::<(String, String)>().saturating_add(name.len()).saturating_add(value.len())
        };
        let counters = self.counters.iter().map(text).fold(0, usize::saturating_add);
        size_of::<Self>().saturating_add(self.limit.len()).saturating_add(counters)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.policy == other.policy
            && self.limit == other.limit
            && self.unit == other.unit
            && self.counters == other.counters
    }

    fn add(&mut self, charged: Option<u64>) {
        if let Some(charged) = charged {
            self.charged = Some(self.charged.unwrap_or_default().saturating_add(charged));
        }
    }

    fn json(&self) -> serde_json::Value {
        let counters = self.counters.iter().map(|(name, value)| (name.clone(), json!(value)));
        let mut limit = json!({
            "policy": &*self.policy, "limit": self.limit, "unit": self.unit.name(),
            "counters": counters.collect::<serde_json::Map<_, _>>(),
        });
        if let (Some(charged), Some(limit)) = (self.charged, limit.as_object_mut()) {
            limit.insert("charged".to_owned(), charged.into());
        }
        limit
    }
}

impl Reservation {
    /// The record of a response, with the charge of each hold.
    pub(super) fn record(
        &self,
        usage: Usage,
        source: UsageSource,
        code: u16,
        charges: &[u64],
    ) -> Option<Effect> {
        let charged = || self.holds.iter().zip(charges.iter().copied());
        let money = charged().filter(|(hold, _)| hold.rate.rate.unit == Unit::Usd).map(|(_, charge)| charge);
        let record = || UsageRecord { usage, source, micro_usd: money.max(), code, ..UsageRecord::nothing() };
        let limits = charged().map(|(hold, charge)| (hold, Some(charge)));
        self.reported(|| record().with_limits(limits, self.holds.len()))
    }

    /// The record of a request that limits refused.
    pub(super) fn record_of_refusal(&self) -> Option<Effect> {
        self.reported(|| refused_by(self.refusing(), RequestOutcome::Refused))
    }

    /// The record of a request that was refused because the adapter did not answer.
    pub(super) fn record_of_outage(&self, strict: &Hold) -> Option<Effect> {
        self.reported(|| refused_by([strict].into_iter(), RequestOutcome::Unavailable))
    }

    fn reported(&self, record: impl FnOnce() -> UsageRecord) -> Option<Effect> {
        let reporting = self.reporting?;
        let model = self.reported_model.clone();
        Some(effect(UsageRecord { model, streams: self.streams, ..record() }, reporting))
    }
}

/// The record of a request that a limit refuses without asking the adapter.
pub(super) fn of_refusal(hold: &Hold, facts: &Facts, reporting: Option<UsageReporting>) -> Option<Effect> {
    let reporting = reporting.max(hold.rate.reporting)?;
    let model = facts.model().map(|model| shortened(&model));
    let streams = reservation::streams(facts, &facts.route());
    let record = refused_by([hold].into_iter(), RequestOutcome::Refused);
    Some(effect(UsageRecord { model, streams, ..record }, reporting))
}

fn refused_by<'h>(holds: impl Iterator<Item = &'h Hold>, outcome: RequestOutcome) -> UsageRecord {
    let holds: Vec<&Hold> = holds.collect();
    let limits = holds.iter().map(|hold| (*hold, None));
    UsageRecord { outcome, ..UsageRecord::nothing() }.with_limits(limits, holds.len())
}

fn effect(record: UsageRecord, reporting: UsageReporting) -> Effect {
    let has_details = reporting == UsageReporting::Details;
    Effect::Record(Box::new(UsageRecord { has_details, ..record }))
}

/// Shortens a text that a client chose, and replaces control characters so that it cannot break a log line.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
