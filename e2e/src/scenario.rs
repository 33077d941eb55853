//! Stories in YAML. A story has a policy, client requests, the provider's answers, and the expected outcome.
//!
//! [`run`] plays a story with any [`Player`]: through a real Envoy ([`envoy::ThroughEnvoy`]), or natively
//! with the core and the adapter's ledger. `e2e/scenarios/README.md` describes the format.

mod date;
pub mod envoy;
mod evasion;
mod expect;
mod recipe;
mod run;

pub use date::Date;
pub use evasion::Evasion;
pub use expect::{Amount, Bucket, Expected};
pub use run::{Player, Seen, run};

use crate::artefacts;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Story {
    /// A description of the story for its readers.
    pub about: String,
    /// The ids of the sentences in `e2e/scenarios/SENTENCES.md` that the story shows.
    #[serde(default)]
    pub shows: Vec<String>,
    /// Why the story is not played through a real Envoy.
    pub natively: Option<String>,
    /// The start date, such as `2026-01-31T23:00Z`. Only the native player supports it.
    pub begins: Option<Date>,
    /// The path of the Envoy configuration in the repository; `e2e/envoy.yaml` by default. `readsBodies` must
    /// match its setting.
    pub gateway: Option<PathBuf>,
    /// If set, the filter buffers request bodies and reads up to this many bytes of each.
    pub reads_bodies: Option<usize>,
    /// The policies in force from the start.
    pub policies: Vec<PolicySource>,
    /// The claims of each user.
    #[serde(default)]
    pub people: BTreeMap<String, Value>,
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// The source of a policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum PolicySource {
    /// The path of a YAML file in the repository.
    File { file: PathBuf },
    /// The policy itself.
    Inline(Value),
}

/// A step of a story.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Step {
    /// A complete request.
    Request(Box<Request>),
    /// A named request that stays open.
    Open(Box<Opened>),
    /// Completes a request that stays open.
    Finish(Finished),
    /// The client of a named request disconnects.
    HangUp(String),
    /// The expected buckets. Buckets that are not listed are ignored.
    Counters(Vec<Bucket>),
    /// Replaces the policies in force.
    Policies(Vec<PolicySource>),
    /// Stops, continues, kills or restarts the adapter.
    Adapter(AdapterFate),
    /// Lets time pass.
    #[serde(deserialize_with = "duration")]
    Pass(Duration),
}

/// A request, the provider's answer, and the expected outcome.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Request {
    /// The user. If absent, the request has no token.
    #[serde(rename = "as")]
    pub who: Option<String>,
    /// POST by default.
    #[serde(default = "post")]
    pub method: String,
    /// The path and query.
    #[serde(default = "chat")]
    pub path: String,
    /// Headers in addition to those of every request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// JSON or text; a chat completion by default.
    #[serde(default = "hello")]
    pub body: Value,
    /// The exact request, which replaces `headers` and `body`.
    #[serde(skip)]
    pub exact: Option<Exact>,
    /// The provider's answer, if it receives the request.
    #[serde(default)]
    pub answer: Answer,
    /// How many times to send the request, one after another.
    #[serde(default = "once")]
    pub times: u32,
    /// The expected outcome of each request.
    pub expect: Option<Expected>,
}

/// A request's exact header lines and body.
#[derive(Clone, Debug)]
pub struct Exact {
    /// Headers in addition to those of every request.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether to send it without a content-length.
    pub chunked: bool,
}

/// A request that stays open.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// The name for later steps.
    pub name: String,
    /// The request. `expect` is the outcome so far. A request that reaches the provider has no status yet.
    pub request: Request,
}

/// The completion of an open request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// The name of the request.
    pub name: String,
    /// The expected outcome.
    pub expect: Option<Expected>,
}

/// The provider's answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Answer {
    /// 200 by default.
    pub status: Option<u16>,
    /// A content-type of JSON is added by default.
    pub headers: BTreeMap<String, String>,
    /// The answer is a chat completion that used this many tokens.
    pub usage: Option<u64>,
    /// JSON or text; a chat completion that used 10 tokens by default.
    pub body: Option<Value>,
    /// The body in exactly these chunks.
    pub pieces: Vec<String>,
    /// The body in chunks of this size.
    pub pieces_of: Option<usize>,
    /// How many chunks the client of an open request receives before the request is finished. By default, the
    /// client receives nothing, not even the headers.
    pub before: usize,
    /// How the answer ends.
    pub ending: Ending,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ending {
    /// Completely.
    #[default]
    Whole,
    /// Completely, with trailers after the body.
    Trailers,
    /// The provider resets the connection after the last chunk.
    Reset,
    /// The provider resets the connection before the headers.
    NoHead,
}

/// An action on the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AdapterFate {
    /// The adapter is stopped and does not answer.
    Frozen,
    /// The adapter continues.
    Thawed,
    /// The adapter is killed and loses its counters in memory.
    Killed,
    /// The adapter is restarted.
    Restarted,
}

impl Story {
    /// Reads a story from a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
        let value: Value = serde_saphyr::from_str(&text).map_err(|error| told(&error))?;
        let story: Self = serde_json::from_value(value).map_err(|error| told(&error))?;
        if story.begins.is_some() && story.natively.is_none() {
            return Err(told(&"begins on a date, which only the native player supports: add `natively`"));
        }
        Ok(story)
    }

    /// Returns whether the story may be played through an Envoy that has played other stories. Faults of the
    /// adapter affect the filter for a while, and the filter remembers failures for a minute.
    pub fn shares_envoy(&self) -> bool {
        let fate = |step: &Step| matches!(step, Step::Adapter(_));
        let counts_failures = |source: &PolicySource| {
            source.objects().iter().any(|policy| policy.to_string().contains("failuresLastMinute"))
        };
        let mut policies = self.policies.iter().chain(self.steps.iter().flat_map(Step::policies));
        self.gateway.is_none() && !self.steps.iter().any(fate) && !policies.any(counts_failures)
    }

    /// Returns every story in `e2e/scenarios`, the examples, and the recipes in `docs`, sorted by name.
    pub fn all() -> Vec<(String, PathBuf)> {
        let own = listed("e2e/scenarios").into_iter().filter_map(|path| {
            let is_story = path.extension().is_some_and(|extension| extension == "yaml");
            is_story.then(|| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path))
        });
        let examples = listed("examples").into_iter().filter_map(|folder| {
            let name = format!("examples/{}", folder.file_name().unwrap_or_default().to_string_lossy());
            Some((name, folder.join("story.yaml"))).filter(|(_, story)| story.exists())
        });
        let recipes = listed("docs/recipes").into_iter().filter_map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = name.strip_suffix(".story.yaml")?.to_owned();
            Some((format!("docs/recipes/{name}"), path))
        });
        own.chain(examples).chain(recipes).collect()
    }
}

/// Returns the sorted contents of a folder in the repository.
fn listed(folder: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(artefacts::root().join(folder)).expect("the folder is there");
    let mut paths: Vec<_> = files.map(|file| file.expect("a folder can be listed").path()).collect();
    paths.sort();
    paths
}

impl Step {
    /// Returns the policies that the story puts into force.
    fn policies(&self) -> &[PolicySource] {
        if let Self::Policies(policies) = self { policies } else { &[] }
    }
}

impl PolicySource {
    /// Returns the policies as objects.
    pub fn objects(&self) -> Vec<Value> {
        match self {
            Self::Inline(policy) => vec![policy.clone()],
            Self::File { file } => {
                let path = artefacts::root().join(file);
                let text = std::fs::read_to_string(&path)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let documents = serde_saphyr::from_multiple(&text);
                documents.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            }
        }
    }
}

impl Request {
    /// Returns the body's bytes, compressed if a header requires it.
    pub fn bytes(&self) -> Vec<u8> {
        if let Some(exact) = &self.exact {
            return exact.body.clone();
        }
        let body = bytes(&self.body);
        if self.headers.get("content-encoding").is_none_or(|encoding| encoding != "gzip") {
            return body;
        }
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&body).expect("memory takes bytes");
        encoder.finish().expect("memory takes bytes")
    }
}

impl Request {
    /// Returns the headers in addition to those that every request has.
    pub fn lines(&self) -> Vec<(String, String)> {
        if let Some(exact) = &self.exact {
            return exact.headers.clone();
        }
        self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Returns whether the request has no content-length.
    pub fn is_chunked(&self) -> bool {
        self.exact.as_ref().is_some_and(|exact| exact.chunked)
    }
}

impl Answer {
    /// Returns the status, 200 by default.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(200)
    }

    /// Returns the headers, including a content-type.
    pub fn headers(&self) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        headers.entry("content-type".to_owned()).or_insert_with(|| "application/json".to_owned());
        headers.into_iter().collect()
    }

    /// Returns the chunks of the body.
    pub fn pieces(&self) -> Vec<Vec<u8>> {
        if !self.pieces.is_empty() {
            return self.pieces.iter().map(|piece| piece.clone().into_bytes()).collect();
        }
        let used = self.usage.unwrap_or(10);
        let completion = || crate::llm::completion("gpt-4o", "Hello.", 1, used.saturating_sub(1));
        let body = bytes(&self.body.clone().unwrap_or_else(completion));
        body.chunks(self.pieces_of.unwrap_or(usize::MAX).max(1)).map(<[u8]>::to_vec).collect()
    }
}

fn bytes(body: &Value) -> Vec<u8> {
    match body {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        json => json.to_string().into_bytes(),
    }
}

fn post() -> String {
    "POST".into()
}

fn chat() -> String {
    "/v1/chat/completions".into()
}

fn hello() -> Value {
    json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": "Hello" }] })
}

fn once() -> u32 {
    1
}

/// Parses a duration, such as `1500ms`, `2s`, `15m` or `24h`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(serde::de::Error::custom(format!("{text}: wanted a number and ms, s, m or h"))),
    };
    let number: u64 = number.parse().map_err(serde::de::Error::custom)?;
    Ok(Duration::from_millis(number * ms))
}
