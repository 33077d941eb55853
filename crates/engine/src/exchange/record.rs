//! The usage of an exchange, for Envoy's access log.

use super::Effect;
use super::reservation::Reservation;
use crate::metric::UsageSource;
use llm::response::Usage;
use policy::model::{Unit, UsageReporting};
use policy::plan::Hold;
use serde_json::json;

/// The maximum number of limits that a record lists. If there are more, the record contains the number of
/// omitted limits.
const MAX_LIMITS: usize = 32;
/// The maximum length of a text in a record, in characters.
const MAX_TEXT: usize = 256;

/// The usage of one exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    model: Option<String>,
    streams: Option<bool>,
    usage: Usage,
    source: UsageSource,
    micro_usd: Option<u64>,
    /// The limits with their charges, or those that refused the request.
    limits: String,
    is_refused: bool,
    /// The response's status, or 0 if there was none.
    code: u16,
    has_details: bool,
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
        size_of::<Self>().saturating_add(model).saturating_add(self.limits.len())
    }

    /// Returns the names and values of the record.
    pub fn fields(&self, end: ExchangeEnd) -> Vec<(&'static str, String)> {
        let status = if self.is_refused { "refused" } else { end.name(self.code) };
        let mut fields = vec![("status", status.to_owned()), ("source", self.source.name().to_owned())];
        fields.extend(self.model.clone().map(|model| ("model", model)));
        fields.extend(self.streams.map(|streams| ("stream", streams.to_string())));
        let Usage { input, output, total, cached, cache_write, reasoning, .. } = self.usage;
        let mut counts = vec![("input", input), ("output", output), ("total", total)];
        if self.has_details {
            counts.extend([("cached", cached), ("cacheWrite", cache_write), ("reasoning", reasoning)]);
        }
        counts.extend(self.micro_usd.map(|micro_usd| ("microUsd", micro_usd)));
        fields.extend(counts.into_iter().map(|(name, count)| (name, count.to_string())));
        fields.push(("limits", self.limits.clone()));
        fields
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
        let reporting = self.reporting?;
        let charged = || self.holds.iter().zip(charges.iter().copied());
        let money = charged().filter(|(hold, _)| hold.rate.rate.unit == Unit::Usd).map(|(_, charge)| charge);
        let limits = listed(charged().map(|(hold, charge)| (hold, Some(charge))), self.holds.len());
        let micro_usd = money.max();
        let record = UsageRecord { usage, source, micro_usd, limits, code, ..UsageRecord::nothing() };
        Some(self.recorded(record, reporting))
    }

    /// The record of a request that limits refused.
    pub(super) fn record_of_refusal(&self) -> Option<Effect> {
        let reporting = self.reporting?;
        let refusing: Vec<&Hold> = self.refusing().collect();
        let limits = listed(refusing.iter().map(|hold| (*hold, None)), refusing.len());
        let record = UsageRecord { limits, is_refused: true, ..UsageRecord::nothing() };
        Some(self.recorded(record, reporting))
    }

    fn recorded(&self, record: UsageRecord, reporting: UsageReporting) -> Effect {
        let has_details = reporting == UsageReporting::Details;
        let model = self.reported_model.clone();
        Effect::Record(Box::new(UsageRecord { has_details, model, streams: self.streams, ..record }))
    }
}

impl UsageRecord {
    fn nothing() -> Self {
        Self {
            model: None,
            streams: None,
            usage: Usage::default(),
            source: UsageSource::None,
            micro_usd: None,
            limits: String::new(),
            is_refused: false,
            code: 0,
            has_details: false,
        }
    }
}

/// Shortens a text that a client chose, and replaces control characters so that it cannot break a log line.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn listed<'h>(holds: impl Iterator<Item = (&'h Hold, Option<u64>)>, count: usize) -> String {
    let limit = |(hold, charged): (&Hold, Option<u64>)| {
        let counters = hold.counters.iter().map(|(name, value)| (name.clone(), json!(shortened(value))));
        let mut limit = json!({
            "policy": &*hold.rate.policy, "limit": hold.rate.limit, "unit": hold.rate.rate.unit.name(),
            "counters": counters.collect::<serde_json::Map<_, _>>(),
        });
        if let (Some(charged), Some(limit)) = (charged, limit.as_object_mut()) {
            limit.insert("charged".to_owned(), charged.into());
        }
        limit
    };
    let mut limits: Vec<_> = holds.take(MAX_LIMITS).map(limit).collect();
    if let Some(omitted) = count.checked_sub(MAX_LIMITS).filter(|omitted| *omitted > 0) {
        limits.push(json!({ "omitted": omitted }));
    }
    serde_json::Value::from(limits).to_string()
}
