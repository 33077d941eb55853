//! A point in time on two clocks: the monotonic clock, which measures durations, and the calendar.

use super::calendar;
use policy::model::Window;
use std::ops::Add;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The retry delay after a gauge refuses a request. When a slot becomes free is unknown.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The monotonic time.
    pub instant: Instant,
    /// The calendar time since 1970 in UTC.
    pub unix: Duration,
}

impl Moment {
    /// Returns the current moment.
    pub fn now() -> Self {
        // A clock before 1970 is treated as 1970.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix }
    }

    /// Returns how long a window that starts now lasts. For a gauge, returns the retry delay.
    pub fn until_end_of(self, window: &Window) -> Duration {
        match window {
            Window::Fixed(length) | Window::Sliding(length) => *length,
            Window::Period(period, zone) => {
                calendar::around(*period, zone, self.unix).end.saturating_sub(self.unix)
            }
            Window::Now => ASK_AGAIN,
        }
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Adds a duration, up to the limits of the clocks.
    fn add(self, time: Duration) -> Self {
        let instant = self.instant.checked_add(time).unwrap_or(self.instant);
        Self { instant, unix: self.unix.saturating_add(time) }
    }
}
