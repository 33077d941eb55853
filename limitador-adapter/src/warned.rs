//! The latest warnings (`warnAt`) that this adapter has raised. They are bounded, and lost when the adapter ends.

use crate::ledger::crossing::Crossing;
use crate::ledger::moment::Moment;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The number of warnings that are kept.
pub const MAX_LATEST: usize = 100;

/// The maximum length of the counters of a warning that is kept, in bytes.
const MAX_TEXT: usize = 4096;

/// A warning, and when it was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaisedWarning {
    /// Since 1970.
    pub time: Duration,
    pub crossing: Crossing,
}

/// Keeps the latest warnings.
#[derive(Debug, Default)]
pub struct WarningLog(Mutex<VecDeque<RaisedWarning>>);

impl WarningLog {
    /// Records a warning. Callers choose the values of counters, so a warning with longer ones is not kept.
    pub fn record(&self, crossing: Crossing, now: Moment) {
        if crossing.key.text_len() > MAX_TEXT {
            return;
        }
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.truncate(MAX_LATEST - 1);
        latest.push_front(RaisedWarning { time: now.unix, crossing });
    }

    /// Returns the latest warnings, the newest first.
    pub fn latest(&self) -> Vec<RaisedWarning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Key;
    use policy::model::{Threshold, Unit, Window};
    use std::sync::Arc;

    fn crossing(who: &str, used: u64) -> Crossing {
        let key = Key {
            limit: "default/llm/free".into(),
            unit: Unit::Tokens,
            window: Window::Fixed(Duration::from_secs(3600)),
            counters: Arc::from([("user".to_owned(), who.to_owned())]),
        };
        let threshold = Threshold::of_percent(80).unwrap();
        Crossing { key: Arc::new(key), threshold, max: 1000, used, reset: Duration::from_secs(60) }
    }

    #[test]
    fn only_the_latest_are_kept_the_newest_first() {
        let log = WarningLog::default();
        for used in 0..=MAX_LATEST as u64 {
            log.record(crossing("alice", used), Moment::now());
        }
        let used: Vec<u64> = log.latest().iter().map(|warning| warning.crossing.used).collect();
        assert_eq!(used, (1..=MAX_LATEST as u64).rev().collect::<Vec<_>>());
    }

    #[test]
    fn long_counters_are_not_kept() {
        let log = WarningLog::default();
        log.record(crossing(&"x".repeat(MAX_TEXT), 1), Moment::now());
        assert_eq!(log.latest(), []);
    }
}
