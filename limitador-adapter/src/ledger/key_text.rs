//! The key of a bucket as text: a JSON list. It is readable, and no counter value can forge another bucket's
//! key. Storages use it as a name, so it must never change.

use super::Key;
use policy::model::{Period, Unit, Window, ZoneName};
use std::time::Duration;

const NOW: &str = "Now";

const SLIDING: &str = "sliding";

/// Returns the text of a key.
pub fn of(key: &Key) -> String {
    serde_json::json!([*key.limit, key.unit.name(), window(&key.window), *key.counters]).to_string()
}

/// Parses the text of a key. Returns `None` if it is not one.
pub fn parse(text: &str) -> Option<Key> {
    let (limit, unit, window, counters): (String, String, String, Vec<(String, String)>) =
        serde_json::from_str(text).ok()?;
    let unit = Unit::named(&unit)?;
    Some(Key { limit: limit.into(), unit, window: window_named(&window)?, counters: counters.into() })
}

/// Formats a window: its length in ms, its period, or "Now".
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_text_is_its_key() {
        let counters: [&[(&str, &str)]; 2] = [&[], &[("a", "\"},["), ("auth.identity.userid", "ä\n")]];
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
                assert_eq!(parse(&of(&bucket)), Some(bucket));
            }
        }
        assert_eq!(parse("[]"), None);
    }
}
