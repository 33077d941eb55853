//! Waits for conditions instead of for fixed times.

use std::time::{Duration, Instant};

/// The timeout for a condition. A busy machine needs 20 s to start two Envoys.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Polls until there is a result, and panics with `what` if there is none within [`DEADLINE`].
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, ask).unwrap_or_else(|| panic!("waited {DEADLINE:?} in vain: {what}"))
}

/// Polls until there is a result or the time has passed.
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
