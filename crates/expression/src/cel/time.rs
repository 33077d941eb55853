//! CEL's timestamps and durations. The crate's own types need a table of all time zones that is twice as
//! large as the rest of the Wasm module. These types support only UTC and offsets such as `+02:00`.

use cel_interpreter::common::traits::{Adder, Comparer, Negator, Subtractor};
use cel_interpreter::common::types::{
    CelInt, CelString, DURATION_TYPE, INT_TYPE, STRING_TYPE, TIMESTAMP_TYPE, Type,
};
use cel_interpreter::common::value::{CowVal, StaticVal, Val};
use cel_interpreter::{DeclarationError, Env, ExecutionError};
use std::any::Any;
use std::cmp::Ordering;

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;
/// The range of timestamps in CEL's specification: the years 1 to 9999.
const TIMES: std::ops::RangeInclusive<i128> = -62_135_596_800 * SECOND..=253_402_300_800 * SECOND - 1;
/// The maximum duration in CEL's specification: about ten thousand years.
const MOST: i128 = 315_576_000_000 * SECOND;

/// Nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(i128);

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Duration(i128);

impl Timestamp {
    pub(super) fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self(i128::from(nanoseconds))
    }

    fn new(nanoseconds: i128) -> Result<Self, ExecutionError> {
        if TIMES.contains(&nanoseconds) { Ok(Self(nanoseconds)) } else { Err(out_of_range("timestamp")) }
    }
}

impl Duration {
    fn new(nanoseconds: i128) -> Result<Self, ExecutionError> {
        if nanoseconds.abs() <= MOST { Ok(Self(nanoseconds)) } else { Err(out_of_range("duration")) }
    }

    /// Converts the duration. A negative duration becomes zero.
    pub(super) fn length(self) -> std::time::Duration {
        u64::try_from(self.0.max(0)).map_or(std::time::Duration::MAX, std::time::Duration::from_nanos)
    }
}

fn out_of_range(function: &str) -> ExecutionError {
    ExecutionError::function_error(function, "out of range")
}

macro_rules! value {
    ($name:ident, $type:ident $(, $accessor:ident: $capability:ident)*) => {
        impl Val for $name {
            fn get_type(&self) -> &Type {
                Self::cel_type()
            }

            fn cel_type() -> &'static Type {
                static TYPE: Type = $type;
                &TYPE
            }

            $(fn $accessor<'b, 'v>(&'b self) -> Option<&'b (dyn $capability + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            })*

            fn as_comparer(&self) -> Option<&dyn Comparer> {
                Some(self)
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<Self>() == Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(*self)
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $name {}

        impl Comparer for $name {
            fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
                let other = other.downcast_ref::<Self>().ok_or_else(|| mismatch("<", self, other))?;
                Ok(self.cmp(other))
            }
        }
    };
}

value!(Timestamp, TIMESTAMP_TYPE, as_adder: Adder, as_subtractor: Subtractor);
value!(Duration, DURATION_TYPE, as_adder: Adder, as_subtractor: Subtractor, as_negator: Negator);

fn mismatch(operator: &str, left: &dyn Val, right: &dyn Val) -> ExecutionError {
    let types = [left, right].map(|value| value.get_type().name().to_owned());
    ExecutionError::no_such_overload(operator, types.to_vec())
}

// Values of both types stay below 2^70, so the sum of two cannot overflow.
impl Adder for Timestamp {
    fn add<'b, 'v>(&'b self, right: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let right: &Duration = right.downcast_ref().ok_or_else(|| mismatch("+", self, right))?;
        Self::new(self.0 + right.0).map(CowVal::owned)
    }
}

impl Subtractor for Timestamp {
    fn sub<'b, 'v>(&'b self, right: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if let Some(right) = right.downcast_ref::<Self>() {
            return Duration::new(self.0 - right.0).map(CowVal::owned);
        }
        let right: &Duration = right.downcast_ref().ok_or_else(|| mismatch("-", self, right))?;
        Self::new(self.0 - right.0).map(CowVal::owned)
    }
}

impl Adder for Duration {
    fn add<'b, 'v>(&'b self, right: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if let Some(right) = right.downcast_ref::<Timestamp>() {
            return Timestamp::new(self.0 + right.0).map(CowVal::owned);
        }
        let right: &Self = right.downcast_ref().ok_or_else(|| mismatch("+", self, right))?;
        Self::new(self.0 + right.0).map(CowVal::owned)
    }
}

impl Subtractor for Duration {
    fn sub<'b, 'v>(&'b self, right: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let right: &Self = right.downcast_ref().ok_or_else(|| mismatch("-", self, right))?;
        Self::new(self.0 - right.0).map(CowVal::owned)
    }
}

impl Negator for Duration {
    fn negate<'v>(&self) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        Ok(Box::new(Self(-self.0)))
    }
}

/// The name of a function, the part of a date or time that it returns, and the length of its unit if the
/// function also accepts durations.
type TimePart = (&'static str, fn(&CivilTime) -> i64, Option<i128>);

static PARTS: [TimePart; 10] = [
    ("getFullYear", |at| at.year, None),
    ("getMonth", |at| at.month - 1, None),
    ("getDate", |at| at.day, None),
    ("getDayOfMonth", |at| at.day - 1, None),
    ("getDayOfYear", |at| at.day_of_year, None),
    // The epoch was a Thursday.
    ("getDayOfWeek", |at| (at.days + 4).rem_euclid(7), None),
    ("getHours", |at| at.nanoseconds / 3_600_000_000_000, Some(3_600 * SECOND)),
    ("getMinutes", |at| at.nanoseconds / 60_000_000_000 % 60, Some(60 * SECOND)),
    ("getSeconds", |at| at.nanoseconds / 1_000_000_000 % 60, Some(SECOND)),
    ("getMilliseconds", |at| at.nanoseconds / 1_000_000 % 1_000, Some(1_000_000)),
];

/// Declares the functions on times.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("timestamp", "string_to_timestamp", vec![STRING_TYPE], timestamp)?;
    env.add_overload("timestamp", "int_to_timestamp", vec![INT_TYPE], timestamp)?;
    env.add_overload("timestamp", "timestamp_to_timestamp", vec![TIMESTAMP_TYPE], timestamp)?;
    env.add_overload("duration", "string_to_duration", vec![STRING_TYPE], duration)?;
    env.add_overload("duration", "duration_to_duration", vec![DURATION_TYPE], duration)?;
    env.add_overload("int", "timestamp_to_int", vec![TIMESTAMP_TYPE], seconds)?;
    declare_parts(env)
}

fn declare_parts(env: &mut Env) -> Result<(), DeclarationError> {
    // Overloads are plain functions without state, so each part needs its own.
    macro_rules! part {
        ($($index:literal),*) => {$(
            if let Some((name, _, of_duration)) = PARTS.get($index) {
                let zone = || vec![STRING_TYPE];
                env.add_member_overload(name, "of_timestamp", TIMESTAMP_TYPE, vec![], |args| part($index, &args))?;
                env.add_member_overload(name, "in_zone", TIMESTAMP_TYPE, zone(), |args| part($index, &args))?;
                if of_duration.is_some() {
                    env.add_member_overload(name, "of_duration", DURATION_TYPE, vec![], |args| part($index, &args))?;
                }
            }
        )*};
    }
    part!(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    Ok(())
}

fn part<'b, 'v>(index: usize, args: &[CowVal<'b, 'v>]) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (Some((name, of_clock, of_duration)), Some(target)) = (PARTS.get(index), args.first()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    if let (Some(Duration(nanoseconds)), Some(unit)) = (target.downcast_ref(), of_duration) {
        return Ok(CowVal::owned(CelInt::from(i64::try_from(nanoseconds / unit).unwrap_or(i64::MAX))));
    }
    let Some(Timestamp(nanoseconds)) = target.downcast_ref() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let offset = match args.get(1).and_then(|zone| zone.downcast_ref::<CelString<'_>>()) {
        None => 0,
        Some(zone) => offset(zone.inner()).ok_or_else(|| {
            ExecutionError::function_error(name, "a time zone is \"UTC\" or an offset such as \"+02:00\"")
        })?,
    };
    Ok(CowVal::owned(CelInt::from(of_clock(&CivilTime::at(nanoseconds + offset)))))
}

fn argument<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    args.pop().ok_or_else(ExecutionError::missing_argument_or_target)
}

fn timestamp<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = argument(args)?;
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        let wrong = || ExecutionError::function_error("timestamp", "not a time like 2025-01-31T08:00:00Z");
        return Timestamp::new(parse_timestamp(text.inner()).ok_or_else(wrong)?).map(CowVal::owned);
    }
    match value.downcast_ref::<CelInt>() {
        Some(seconds) => Timestamp::new(i128::from(*seconds.inner()) * SECOND).map(CowVal::owned),
        None => Ok(value),
    }
}

fn duration<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = argument(args)?;
    let Some(text) = value.downcast_ref::<CelString<'_>>() else { return Ok(value) };
    let wrong = || ExecutionError::function_error("duration", "not a duration like 1h30m or 1.5s");
    Duration::new(parse_duration(text.inner()).ok_or_else(wrong)?).map(CowVal::owned)
}

fn seconds<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    match argument(args)?.downcast_ref::<Timestamp>() {
        Some(at) => {
            Ok(CowVal::owned(CelInt::from(i64::try_from(at.0.div_euclid(SECOND)).unwrap_or(i64::MAX))))
        }
        None => Err(ExecutionError::missing_argument_or_target()),
    }
}

/// A date and a time of day.
struct CivilTime {
    /// Days since the epoch.
    days: i64,
    year: i64,
    /// Starting at 1.
    month: i64,
    /// Starting at 1.
    day: i64,
    /// Starting at 0.
    day_of_year: i64,
    /// Since midnight.
    nanoseconds: i64,
}

impl CivilTime {
    fn at(nanoseconds: i128) -> Self {
        let days = nanoseconds.div_euclid(DAY) as i64;
        // A lower bound for the year. It is at most twenty years too low, so the loop is short.
        let mut year = 1970 + days.div_euclid(if days < 0 { 365 } else { 366 });
        while days >= days_before(year + 1) {
            year += 1;
        }
        let mut rest = days - days_before(year);
        let day_of_year = rest;
        let mut month = 1;
        while rest >= days_in_month(year, month) {
            rest -= days_in_month(year, month);
            month += 1;
        }
        let nanoseconds = nanoseconds.rem_euclid(DAY) as i64;
        Self { days, year, month, day: rest + 1, day_of_year, nanoseconds }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Returns the number of days from the epoch to January 1 of a year.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) - 719_162
}

/// Parses a timestamp as in RFC 3339.
fn parse_timestamp(text: &str) -> Option<i128> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let (time, rest) = rest.strip_prefix(['T', 't'])?.split_at_checked(8)?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (digits, zone) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
            if digits.is_empty() || digits.len() > 9 {
                return None;
            }
            (digits.parse::<i128>().ok()? * 10_i128.pow(9 - digits.len() as u32), zone)
        }
        None => (0, rest),
    };
    let offset = if zone.eq_ignore_ascii_case("z") { 0 } else { offset(zone)? };
    let days = days_before(year) + (1..month).map(|month| days_in_month(year, month)).sum::<i64>() + day - 1;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(i128::from(seconds) * SECOND + fraction - offset)
}

fn numbers<const N: usize>(text: &str, between: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (found, width) in found.iter_mut().zip(widths) {
        let part =
            parts.next().filter(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))?;
        *found = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Whether a time zone is supported.
pub(super) fn is_zone(zone: &str) -> bool {
    offset(zone).is_some()
}

/// Parses an offset such as `UTC`, `+02:00` or `-8:30`, as nanoseconds.
fn offset(zone: &str) -> Option<i128> {
    if matches!(zone, "UTC" | "Z" | "") {
        return (!zone.is_empty()).then_some(0);
    }
    let (sign, rest) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i128>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60) * SECOND)
}

/// Parses a duration such as `1h30m`, `-1.5s` or `100ms`.
fn parse_duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() || total == 0 {
        let (amount, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let unit: i128 = match unit {
            "h" => 3_600 * SECOND,
            "m" => 60 * SECOND,
            "s" => SECOND,
            "ms" => 1_000_000,
            "us" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        total = total.checked_add(scale(amount, unit)?)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    Some(sign * total)
}

fn scale(amount: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || whole.len() > 15 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i128>().ok() };
    let fraction = digits(fraction)? * unit / 10_i128.pow(fraction.len() as u32);
    Some(digits(whole)? * unit + fraction)
}
