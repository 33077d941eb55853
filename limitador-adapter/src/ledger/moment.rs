//! A point in time by two clocks: the monotonic clock, which measures how long things last, and the calendar.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use policy::model::{Period, Window};
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
    pub fn until_end_of(self, window: Window) -> Duration {
        match window {
            Window::Fixed(length) => length,
            Window::Period(period) => end(period, self.unix.as_secs()).saturating_sub(self.unix),
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

/// When the period ends that contains this second, in time since 1970 began in UTC. A second beyond the calendar's last
/// year ends its own period.
fn end(period: Period, second: u64) -> Duration {
    first_day_after(period, second).unwrap_or(Duration::from_secs(second))
}

fn first_day_after(period: Period, second: u64) -> Option<Duration> {
    let timestamp = Timestamp::from_second(i64::try_from(second).ok()?).ok()?;
    let day = timestamp.to_zoned(TimeZone::UTC).date();
    let next = match period {
        Period::Day => day.tomorrow(),
        Period::Week => day.nth_weekday(1, Weekday::Monday),
        Period::Month => day.last_of_month().tomorrow(),
    };
    let end = next.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    u64::try_from(end.as_second()).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970, by `date -u -d ... +%s`.
    const TABLE: [(u64, Period, u64); 14] = [
        (0, Period::Day, 86_400),
        (86_399, Period::Day, 86_400),
        (86_400, Period::Day, 172_800),
        // 1970-01-05 is a Monday.
        (0, Period::Week, 345_600),
        (345_599, Period::Week, 345_600),
        (345_600, Period::Week, 950_400),
        // 2026-11-22 is a Sunday.
        (1_795_391_999, Period::Week, 1_795_392_000),
        (1_795_392_000, Period::Week, 1_795_996_800),
        (0, Period::Month, 2_678_400),
        // February of 2024, of 2026 and of 2100; December.
        (1_709_164_800, Period::Month, 1_709_251_200),
        (1_772_236_800, Period::Month, 1_772_323_200),
        (4_107_456_000, Period::Month, 4_107_542_400),
        (1_798_675_200, Period::Month, 1_798_761_600),
        (951_782_400, Period::Month, 951_868_800),
    ];

    #[test]
    fn periods_end_with_the_calendar_s() {
        for (second, period, wanted) in TABLE {
            assert_eq!(end(period, second).as_secs(), wanted, "{second} {period:?}");
        }
    }

    #[test]
    fn a_second_beyond_the_calendar_ends_its_own_period() {
        for period in [Period::Day, Period::Week, Period::Month] {
            assert_eq!(end(period, u64::MAX).as_secs(), u64::MAX, "{period:?}");
        }
    }
}
