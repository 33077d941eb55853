//! `reservation.maxShare`: how much of a limit one request may hold.

use std::fmt;

/// A part of a limit, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u16);

/// 100 %.
const WHOLE: u16 = 10_000;

impl Share {
    /// Parses `^[0-9]{1,3}([.][0-9]{1,2})?%$`, above 0% and at most 100%. `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "00"));
        let digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(fraction, 2) {
            return None;
        }
        let hundredths: u16 = format!("{fraction:0<2}").parse().ok()?;
        let share = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(hundredths)?;
        (1..=WHOLE).contains(&share).then_some(Self(share))
    }

    /// Returns this share of a maximum.
    pub fn of(self, max: u64) -> u64 {
        let part = u128::from(max) * u128::from(self.0) / u128::from(WHOLE);
        // The share is never more than the maximum itself.
        u64::try_from(part).unwrap_or(max)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, hundredths) => write!(f, "{whole}.{}%", format!("{hundredths:02}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        for (text, of_a_thousand) in [("20%", 200), ("100%", 1000), ("0.1%", 1), ("12.5%", 125), ("0.01%", 0)]
        {
            let share = Share::parse(text).unwrap();
            assert_eq!((share.of(1000), share.to_string().as_str()), (of_a_thousand, text));
        }
        assert_eq!(Share::parse("007.50%").unwrap().to_string(), "7.5%");
        assert_eq!(Share::parse("100%").unwrap().of(u64::MAX), u64::MAX);
        for wrong in [
            "", "%", "20", "0%", "0.00%", "101%", "100.01%", "1000%", "1.%", ".5%", "1.234%", "-1%", "+1%",
            "2 %",
        ] {
            assert_eq!(Share::parse(wrong), None, "{wrong}");
        }
    }
}
