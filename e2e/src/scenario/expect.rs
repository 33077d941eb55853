//! Compares a story's expectations with the observed outcome. Omitted expectations are not compared.

use super::Seen;
use crate::wire::header;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The expected outcome of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Expected {
    pub status: Option<u16>,
    /// A pattern that must match the whole value of each header. Null means that the header must be absent.
    pub headers: BTreeMap<String, Option<String>>,
    /// If this is an object, the body must be JSON that contains it. If it is text, the body must contain the
    /// text.
    pub body: Option<Value>,
    /// The exact body.
    pub exact_body: Option<String>,
    /// Whether the body must be incomplete.
    pub cut: Option<bool>,
    /// Whether the request must reach the provider.
    pub upstream: Option<bool>,
    /// The number of Reserves that the adapter received.
    pub asked: Option<u64>,
    /// The exact body that the provider received.
    pub sent_body: Option<String>,
    /// The headers that the provider received, in the same form as `headers`.
    pub sent: BTreeMap<String, Option<String>>,
}

/// The expected state of a bucket. A missing bucket has no usage and no holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bucket {
    /// "NAMESPACE/NAME". Required only if the limit's name is ambiguous.
    pub policy: Option<String>,
    pub limit: String,
    /// The unit; tokens by default.
    #[serde(default = "tokens")]
    pub unit: String,
    /// The value of any of the bucket's counters.
    pub who: Option<String>,
    pub max: Option<u64>,
    pub used: Option<Amount>,
    pub held: Option<Amount>,
    pub remaining: Option<Amount>,
}

/// An amount: `5`, or `">= 5"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub enum Amount {
    Exactly(u64),
    AtLeast(u64),
}

impl Amount {
    fn is(self, seen: u64) -> bool {
        match self {
            Self::Exactly(amount) => seen == amount,
            Self::AtLeast(amount) => seen >= amount,
        }
    }
}

impl TryFrom<Value> for Amount {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let at_least = || value.as_str()?.strip_prefix(">= ")?.parse().ok().map(Self::AtLeast);
        let amount = value.as_u64().map(Self::Exactly).or_else(at_least);
        amount.ok_or_else(|| format!("{value}: wanted a number, or \">= 5\""))
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(amount) => write!(f, "{amount}"),
            Self::AtLeast(amount) => write!(f, "at least {amount}"),
        }
    }
}

fn tokens() -> String {
    "tokens".into()
}

impl Expected {
    /// Returns every difference, one per line.
    pub fn compare(&self, seen: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(status) = self.status
            && seen.status != status
        {
            let body = String::from_utf8_lossy(&seen.body);
            wrong.push(format!("the status is {}, not {status}: {}", seen.status, body.trim()));
        }
        if let Some(upstream) = self.upstream
            && upstream != seen.sent.is_some()
        {
            wrong.push(format!("upstream is {}, not {upstream}", seen.sent.is_some()));
        }
        if let (Some(expected), Some(asked)) = (self.asked, seen.asked)
            && expected != asked
        {
            wrong.push(format!("asked is {asked}, not {expected}"));
        }
        if let Some(cut) = self.cut
            && cut != seen.cut
        {
            wrong.push(format!("cut is {}, not {cut}", seen.cut));
        }
        compare_headers("the response's", &self.headers, &seen.headers, &mut wrong);
        if !self.sent.is_empty() {
            compare_headers("the sent", &self.sent, seen.sent.as_ref().unwrap_or(&Vec::new()), &mut wrong);
        }
        if let Some(body) = &self.sent_body {
            let sent = seen.sent_body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            if sent != body.as_str() {
                wrong.push(format!("the sent body is {sent}, not {body}"));
            }
        }
        if let Some(body) = &self.exact_body
            && seen.body != body.as_bytes()
        {
            wrong.push(format!("the body is {:?}, not {body:?}", String::from_utf8_lossy(&seen.body)));
        }
        if let Some(body) = &self.body {
            compare_body(body, &seen.body, &mut wrong);
        }
        wrong
    }
}

fn compare_headers(
    whose: &str,
    expected: &BTreeMap<String, Option<String>>,
    seen: &Vec<(String, String)>,
    wrong: &mut Vec<String>,
) {
    for (name, pattern) in expected {
        let (value, pattern) = match (header(seen, name), pattern) {
            (None, None) => continue,
            (None, Some(_)) => {
                wrong.push(format!("{whose} header {name} is absent"));
                continue;
            }
            (Some(value), None) => {
                wrong.push(format!("{whose} header {name} is present: {value}"));
                continue;
            }
            (Some(value), Some(pattern)) => (value, pattern),
        };
        let regex = regex::Regex::new(&format!("^(?:{pattern})$"));
        let regex = regex.unwrap_or_else(|error| panic!("the pattern of {name}: {error}"));
        if !regex.is_match(value) {
            wrong.push(format!("{whose} header {name} is {value:?}, not {pattern:?}"));
        }
    }
}

fn compare_body(expected: &Value, seen: &[u8], wrong: &mut Vec<String>) {
    let text = String::from_utf8_lossy(seen);
    match expected {
        Value::String(part) if text.contains(part) => {}
        Value::String(part) => wrong.push(format!("the body does not contain {part:?}: {text}")),
        expected => match serde_json::from_slice::<Value>(seen) {
            Ok(seen) => difference("body", expected, &seen, wrong),
            Err(error) => wrong.push(format!("the body is not JSON ({error}): {text}")),
        },
    }
}

/// Returns the parts of `expected` that `seen` lacks.
fn difference(path: &str, expected: &Value, seen: &Value, wrong: &mut Vec<String>) {
    match (expected, seen) {
        (Value::Object(expected), Value::Object(seen)) => {
            for (key, value) in expected {
                difference(&format!("{path}.{key}"), value, seen.get(key).unwrap_or(&Value::Null), wrong);
            }
        }
        (expected, seen) if expected == seen => {}
        (expected, seen) => wrong.push(format!("{path} is {seen}, not {expected}")),
    }
}

impl Bucket {
    /// Returns every difference, one per line. `all` contains the buckets as in `/api/counters`.
    pub fn compare(&self, all: &[Value]) -> Vec<String> {
        let mut mine: Vec<_> = all.iter().filter(|bucket| self.is(bucket)).collect();
        if mine.len() > 1 && self.max.is_some() {
            // The limit has several rates in this unit.
            mine.retain(|bucket| bucket["max"].as_u64() == self.max);
        }
        if mine.len() > 1 {
            return vec![format!("{self} matches {} buckets", mine.len())];
        }
        let max = self.max.map(Amount::Exactly);
        let wanted = [("max", max), ("used", self.used), ("held", self.held), ("remaining", self.remaining)];
        let mut wrong = Vec::new();
        for (key, wanted) in wanted {
            let Some(wanted) = wanted else { continue };
            let counted = mine.first().map(|bucket| bucket[key].as_u64());
            let there = counted.unwrap_or_else(|| (key == "used" || key == "held").then_some(0));
            if !there.is_some_and(|there| wanted.is(there)) {
                let there = there.map_or("unknown".to_owned(), |there| there.to_string());
                wrong.push(format!("{self}: {key} is {there}, not {wanted}"));
            }
        }
        wrong
    }

    fn is(&self, bucket: &Value) -> bool {
        let whose = |who: &String| {
            let values = bucket["counters"].as_object();
            values.is_some_and(|values| values.values().any(|value| value == who))
        };
        bucket["limit"] == self.limit.as_str()
            && bucket["unit"] == self.unit.as_str()
            && self.policy.as_ref().is_none_or(|policy| bucket["policy"] == policy.as_str())
            && self.who.as_ref().is_none_or(whose)
    }
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.limit, self.unit)?;
        self.who.as_ref().map_or(Ok(()), |who| write!(f, " of {who}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_written_is_compared() {
        let expected = json!({ "status": 200, "headers": { "x-a": "[0-9]+", "x-b": null }, "body": { "a": { "b": 1 } } });
        let expected: Expected = serde_json::from_value(expected).unwrap();
        let mut seen = Seen { status: 200, headers: vec![("x-a".into(), "42".into())], ..Seen::default() };
        seen.body = br#"{"a": {"b": 1, "c": 2}, "d": 3}"#.to_vec();
        assert_eq!(expected.compare(&seen), [""; 0]);
        seen.headers = vec![("x-a".into(), "4x".into()), ("x-b".into(), "there".into())];
        seen.body = br#"{"a": {"b": 2}}"#.to_vec();
        let wrong = [
            r#"the response's header x-a is "4x", not "[0-9]+""#,
            "the response's header x-b is present: there",
            "body.a.b is 2, not 1",
        ];
        assert_eq!(expected.compare(&seen), wrong);
    }

    #[test]
    fn a_bucket_that_is_not_there_is_empty() {
        let all =
            [json!({ "limit": "a", "unit": "tokens", "counters": { "id": "x" }, "used": 5, "held": 0 })];
        let bucket = |who: &str, used: u64| {
            let bucket = json!({ "limit": "a", "who": who, "used": used });
            serde_json::from_value::<Bucket>(bucket).unwrap().compare(&all)
        };
        assert!(bucket("x", 5).is_empty() && bucket("y", 0).is_empty());
        assert_eq!(bucket("x", 6), ["a tokens of x: used is 5, not 6"]);
        assert_eq!(bucket("y", 6), ["a tokens of y: used is 0, not 6"]);
    }
}
