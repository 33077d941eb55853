//! A clock that never runs backwards, built on one that can be set back.

use std::cell::Cell;

/// If the underlying clock is set back, this one continues from where it was.
#[derive(Debug, Default)]
pub struct Clock {
    last: Cell<u64>,
    behind: Cell<u64>,
}

impl Clock {
    /// Converts the underlying clock's time to this clock's time.
    pub fn at(&self, wall: u64) -> u64 {
        let set_back = self.last.replace(wall).saturating_sub(wall);
        self.behind.set(self.behind.get().saturating_add(set_back));
        wall.saturating_add(self.behind.get())
    }
}

/// Formats milliseconds of Unix time as `2026-11-28T09:30:00Z`, rounded up to whole seconds.
pub fn rfc3339(unix_ms: u64) -> String {
    // Capped at the end of the year 9999, so that nothing below overflows.
    let seconds = unix_ms.div_ceil(1000).min(253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date this many days after 1970-01-01. Years are counted from March, so that leap days come last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc_3339_has_them() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59Z"),
            (1_709_251_199_001, "2024-03-01T00:00:00Z"),
            (1_767_225_599_999, "2026-01-01T00:00:00Z"),
            (1_795_858_200_000, "2026-11-28T09:30:00Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ];
        for (unix_ms, text) in table {
            assert_eq!(rfc3339(unix_ms), text, "{unix_ms}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on() {
        let clock = Clock::default();
        let times = [1_000, 1_500, 100, 200, 9_000].map(|wall| clock.at(wall));
        assert_eq!(times, [1_000, 1_500, 1_500, 1_600, 10_400]);
    }
}
