//! Exchanges rebuilt from public reports and providers' documentation (`e2e/metering/`). Each one must be
//! charged correctly: in its original pieces, split at every byte, byte by byte, and in every encoding. Run
//! `cargo test -p engine --test metering`, or add a part of a name to play fewer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::outbox::{CommitRoute, Outbox};
use expression::facts::Facts;
use flate2::write::{GzEncoder, ZlibEncoder};
use libtest_mimic::{Arguments, Failed, Trial};
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveResponse};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

/// The counts to compare. Each one is the name of a `cost`.
const COUNTS: [&str; 7] = ["total", "input", "output", "cached", "reasoning", "cacheWrite", "cacheWrite1h"];
/// The maximum length of bodies that are split at every byte.
const SHORT: usize = 3000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(rename = "source")]
    _source: String,
    #[serde(default = "post")]
    method: String,
    path: String,
    #[serde(default)]
    request_headers: BTreeMap<String, String>,
    body: Value,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    chunks: Vec<Chunk>,
    #[serde(default)]
    gap: f64,
    #[serde(default)]
    cut: bool,
    #[serde(default, rename = "trailers")]
    _trailers: Option<Value>,
    #[serde(default = "once")]
    times: u64,
    hangup_after: Option<f64>,
    #[serde(default)]
    access: Option<String>,
    right: BTreeMap<String, Right>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Chunk {
    Text(String),
    Base64 { b64: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Right {
    Count(u64),
    Range(u64, u64),
}

fn post() -> String {
    "POST".into()
}

fn ok() -> u16 {
    200
}

fn once() -> u64 {
    1
}

impl Case {
    fn sent(&self) -> Option<Vec<u8>> {
        match &self.body {
            Value::Null => None,
            Value::String(text) => Some(text.clone().into_bytes()),
            json => Some(serde_json::to_vec(json).unwrap()),
        }
    }

    fn chunks(&self) -> Vec<Vec<u8>> {
        let bytes = |chunk: &Chunk| match chunk {
            Chunk::Text(text) => text.clone().into_bytes(),
            Chunk::Base64 { b64 } => base64(b64),
        };
        // The chunks that arrive before the client leaves.
        let come = match self.hangup_after {
            Some(seconds) if self.gap > 0.0 => (seconds / self.gap) as usize,
            _ => usize::MAX,
        };
        self.chunks.iter().take(come).map(bytes).collect()
    }

    /// Returns the sum of the charges of this case if the response arrives in these pieces.
    fn charged(&self, encoding: Option<&str>, pieces: &[Vec<u8>]) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for number in 0..self.times {
            for (name, charge) in COUNTS.iter().zip(self.exchange(number, encoding, pieces)) {
                *sums.entry(*name).or_insert(0) += charge;
            }
        }
        sums
    }

    fn exchange(&self, number: u64, encoding: Option<&str>, pieces: &[Vec<u8>]) -> Vec<u64> {
        let access = match self.access.as_deref() {
            None | Some("Buffer") => BodyAccess::Buffer(16 << 20),
            Some(_) => BodyAccess::None,
        };
        let plan = plan().with_body(access);
        let mut exchange = Exchange::new(
            ActivePlan::Plan(Arc::new(plan)),
            ReservationId { prefix: "w".into(), number: number + 1 },
        );
        let sent = self.sent();
        let mut facts = Facts::default();
        facts.header(":path", self.path.as_bytes());
        facts.header(":method", self.method.as_bytes());
        if let Some(body) = &sent {
            facts.header("content-length", body.len().to_string().as_bytes());
            if !self.request_headers.contains_key("content-type") {
                facts.header("content-type", b"application/json");
            }
        }
        for (name, value) in &self.request_headers {
            facts.header(name, value.as_bytes());
        }
        let bodiless = sent.is_none();
        let mut effects = exchange.handle(Event::Request { facts, bodiless });
        if let Some(Effect::AwaitBody(_)) = effects.first() {
            let body = sent.unwrap_or_default();
            effects = exchange.handle(Event::RequestBody { body: &body, end: true });
        }
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Reserve(_))), "{effects:?}");
        let reply = ReserveResponse { code: Code::Ok.into(), ..Default::default() };
        exchange.handle(Event::Reply(Ok(reply)));
        let header = |name: &str| match (name, encoding) {
            ("content-encoding", Some(encoding)) => Some(encoding.to_owned()),
            _ => self.headers.get(name).cloned(),
        };
        let head = ResponseHead::from_headers(self.status, &[], header);
        exchange.handle(Event::Response(head));
        for piece in pieces {
            // Nothing is charged before the end. Raised holds are not charges.
            let effects = exchange.handle(Event::Body { chunk: piece, end: false });
            assert!(effects.iter().all(|effect| matches!(effect, Effect::Raise(_))), "{effects:?}");
        }
        let is_cut = self.cut || self.hangup_after.is_some();
        let end = if is_cut { Event::Closed } else { Event::Body { chunk: &[], end: true } };
        let effects = exchange.handle(end);
        let mut outbox = Outbox::new(usize::MAX);
        for effect in effects {
            if let Effect::Commit(settlement) = effect {
                outbox.push(settlement);
            }
        }
        charges(&mut outbox)
    }
}

/// Returns the charge of each limit, in the order of [`COUNTS`]. A limit that does not apply charges nothing.
fn charges(outbox: &mut Outbox) -> Vec<u64> {
    let call = outbox.send(CommitRoute::Unary, 0).expect("a commit");
    let commit = CommitRequest::decode(&*call.message).unwrap();
    let of = |name: &str| {
        let limit = format!("/limit-{name}");
        let is_of = |descriptor: &&RateLimitDescriptor| {
            descriptor.entries.iter().any(|entry| entry.value.ends_with(&limit))
        };
        commit.descriptors.iter().find(is_of).and_then(|descriptor| descriptor.hits_addend).unwrap_or(0)
    };
    COUNTS.map(of).into()
}

/// Builds a plan with one rate for each of [`COUNTS`]. Each exchange has its own, because plans learn from responses.
fn plan() -> Plan {
    static POLICY: LazyLock<Policy> = LazyLock::new(policy);
    Plan::new(vec![POLICY.clone()])
}

fn policy() -> Policy {
    let rate = |name: &str| json!({"rates": [{"limit": 1_000_000_000, "window": "1h", "cost": format!("usage.{name}")}]});
    let limits: serde_json::Map<String, Value> = COUNTS
        .iter()
        .map(|name| {
            let limit = match *name {
                "total" => json!({"rates": [{"limit": 1_000_000_000, "window": "1h"}]}),
                "input" | "output" => json!({"rates": [{
                    "limit": 1_000_000_000, "window": "1h", "unit": format!("{name}Tokens"),
                }]}),
                name => rate(name),
            };
            (format!("limit-{name}"), limit)
        })
        .collect();
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": limits,
        },
    });
    Policy::read(&document).expect("a good policy")
}

/// Returns all charges if one of them differs from the expected charge.
fn wrong(case: &Case, how: &str, charged: &BTreeMap<&str, u64>) -> Option<String> {
    let fits = |name: &str, right: &Right| match (charged.get(name), right) {
        (Some(charge), Right::Count(count)) => charge == count,
        (Some(charge), Right::Range(from, to)) => (from..=to).contains(&charge),
        (None, _) => false,
    };
    let all = case.right.iter().all(|(name, right)| fits(name, right));
    (!all).then(|| format!("{how}: charged {charged:?}"))
}

/// Plays a case in every way, and returns the first way with a wrong charge.
fn play(case: &Case) -> Result<(), Failed> {
    let chunks = case.chunks();
    let whole = chunks.concat();
    let judge = |how: &str, encoding: Option<&str>, pieces: &[Vec<u8>]| {
        wrong(case, how, &case.charged(encoding, pieces)).map_or(Ok(()), |wrong| Err(Failed::from(wrong)))
    };
    judge("as it came", None, &chunks)?;
    judge("in one piece", None, std::slice::from_ref(&whole))?;
    judge("byte by byte", None, &whole.iter().map(|byte| vec![*byte]).collect::<Vec<_>>())?;
    let step = whole.len().div_ceil(if whole.len() <= SHORT { SHORT } else { 64 }).max(1);
    for at in (0..=whole.len()).step_by(step) {
        let (first, second) = whole.split_at(at);
        judge(&format!("split at byte {at}"), None, &[first.to_vec(), second.to_vec()])?;
    }
    if case.headers.contains_key("content-encoding") || case.cut || case.hangup_after.is_some() {
        return Ok(());
    }
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let body = encode(&whole, encoding);
        judge(encoding, Some(encoding), std::slice::from_ref(&body))?;
        judge(&format!("{encoding}, without its label"), None, std::slice::from_ref(&body))
            .or_else(|failed| if encoding == "br" { Ok(()) } else { Err(failed) })?;
        let pieces: Vec<Vec<u8>> = body.chunks(7).map(<[u8]>::to_vec).collect();
        judge(&format!("{encoding} in pieces"), Some(encoding), &pieces)?;
    }
    let twice = encode(&encode(&whole, "br"), "gzip");
    judge("br and gzip", Some("br, gzip"), &[twice])
}

fn encode(bytes: &[u8], encoding: &str) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoder = brotli_encoder::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(bytes).unwrap();
            encoder.into_inner()
        }
        _ => libzstd::encode_all(bytes, 3).unwrap(),
    }
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = ALPHABET.iter().position(|known| *known == byte).expect("base64");
        bits = bits << 6 | u32::try_from(digit).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("WEIR_METERING").map_or(root.join("e2e/metering"), PathBuf::from);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no cases in {}", folder.display());
    files
}

fn main() -> ExitCode {
    let trial = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Trial::test(name, move || {
            let case: Case = serde_json::from_slice(&std::fs::read(&path)?)?;
            play(&case)
        })
    };
    libtest_mimic::run(&Arguments::from_args(), files().into_iter().map(trial).collect()).exit_code()
}
