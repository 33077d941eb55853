//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it: a busy machine takes 20 s to start two Envoys.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks until there is an answer, and panics with `what` when there is none within [`DEADLINE`].
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, ask).unwrap_or_else(|| panic!("waited {DEADLINE:?} in vain: {what}"))
}

/// Asks until there is an answer or the time is over.
pub fn within<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + time;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
