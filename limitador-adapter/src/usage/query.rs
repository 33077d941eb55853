//! Questions about usage: the totals of a range of days, by some of the records' values.

use jiff::Span;
use jiff::civil::Date;
use llm::spelling::percent_decoded;
use serde_json::{Map, Value, json};

/// The maximum number of dimensions of a query.
const MAX_DIMENSIONS: usize = 8;

/// A value that totals are grouped by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    Day,
    Policy,
    User,
    Model,
    Provider,
    Gateway,
    Route,
    Status,
    Source,
    /// The value of the counter with this expression.
    Counter(String),
}

/// The prefix of a counter's expression in `by`.
const COUNTER: &str = "counter:";

/// The names that `by` accepts, besides counters.
const NAMED: [Dimension; 9] = [
    Dimension::Day,
    Dimension::Policy,
    Dimension::User,
    Dimension::Model,
    Dimension::Provider,
    Dimension::Gateway,
    Dimension::Route,
    Dimension::Status,
    Dimension::Source,
];

impl Dimension {
    /// Returns the name of the column and of the field in answers.
    pub fn name(&self) -> &str {
        match self {
            Self::Day => "day",
            Self::Policy => "policy",
            Self::User => "user",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Gateway => "gateway",
            Self::Route => "route",
            Self::Status => "status",
            Self::Source => "source",
            Self::Counter(expression) => expression,
        }
    }

    /// Returns the name in `by`.
    pub fn parameter(&self) -> String {
        let is_counter = matches!(self, Self::Counter(_));
        format!("{}{}", if is_counter { COUNTER } else { "" }, self.name())
    }

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(expression) = text.strip_prefix(COUNTER).filter(|expression| !expression.is_empty()) {
            return Ok(Self::Counter(expression.to_owned()));
        }
        NAMED.into_iter().find(|dimension| dimension.name() == text).ok_or_else(|| {
            let names: Vec<&str> = NAMED.iter().map(Dimension::name).collect();
            format!("by: {text:?} is unknown; use {}, or counter:EXPRESSION", names.join(", "))
        })
    }
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TotalsQuery {
    /// The first day, in UTC.
    pub from: Date,
    /// The day after the last one.
    pub to: Date,
    pub by: Vec<Dimension>,
}

/// One row of the answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageTotal {
    /// The values of the dimensions. `None` if the records have no such value.
    pub keys: Vec<Option<String>>,
    /// The totals, in the order of [`super::table::SUMMED`].
    pub sums: [i64; 8],
}

/// The names of the totals in answers.
const SUMS: [&str; 8] =
    ["requests", "input", "cached", "cacheWrite", "output", "reasoning", "total", "microUsd"];

impl TotalsQuery {
    /// Parses the query of a URL. Without `from`, it begins with the current month; without `to`, it includes
    /// today.
    pub fn parse(query: &str, today: Date) -> Result<Self, String> {
        let (mut from, mut to, mut by) = (None, None, Vec::new());
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = percent_decoded(value);
            match name {
                "from" => from = Some(date("from", &value)?),
                "to" => to = Some(date("to", &value)?),
                // An expression may contain commas.
                "by" if value.starts_with(COUNTER) => by.push(Dimension::parse(&value)?),
                "by" => {
                    for name in value.split(',').filter(|name| !name.is_empty()) {
                        by.push(Dimension::parse(name)?);
                    }
                }
                _ => return Err(format!("{name}: unknown parameter; use from, to and by")),
            }
        }
        if by.len() > MAX_DIMENSIONS {
            return Err(format!("by: at most {MAX_DIMENSIONS} names"));
        }
        if by.iter().enumerate().any(|(at, one)| by.iter().take(at).any(|other| other == one)) {
            return Err("by: a name is given twice".to_owned());
        }
        let from = from.unwrap_or_else(|| today.first_of_month());
        let to = to.or_else(|| today.tomorrow().ok()).unwrap_or(today);
        if to <= from {
            return Err(format!("to: {to} must be after {from}, which is the first day"));
        }
        Ok(Self { from, to, by })
    }

    /// Returns one row as an object.
    pub fn object(&self, total: &UsageTotal) -> Value {
        let keys = self.by.iter().zip(&total.keys);
        let keys = keys.map(|(dimension, value)| (dimension.name().to_owned(), json!(value)));
        let sums = SUMS.iter().zip(total.sums).map(|(name, sum)| ((*name).to_owned(), json!(sum)));
        keys.chain(sums).collect::<Map<_, _>>().into()
    }
}

/// Returns the names of an answer's fields, in order.
pub fn fields(by: &[Dimension]) -> Vec<&str> {
    by.iter().map(Dimension::name).chain(SUMS).collect()
}

/// Parses dimensions as `by` in a URL does.
pub fn dimensions(by: &[String]) -> Result<Vec<Dimension>, String> {
    let names = by.iter().flat_map(|by| match by.starts_with(COUNTER) {
        true => vec![by.as_str()],
        false => by.split(',').filter(|name| !name.is_empty()).collect(),
    });
    names.map(Dimension::parse).collect()
}

/// Returns the first day of a month, and of the next one.
pub fn month(text: &str) -> Result<(Date, Date), String> {
    let wrong = || format!("{text:?} must be a month, such as 2026-11");
    let first: Date = format!("{text}-01").parse().map_err(|_| wrong())?;
    let next = first.checked_add(Span::new().months(1)).map_err(|_| wrong())?;
    Ok((first, next))
}

fn date(name: &str, text: &str) -> Result<Date, String> {
    // jiff also accepts times of day.
    let is_date = text.len() == "2026-11-01".len();
    text.parse().ok().filter(|_| is_date).ok_or_else(|| format!("{name}: must be a day, such as 2026-11-01"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date as day;

    #[test]
    fn queries() {
        let today = day(2026, 11, 29);
        let parse = |query: &str| TotalsQuery::parse(query, today);
        let all = parse("").unwrap();
        assert_eq!((all.from, all.to, all.by), (day(2026, 11, 1), day(2026, 11, 30), Vec::new()));
        let asked = parse("from=2026-10-01&to=2026-11-01&by=day,policy,user,model").unwrap();
        assert_eq!((asked.from, asked.to), (day(2026, 10, 1), day(2026, 11, 1)));
        let by = [Dimension::Day, Dimension::Policy, Dimension::User, Dimension::Model];
        assert_eq!(asked.by, by);
        let counter = parse("by=counter:request.headers%5B%22a,b%22%5D&by=day").unwrap();
        assert_eq!(counter.by, [Dimension::Counter("request.headers[\"a,b\"]".to_owned()), Dimension::Day]);
        for wrong in [
            "from=2026-13-01",
            "from=2026-11-01T00:00",
            "from=2026-11-02&to=2026-11-02",
            "by=nobody",
            "by=counter:",
            "by=day,day",
            "by=day&limit=3",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(month("2026-12"), Ok((day(2026, 12, 1), day(2027, 1, 1))));
        assert!(month("2026-13").is_err() && month("2026-1").is_err() && month("now").is_err());
    }
}
