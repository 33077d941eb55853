//! A point in time by two clocks: the monotonic clock, which measures how long things last, and the calendar.

use super::calendar;
use policy::model::Window;
use std::ops::Add;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long after a refusal for want of a free slot it is worth asking again: nobody knows when one is free.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the clock that only goes forward.
    pub instant: Instant,
    /// By the calendar: since 1970 began in UTC.
    pub unix: Duration,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        // A clock before 1970 knows no calendar.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix }
    }

    /// How long a window lasts that starts now. For what is no matter of time, until it is worth asking again.
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

    /// As far as the clocks go.
    fn add(self, time: Duration) -> Self {
        let instant = self.instant.checked_add(time).unwrap_or(self.instant);
        Self { instant, unix: self.unix.saturating_add(time) }
    }
}
