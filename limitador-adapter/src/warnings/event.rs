//! A warning as a CloudEvent (version 1.0, JSON, structured mode).

use crate::ledger::crossing::Crossing;
use crate::ledger::moment::Moment;
use jiff::Timestamp;
use policy::model::Window;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The event's type. Fields may be added to `data` without a new version.
pub const TYPE: &str = "dev.weir.limit.warning.v1";

/// The media type of an event.
pub const MEDIA_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// The event for one threshold of one counter in one window. It is rendered when it is sent, so a waiting
/// event shares the counter's values with the ledger.
#[derive(Clone, Debug)]
pub struct WarningEvent {
    id: String,
    unix: Duration,
    policy: Arc<str>,
    limit: Arc<str>,
    crossing: Crossing,
}

/// The attributes that CloudEvents defines.
#[derive(Serialize)]
struct CloudEvent<'e> {
    specversion: &'static str,
    /// Every attempt to deliver the event has the same id, so receivers can ignore repetitions.
    id: &'e str,
    /// The policy.
    source: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The limit.
    subject: &'e str,
    time: String,
    datacontenttype: &'static str,
    data: WarningData<'e>,
}

/// The fields have the names of `/api/counters`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WarningData<'e> {
    policy: &'e str,
    limit: &'e str,
    unit: &'static str,
    /// Empty for an overflow counter.
    counters: BTreeMap<&'e str, &'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<&'static str>,
    /// Omitted for UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'e str>,
    threshold: String,
    max: u64,
    used: u64,
    /// Null if only an operator's reset ends the window.
    resets_in_seconds: Option<u64>,
    /// Omitted if false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overflow: bool,
}

impl WarningEvent {
    /// Creates the event of a crossing. `policy` is "NAMESPACE/NAME".
    pub fn new(policy: &str, limit: &str, crossing: Crossing, now: Moment) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        Self { id, unix: now.unix, policy: policy.into(), limit: limit.into(), crossing }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Renders the event as JSON.
    pub fn json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&CloudEvent {
            specversion: "1.0",
            id: &self.id,
            source: format!("/policies/{}", self.policy),
            kind: TYPE,
            subject: &self.limit,
            time: rfc3339(self.unix),
            datacontenttype: "application/json",
            data: self.data(),
        })
    }

    fn data(&self) -> WarningData<'_> {
        let Crossing { key, threshold, max, used, reset } = &self.crossing;
        let (window, period, zone) = match &key.window {
            Window::Period(period, zone) => (None, Some(period.name()), Some(zone)),
            Window::Fixed(_) | Window::Sliding(_) => (Some(key.window.to_string()), None, None),
            Window::Now => (None, None, None),
        };
        let counters = key.counters.iter().filter(|_| !key.is_overflow());
        WarningData {
            policy: &self.policy,
            limit: &self.limit,
            unit: key.unit.name(),
            counters: counters.map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            window,
            period,
            time_zone: zone.filter(|zone| !zone.is_utc()).map(|zone| zone.name()),
            threshold: threshold.to_string(),
            max: *max,
            used: *used,
            resets_in_seconds: key.window.ends().then(|| whole_seconds(*reset)),
            overflow: key.is_overflow(),
        }
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Formats a time in milliseconds, because receivers disagree about nanoseconds.
fn rfc3339(unix: Duration) -> String {
    let milliseconds = i64::try_from(unix.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(milliseconds).map_or_else(|_| Timestamp::MAX.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Key;
    use policy::model::{Period, Threshold, Unit, ZoneName};
    use serde_json::{Value, json};

    fn crossing(window: Window, counters: &[(&str, &str)]) -> Crossing {
        let counters = counters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let key = Key {
            limit: "default/llm/free".into(),
            unit: Unit::Tokens,
            window,
            counters: counters.collect(),
        };
        let threshold = Threshold::of_percent(80).unwrap();
        let reset = Duration::from_millis(90_500);
        Crossing { key: Arc::new(key), threshold, max: 1000, used: 812, reset }
    }

    fn event(crossing: &Crossing) -> Value {
        let now = Moment { unix: Duration::from_millis(1_795_858_200_250), ..Moment::now() };
        let event = WarningEvent::new("default/llm", "free", crossing.clone(), now);
        serde_json::from_slice(&event.json().unwrap()).unwrap()
    }

    #[test]
    fn an_event_has_the_attributes_that_cloudevents_requires() {
        let crossing =
            crossing(Window::Fixed(Duration::from_secs(86_400)), &[("auth.identity.userid", "al\"ice")]);
        let (mut one, other) = (event(&crossing), event(&crossing));
        assert_ne!(one["id"], other["id"]);
        assert!(!one["id"].as_str().unwrap().is_empty());
        one.as_object_mut().unwrap().remove("id");
        let wanted = json!({
            "specversion": "1.0", "source": "/policies/default/llm", "type": "dev.weir.limit.warning.v1",
            "subject": "free", "time": "2026-11-28T09:30:00.25Z", "datacontenttype": "application/json",
            "data": {
                "policy": "default/llm", "limit": "free", "unit": "tokens",
                "counters": {"auth.identity.userid": "al\"ice"}, "window": "24h", "threshold": "80%",
                "max": 1000, "used": 812, "resetsInSeconds": 91,
            },
        });
        assert_eq!(one, wanted);
    }

    #[test]
    fn a_lifetime_never_resets_and_an_overflow_counter_has_no_values() {
        let lifetime = event(&crossing(Window::Period(Period::Lifetime, ZoneName::UTC), &[("", "overflow")]));
        let data = &lifetime["data"];
        assert_eq!((&data["period"], &data["resetsInSeconds"]), (&json!("Lifetime"), &Value::Null));
        assert_eq!((&data["counters"], &data["overflow"]), (&json!({}), &json!(true)));
        let zone = ZoneName::parse("Europe/Berlin").unwrap();
        let month = event(&crossing(Window::Period(Period::Month, zone), &[]));
        assert_eq!(month["data"]["timeZone"], "Europe/Berlin");
    }
}
