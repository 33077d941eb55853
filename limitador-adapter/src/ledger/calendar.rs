//! Computes where calendar periods begin and end in any time zone. The IANA database is compiled into this
//! program, so all replicas agree, whatever the machine has installed.

use jiff::civil::{Date, Weekday, date};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use policy::model::{Period, ZoneName};
use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The end of the supported calendar.
const LAST_YEAR: i16 = 9999;

/// Returns why a time zone cannot be used, or `None` if it can.
pub fn unknown_zone(zone: &ZoneName) -> Option<String> {
    let name = zone.name();
    let known: Vec<String> = DATABASE.available().map(|known| known.to_string()).collect();
    if zone.is_utc() || known.iter().any(|known| known == name) {
        return None;
    }
    let near = expression::suggest::nearest(name, known.iter().map(String::as_str));
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Some(format!("`{name}` is not a time zone of the IANA database{hint}"))
}

/// Returns the period that contains a time, both as durations since 1970 in UTC. Beyond the calendar's last
/// year, every period is one second long.
pub fn around(period: Period, zone: &ZoneName, unix: Duration) -> Range<Duration> {
    let second = unix.as_secs();
    let found = i64::try_from(second).ok().and_then(|second| period_of(period, zone, second));
    let found = found.filter(|found| found.contains(&unix));
    found.unwrap_or(Duration::from_secs(second)..Duration::from_secs(second.saturating_add(1)))
}

fn period_of(period: Period, zone: &ZoneName, second: i64) -> Option<Range<Duration>> {
    // Policies name only known zones, but another adapter with a newer database may have created a bucket in
    // a zone that is unknown here.
    let zone = if zone.is_utc() { None } else { DATABASE.get(zone.name()).ok() }.unwrap_or(TimeZone::UTC);
    let now = Timestamp::from_second(second).ok()?.to_zoned(zone.clone());
    let seconds = |start: i64, end: i64| {
        // The period that contains the start of 1970 began earlier.
        let start = u64::try_from(start).unwrap_or_default();
        Some(Duration::from_secs(start)..Duration::from_secs(u64::try_from(end).ok()?))
    };
    let today = now.date();
    let (first, next) = match period {
        Period::Hour => {
            let into = i64::from(now.minute()) * 60 + i64::from(now.second());
            let start = second.checked_sub(into)?;
            return seconds(start, start.checked_add(60 * 60)?);
        }
        Period::Day => (today, today.tomorrow().ok()?),
        Period::Week => {
            let days = i64::from(today.weekday().to_monday_zero_offset());
            (today.checked_sub(days.days()).ok()?, today.nth_weekday(1, Weekday::Monday).ok()?)
        }
        Period::Month => (today.first_of_month(), today.last_of_month().tomorrow().ok()?),
        Period::Quarter => {
            let month = (today.month() - 1) / 3 * 3 + 1;
            let first = Date::new(today.year(), month, 1).ok()?;
            (first, first.checked_add(3.months()).ok()?)
        }
        Period::Year => (today.first_of_year(), today.last_of_year().tomorrow().ok()?),
        Period::Lifetime => (date(1970, 1, 1), date(LAST_YEAR, 12, 1)),
    };
    // If clocks skip midnight, this is the first moment of the day.
    let begins = |day: Date| day.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp().as_second());
    seconds(begins(first)?, begins(next)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> ZoneName {
        ZoneName::parse(name).unwrap()
    }

    fn second(time: &str) -> u64 {
        u64::try_from(time.parse::<Timestamp>().unwrap().as_second()).unwrap()
    }

    /// Each period is tested at its first and last moment, and immediately before and after it.
    #[test]
    fn periods_begin_and_end_with_the_calendar_of_their_time_zone() {
        use Period::{Day, Hour, Month, Quarter, Week, Year};
        let table = [
            ("UTC", Day, "1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z"),
            // 1970-01-05 is a Monday; 2026-11-22 is a Sunday.
            ("UTC", Week, "1970-01-05T00:00:00Z", "1970-01-12T00:00:00Z"),
            ("UTC", Week, "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("UTC", Month, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("UTC", Month, "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z"),
            ("UTC", Month, "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("UTC", Quarter, "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("UTC", Year, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("America/New_York", Day, "2026-11-28T05:00:00Z", "2026-11-29T05:00:00Z"),
            // Clocks go forward on 2026-03-08 and back on 2026-11-01.
            ("America/New_York", Day, "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"),
            ("America/New_York", Day, "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"),
            ("America/New_York", Week, "2026-03-02T05:00:00Z", "2026-03-09T04:00:00Z"),
            ("America/New_York", Month, "2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z"),
            ("America/New_York", Month, "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z"),
            ("America/New_York", Quarter, "2026-01-01T05:00:00Z", "2026-04-01T04:00:00Z"),
            ("America/New_York", Year, "2026-01-01T05:00:00Z", "2027-01-01T05:00:00Z"),
            // The hour before the change, the first hour after it, and the hour that clocks show twice.
            ("America/New_York", Hour, "2026-03-08T06:00:00Z", "2026-03-08T07:00:00Z"),
            ("America/New_York", Hour, "2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z"),
            ("America/New_York", Hour, "2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z"),
            ("America/New_York", Hour, "2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z"),
            ("Europe/Berlin", Day, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("Europe/Berlin", Day, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            ("Asia/Kolkata", Hour, "2026-11-28T06:30:00Z", "2026-11-28T07:30:00Z"),
            ("Asia/Kolkata", Month, "2026-10-31T18:30:00Z", "2026-11-30T18:30:00Z"),
            ("Pacific/Kiritimati", Day, "2026-11-27T10:00:00Z", "2026-11-28T10:00:00Z"),
            // Santiago's clocks skip midnight, so the day begins at 01:00. Havana's clocks show midnight
            // twice.
            ("America/Santiago", Day, "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"),
            ("America/Havana", Day, "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z"),
        ];
        for (name, period, start, end) in table {
            let (start, end) = (second(start), second(end));
            let wanted = Duration::from_secs(start)..Duration::from_secs(end);
            let at = |second: u64| around(period, &zone(name), Duration::from_secs(second));
            let last_moment = wanted.end - Duration::from_millis(1);
            assert_eq!(at(start), wanted, "{name} {period:?}");
            assert_eq!(around(period, &zone(name), last_moment), wanted, "{name} {period:?}");
            assert_eq!(at(end).start, wanted.end, "the one after: {name} {period:?}");
            if start > 0 {
                assert_eq!(at(start - 1).end, wanted.start, "the one before: {name} {period:?}");
            }
        }
    }

    #[test]
    fn a_lifetime_has_no_end_that_anybody_sees() {
        for now in [0, 1_800_000_000, 4_000_000_000] {
            let lifetime = around(Period::Lifetime, &ZoneName::UTC, Duration::from_secs(now));
            assert_eq!((lifetime.start, lifetime.end.as_secs()), (Duration::ZERO, 253_399_622_400));
        }
    }

    #[test]
    fn a_second_beyond_the_calendar_is_a_period_of_its_own() {
        for period in [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year, Period::Lifetime]
        {
            let beyond = Duration::from_secs(u64::MAX);
            assert_eq!(around(period, &ZoneName::UTC, beyond).start, beyond, "{period:?}");
        }
    }

    #[test]
    fn every_period_contains_its_time_in_every_zone() {
        for known in DATABASE.available() {
            let zone = zone(known.as_str());
            for period in
                [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Quarter, Period::Year]
            {
                // Wall-clock times near the changes of 2026 in various zones.
                for step in 0..48 {
                    for day in [1_772_900_000, 1_774_700_000, 1_793_400_000] {
                        let now = Duration::from_secs(day + step * 10_801);
                        assert!(around(period, &zone, now).contains(&now), "{known} {period:?} {now:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_time_zone_that_is_not_known_has_a_suggestion() {
        assert_eq!(unknown_zone(&ZoneName::UTC), None);
        assert_eq!(unknown_zone(&zone("Europe/Berlin")), None);
        let table = [
            (
                "Europe/Belrin",
                "`Europe/Belrin` is not a time zone of the IANA database; did you mean `Europe/Berlin`?",
            ),
            (
                "europe/berlin",
                "`europe/berlin` is not a time zone of the IANA database; did you mean `Europe/Berlin`?",
            ),
            ("Nowhere", "`Nowhere` is not a time zone of the IANA database"),
        ];
        for (name, told) in table {
            assert_eq!(unknown_zone(&zone(name)).as_deref(), Some(told));
        }
    }
}
