//! Durations as policies write them: `24h`, `1h30m`, `200ms`.

use std::time::Duration;

/// Parses `^([0-9]{1,5}(ms|s|m|h|d|w)){1,4}$`. `None` for anything else.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for _ in 0..4 {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after, |c| c.is_ascii_digit());
        // Five digits of the largest unit cannot overflow. More digits are rejected here.
        let number: u64 = if number.len() <= 5 { number.parse().ok()? } else { return None };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(milliseconds(unit)?)?))?;
        if after.is_empty() {
            return Some(sum);
        }
        rest = after;
    }
    None
}

/// The canonical spelling: whole seconds if possible (`86400s`), otherwise milliseconds (`1500ms`).
pub fn text(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// A readable spelling, in the largest unit without a remainder: `24h`, `90s`, `2d`.
pub fn short(duration: Duration) -> String {
    const HOUR: u128 = 3_600_000;
    let ms = duration.as_millis();
    let units = [(24 * HOUR, "d"), (HOUR, "h"), (60_000, "m"), (1000, "s")];
    // In policies, a day is 24h.
    let fits = |length: u128| ms.is_multiple_of(length) && ms > 0 && (length < 24 * HOUR || ms > length);
    match units.iter().find(|(length, _)| fits(*length)) {
        Some((length, unit)) => format!("{}{unit}", ms / length),
        None => format!("{ms}ms"),
    }
}

fn milliseconds(unit: &str) -> Option<u64> {
    const SECOND: u64 = 1000;
    Some(match unit {
        "ms" => 1,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        "d" => 24 * 3600 * SECOND,
        "w" => 7 * 24 * 3600 * SECOND,
        _ => return None,
    })
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.find(stop).and_then(|at| text.split_at_checked(at)).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_up_to_four_numbers_with_units() {
        let cases = [
            ("1ms", Some(1)),
            ("1s", Some(1_000)),
            ("24h", Some(86_400_000)),
            ("1d", Some(86_400_000)),
            ("2w", Some(1_209_600_000)),
            ("1h30m", Some(5_400_000)),
            ("1h0m0s", Some(3_600_000)),
            ("1s500ms", Some(1_500)),
            ("1m1m1m1m", Some(240_000)),
            ("007s", Some(7_000)),
            ("99999w99999w99999w99999w", Some(4 * 99_999 * 604_800_000)),
            ("1m1m1m1m1m", None),
            ("123456s", None),
            ("", None),
            ("h", None),
            ("24", None),
            ("1h30", None),
            ("24 h", None),
            (" 24h", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5h", None),
            ("1H", None),
            ("1y", None),
            ("1µs", None),
            ("١s", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn people_read_the_largest_unit_without_a_rest() {
        let table = [
            (86_400_000, "24h"),
            (172_800_000, "2d"),
            (604_800_000, "7d"),
            (90_000, "90s"),
            (60_000, "1m"),
            (5_400_000, "90m"),
            (1_500, "1500ms"),
            (0, "0ms"),
        ];
        for (ms, text) in table {
            assert_eq!(short(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn each_duration_has_one_spelling() {
        for (written, canonical) in
            [("24h", "86400s"), ("1d", "86400s"), ("60s", "60s"), ("1s500ms", "1500ms"), ("1500ms", "1500ms")]
        {
            assert_eq!(parse(written).map(text).as_deref(), Some(canonical), "{written}");
        }
    }
}
