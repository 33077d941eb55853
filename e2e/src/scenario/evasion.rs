//! One attempt to pay less for tokens than they cost, read from a file. The file has a request, how servers
//! interpret it, and the amounts that must be held and charged. It becomes a [`Story`], so every player can
//! play it. `e2e/evasions/README.md` describes the format.

use super::recipe::{Encoding, Recipe};
use super::{Amount, Answer, Bucket, Exact, Expected, Finished, Opened, PolicySource, Request, Step, Story};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The maximum number of body bytes to read, if bodies are read.
const MAX_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Evasion {
    /// A description of the attempt.
    pub about: String,
    /// The policy in force: the name of a file in `e2e/evasions/policies`, or a `spec` without a target.
    pub policy: Value,
    /// Whether the filter buffers request bodies.
    #[serde(default = "yes")]
    pub reads_bodies: bool,
    /// The user. By default, the `userid` is the file's name. Null means no user.
    #[serde(default, deserialize_with = "given")]
    pub claims: Option<Option<Value>>,
    pub request: Sent,
    /// The provider's answer.
    #[serde(default)]
    pub answer: Answer,
    /// The expected outcome.
    pub expect: Outcome,
    /// The reason, if less may be held than the most generous server would spend.
    pub weaker: Option<String>,
    /// How lenient servers interpret the body. Written by `e2e/evasions/readings.py`.
    #[serde(default)]
    pub readings: BTreeMap<String, Reading>,
}

/// The exact bytes of a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// POST by default.
    #[serde(default = "super::post")]
    pub method: String,
    /// The path and query.
    #[serde(default = "super::chat")]
    pub path: String,
    /// The headers, with one map for each header line.
    #[serde(default)]
    pub headers: Vec<BTreeMap<String, Recipe>>,
    #[serde(default)]
    pub body: Recipe,
    /// The encodings that are applied to the body, in order.
    #[serde(default)]
    pub encode: Vec<Encoding>,
    /// Whether the request is sent without a content-length.
    #[serde(default)]
    pub chunked: bool,
}

/// The expected outcome of an evasion.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The status of the refusal. `None` if the request reaches the provider.
    pub status: Option<u16>,
    /// The amounts that are held until the provider answers, by limit and unit (such as "all" and "all
    /// requests").
    #[serde(default)]
    pub held: BTreeMap<String, Amount>,
    /// The amounts that are charged when the exchange ends.
    #[serde(default)]
    pub used: BTreeMap<String, Amount>,
    /// Further expectations about the whole exchange, as in a story.
    pub exchange: Option<Expected>,
}

/// How one server interprets a body.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// The reason, if the server rejects the body.
    pub error: Option<String>,
    pub model: Option<Value>,
    /// Whether the response is a stream.
    pub stream: Option<Value>,
    /// The number of characters that the model may read.
    pub text: Option<u64>,
    /// The output that the server would allow: the maximum times the number of completions.
    pub output: Option<u64>,
}

impl Evasion {
    /// Returns every file in `e2e/evasions` by its kind and name.
    pub fn all() -> Vec<(String, PathBuf)> {
        let kinds = super::listed("e2e/evasions").into_iter().filter(|path| path.is_dir());
        let kinds = kinds.filter(|path| !path.ends_with("policies") && !path.ends_with("servers"));
        let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let files = kinds.flat_map(|kind| {
            let folder = name(&kind);
            let files = super::listed(&format!("e2e/evasions/{folder}"));
            files.into_iter().map(move |file| (format!("{folder}/{}", name(&file)), file))
        });
        files.collect()
    }

    /// Reads an evasion from a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let value =
            text.and_then(|text| serde_saphyr::from_str::<Value>(&text).map_err(|error| error.to_string()));
        let evasion =
            value.and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()));
        evasion.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Returns the body before encoding, and the body as it is sent.
    pub fn bodies(&self) -> (Vec<u8>, Vec<u8>) {
        let plain = self.request.body.bytes();
        let sent = self.request.encode.iter().fold(plain.clone(), |bytes, encoding| encoding.apply(bytes));
        (plain, sent)
    }

    /// Returns the number of tokens that the most generous server would spend.
    pub fn most_generous(&self) -> u64 {
        let tokens = |reading: &Reading| reading.text.unwrap_or(0) / 4 + reading.output.unwrap_or(0);
        self.readings.values().map(tokens).max().unwrap_or(0)
    }

    /// Converts the evasion to a story.
    pub fn story(&self, name: &str) -> Story {
        let claims = self.claims.clone().unwrap_or_else(|| Some(json!({ "userid": name })));
        // An inline policy has separate buckets.
        let (who, policy) = match self.policy {
            Value::String(_) => (Some(name.to_owned()), None),
            _ => (None, Some(format!("default/{}", policy_name(name)))),
        };
        let bucket = Bucket { who, policy, ..Bucket::default() };
        let request = self.sent(claims.is_some());
        let steps = match self.expect.status {
            Some(status) => {
                let exchange = self.expect.exchange.clone().unwrap_or_default();
                let expect = Expected { status: Some(status), upstream: Some(false), ..exchange };
                vec![Step::Request(Box::new(Request { expect: Some(expect), ..request }))]
            }
            None => {
                let name = name.to_owned();
                let held = |bucket: Bucket, amount| Bucket { held: Some(amount), ..bucket };
                let used = |bucket: Bucket, amount| Bucket {
                    used: Some(amount),
                    held: Some(Amount::Exactly(0)),
                    ..bucket
                };
                vec![
                    Step::Open(Box::new(Opened { name: name.clone(), request })),
                    Step::Counters(buckets(&self.expect.held, &bucket, held)),
                    Step::Finish(Finished { name, expect: self.expect.exchange.clone() }),
                    Step::Counters(buckets(&self.expect.used, &bucket, used)),
                ]
            }
        };
        Story {
            about: self.about.clone(),
            shows: Vec::new(),
            natively: None,
            begins: None,
            gateway: None,
            reads_bodies: self.reads_bodies.then_some(MAX_BYTES),
            policies: vec![self.policy(name)],
            people: claims.into_iter().map(|claims| ("client".to_owned(), claims)).collect(),
            steps,
        }
    }

    /// Returns the headers in addition to those that every request has. A content-type is added unless the
    /// file sets one. An empty content-type (`""`) means none.
    pub fn headers(&self) -> Vec<(String, String)> {
        let lines = self.request.headers.iter().flatten();
        let mut headers: Vec<_> = lines.map(|(name, value)| (name.clone(), value.text())).collect();
        let is_type = |name: &String| name.eq_ignore_ascii_case("content-type");
        if !headers.iter().any(|(name, _)| is_type(name)) {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        headers.retain(|(name, value)| !is_type(name) || !value.is_empty());
        headers
    }

    fn sent(&self, known: bool) -> Request {
        let headers = self.headers();
        Request {
            who: known.then(|| "client".to_owned()),
            method: self.request.method.clone(),
            path: self.request.path.clone(),
            headers: BTreeMap::new(),
            body: Value::Null,
            exact: Some(Exact { headers, body: self.bodies().1, chunked: self.request.chunked }),
            answer: self.answer.clone(),
            times: 1,
            expect: None,
        }
    }

    fn policy(&self, name: &str) -> PolicySource {
        match &self.policy {
            Value::String(file) => {
                PolicySource::File { file: format!("e2e/evasions/policies/{file}.yaml").into() }
            }
            spec => {
                let policy = crate::world::policy(&policy_name(name), spec.clone());
                PolicySource::Inline(serde_json::from_str(&policy).expect("a policy is JSON"))
            }
        }
    }
}

/// Returns the name of an inline policy.
fn policy_name(name: &str) -> String {
    name.replace('/', "-")
}

/// Returns the expected buckets of these limits.
fn buckets(
    amounts: &BTreeMap<String, Amount>,
    bucket: &Bucket,
    with: impl Fn(Bucket, Amount) -> Bucket,
) -> Vec<Bucket> {
    let bucket = |(key, amount): (&String, &Amount)| {
        let (limit, unit) = key.split_once(' ').unwrap_or((key, "tokens"));
        let (limit, unit) = (limit.to_owned(), unit.to_owned());
        with(Bucket { limit, unit, ..bucket.clone() }, *amount)
    };
    amounts.iter().map(bucket).collect()
}

fn yes() -> bool {
    true
}

/// Distinguishes null from an absent value.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Value>>, D::Error> {
    Option::<Value>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the hold is at least nine tenths of what the most generous server would spend, if bodies
    /// are read and the limit counts tokens.
    #[test]
    fn no_expectation_is_weaker_than_a_reading() {
        let mut wrong = Vec::new();
        for (name, path) in Evasion::all() {
            let evasion = Evasion::read(&path).unwrap();
            assert_eq!(evasion.readings.len(), 3, "{name}: run e2e/evasions/readings.py");
            let (Some(held), true) = (evasion.expect.held.get("all"), evasion.reads_bodies) else { continue };
            let (Amount::Exactly(held) | Amount::AtLeast(held)) = *held;
            let wanted = evasion.most_generous() * 9 / 10;
            if held < wanted && evasion.weaker.is_none() {
                wrong.push(format!("{name}: {held} < {wanted}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
