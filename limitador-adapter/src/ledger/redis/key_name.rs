//! The Redis key of a bucket: `{weir}:b:` and the text of the bucket's key.
//!
//! All keys have the hash tag `{weir}`, so a cluster keeps them in one slot. This is necessary because one
//! script accesses all limits of a request.

use crate::ledger::Key;
use crate::ledger::{calendar, key_text};
use policy::model::Window;
use std::time::Duration;

/// The prefix of all keys.
pub const PREFIX: &str = "{weir}:";

/// Returns the Redis key of a bucket.
pub fn of(key: &Key) -> String {
    format!("{PREFIX}b:{}", key_text::of(key))
}

/// Parses a Redis key. Returns `None` if it is not a bucket of Weir.
pub fn key(name: &str) -> Option<Key> {
    key_text::parse(name.strip_prefix(PREFIX)?.strip_prefix("b:")?)
}

/// Returns the keys of a sliding bucket's newest slot and of its other slots, and the length of its window.
pub fn slots(name: &str) -> Option<([String; 2], Duration)> {
    match key(name)?.window {
        Window::Sliding(length) => Some(([":s:", ":o:"].map(|kind| name.replacen(":b:", kind, 1)), length)),
        Window::Fixed(_) | Window::Period(..) | Window::Now => None,
    }
}

/// Formats a window as a script's argument. A calendar period includes the bounds of the period that contains
/// the server's time.
pub fn window_at(of: &Window, server: Duration) -> String {
    let name = key_text::window(of);
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
    use policy::model::Unit;
    use std::sync::Arc;

    #[test]
    fn a_name_is_its_key() {
        let counters = Arc::from([("a".to_owned(), "\"},[{weir}:b:".to_owned())]);
        let window = Window::Fixed(Duration::from_millis(1500));
        let bucket = Key { limit: "default/llm/free".into(), unit: Unit::Usd, window, counters };
        assert_eq!(key(&of(&bucket)), Some(bucket));
        assert_eq!(key("{weir}:b:[]"), None);
        assert_eq!(key("another"), None);
    }
}
