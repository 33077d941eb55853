//! The Redis key of a bucket: `{weir}:b:` and the bucket's key as a JSON list. It is readable, and no counter
//! value can forge another bucket's key.
//!
//! All keys have the hash tag `{weir}`, so a cluster keeps them in one slot. This is necessary because one
//! script accesses all limits of a request.

use crate::ledger::Key;
use crate::ledger::calendar;
use policy::model::{Period, Unit, Window, ZoneName};
use std::time::Duration;

/// The prefix of all keys.
pub const PREFIX: &str = "{weir}:";

/// Returns the Redis key of a bucket.
pub fn of(key: &Key) -> String {
    let window = serde_json::Value::String(window(&key.window));
    let list = serde_json::json!([*key.limit, key.unit.name(), window, *key.counters]);
    format!("{PREFIX}b:{list}")
}

/// Parses a Redis key. Returns `None` if it is not a bucket of Weir.
pub fn key(name: &str) -> Option<Key> {
    let list = name.strip_prefix(PREFIX)?.strip_prefix("b:")?;
    let (limit, unit, window, counters): (String, String, String, Vec<(String, String)>) =
        serde_json::from_str(list).ok()?;
    let unit = Unit::named(&unit)?;
    Some(Key { limit: limit.into(), unit, window: window_named(&window)?, counters: counters.into() })
}

const NOW: &str = "Now";

const SLIDING: &str = "sliding";

/// Returns the keys of a sliding bucket's newest slot and of its other slots, and the length of its window.
pub fn slots(name: &str) -> Option<([String; 2], Duration)> {
    match key(name)?.window {
        Window::Sliding(length) => Some(([":s:", ":o:"].map(|kind| name.replacen(":b:", kind, 1)), length)),
        Window::Fixed(_) | Window::Period(..) | Window::Now => None,
    }
}

/// Formats a window for the scripts: its length in ms, its period, or "Now".
pub fn window(window: &Window) -> String {
    match window {
        Window::Fixed(length) => length.as_millis().to_string(),
        Window::Sliding(length) => format!("{}-{SLIDING}", length.as_millis()),
        Window::Period(period, zone) => zone.with_period(*period),
        Window::Now => NOW.to_owned(),
    }
}

/// Parses a window. Returns `None` if Weir has no such window.
pub fn window_named(name: &str) -> Option<Window> {
    if let Some((length, SLIDING)) = name.split_once('-') {
        return Some(Window::Sliding(Duration::from_millis(length.parse().ok()?)));
    }
    let (period, zone) = name.split_once('-').unwrap_or((name, ZoneName::UTC_NAME));
    Some(match Period::named(period) {
        Some(period) => Window::Period(period, ZoneName::parse(zone)?),
        None if name == NOW => Window::Now,
        None => Window::Fixed(Duration::from_millis(name.parse().ok()?)),
    })
}

/// Formats a window as a script's argument. A calendar period includes the bounds of the period that contains
/// the server's time.
pub fn window_at(of: &Window, server: Duration) -> String {
    let name = window(of);
    match of {
        Window::Period(period, zone) => {
            let around = calendar::around(*period, zone, server);
            format!("{name} {} {}", around.start.as_millis(), around.end.as_millis())
        }
        Window::Fixed(_) | Window::Sliding(_) | Window::Now => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_name_is_its_key() {
        let counters: [&[(&str, &str)]; 2] =
            [&[], &[("a", "\"},[{weir}:b:"), ("auth.identity.userid", "ä\n")]];
        let zone = ZoneName::parse("America/Port-au-Prince").unwrap();
        for window in [
            Window::Fixed(Duration::from_millis(1500)),
            Window::Sliding(Duration::from_millis(1500)),
            Window::Period(Period::Week, ZoneName::UTC),
            Window::Period(Period::Quarter, zone),
            Window::Now,
        ] {
            for counters in counters {
                let counters = counters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
                let counters: Arc<[_]> = counters.collect::<Vec<_>>().into();
                let bucket = Key {
                    limit: "default/llm/free".into(),
                    unit: Unit::Usd,
                    window: window.clone(),
                    counters,
                };
                assert_eq!(key(&of(&bucket)), Some(bucket));
            }
        }
        assert_eq!(key("{weir}:b:[]"), None);
        assert_eq!(key("another"), None);
    }
}
