//! When something happens, by two clocks: one that only goes forward, for how long things last, and the calendar's.

use policy::model::{Period, Window};
use std::ops::Add;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

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

/// When the period ends that this second is in.
fn end(period: Period, second: u64) -> Duration {
    let day = second / DAY;
    let end = match period {
        Period::Day => day.saturating_add(1),
        // 1970-01-01 was a Thursday, three days after a Monday.
        Period::Week => day.saturating_add(7 - (day.saturating_add(3)) % 7),
        Period::Month => first_of_next_month(day),
    };
    Duration::from_secs(end.saturating_mul(DAY))
}

/// In days since 1970. Months are counted in years that begin with March, so that February's odd day is the last one:
/// 400 of them have 146,097 days, and the month with number `m` begins `(153 * m + 2) / 5` days after March's first.
fn first_of_next_month(day: u64) -> u64 {
    const ERA: u64 = 146_097;
    /// From the first of March of the year 0.
    const TO_1970: u64 = 719_468;
    let start = |year: u64| 365 * year + year / 4 - year / 100 + year / 400;
    let since = day.saturating_add(TO_1970);
    let (era, in_era) = (since / ERA, since % ERA);
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let month = (5 * (in_era - start(year)) + 2) / 153;
    let next = if month == 11 { start(year + 1) } else { start(year) + (153 * (month + 1) + 2) / 5 };
    (era.saturating_mul(ERA)).saturating_add(next).saturating_sub(TO_1970)
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
    fn four_hundred_years_have_all_their_months() {
        let (mut day, mut months) = (0, 0);
        while day < 146_097 {
            let next = first_of_next_month(day);
            assert!((28..=31).contains(&(next - day)), "{day}");
            assert_eq!(first_of_next_month(next - 1), next);
            (day, months) = (next, months + 1);
        }
        assert_eq!((day, months), (146_097, 4_800));
    }
}
