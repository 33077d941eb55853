//! The exchanges in `metering/` and their expected charges. The README there explains each field.

use crate::artefacts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The parts of an exchange's usage that are compared.
pub const COUNTS: [&str; 7] =
    ["total", "input", "output", "cached", "reasoning", "cacheWrite", "cacheWrite1h"];

/// One exchange.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeteredExchange {
    /// The file name without its extension.
    #[serde(skip)]
    pub name: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(default = "post")]
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub request_headers: BTreeMap<String, String>,
    pub body: Value,
    #[serde(default = "ok")]
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    chunks: Vec<BodyPiece>,
    #[serde(default)]
    gap: f64,
    #[serde(default)]
    pub cut: bool,
    #[serde(default, rename = "trailers")]
    pub trailers: BTreeMap<String, String>,
    #[serde(default = "once")]
    pub times: u64,
    pub hangup_after: Option<f64>,
    #[serde(default)]
    pub access: Option<String>,
    pub right: BTreeMap<String, RightCharge>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BodyPiece {
    Text(String),
    Base64 { b64: String },
}

/// The expected charge.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum RightCharge {
    Exactly(u64),
    Between(u64, u64),
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

impl MeteredExchange {
    /// Returns all exchanges, sorted by name.
    pub fn all() -> Vec<Self> {
        let folder = artefacts::root().join("e2e/metering");
        let files = std::fs::read_dir(&folder).expect("the folder is there");
        let mut files: Vec<_> = files.map(|entry| entry.expect("an entry").path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let read = |path: std::path::PathBuf| {
            let text = std::fs::read(&path).expect("a file can be read");
            let mut exchange: Self =
                serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            exchange.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            exchange
        };
        files.into_iter().map(read).collect()
    }

    /// Returns the body that the client sends.
    pub fn sent(&self) -> Option<Vec<u8>> {
        match &self.body {
            Value::Null => None,
            Value::String(text) => Some(text.clone().into_bytes()),
            json => Some(json.to_string().into_bytes()),
        }
    }

    /// Returns the chunks that the upstream sends until the client disconnects.
    pub fn chunks(&self) -> Vec<Vec<u8>> {
        let bytes = |chunk: &BodyPiece| match chunk {
            BodyPiece::Text(text) => text.clone().into_bytes(),
            BodyPiece::Base64 { b64 } => BASE64.decode(b64).expect("base64"),
        };
        let come = match self.hangup_after {
            Some(seconds) if self.gap > 0.0 => (seconds / self.gap) as usize,
            _ => usize::MAX,
        };
        self.chunks.iter().take(come).map(bytes).filter(|chunk| !chunk.is_empty()).collect()
    }

    /// Returns whether this is the expected charge.
    pub fn fits(&self, charged: &BTreeMap<&str, u64>) -> bool {
        self.right.iter().all(|(name, right)| match (charged.get(name.as_str()), right) {
            (Some(charge), RightCharge::Exactly(count)) => charge == count,
            (Some(charge), RightCharge::Between(from, to)) => (from..=to).contains(&charge),
            (None, _) => false,
        })
    }
}
