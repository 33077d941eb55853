//! Bodies from providers (`tests/responses/`), each with a file that has the expected usage.

use crate::{frames, in_pieces};
use llm::response::{MeterReading, ResponseHead, Usage};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

/// One body.
pub struct Case {
    pub name: String,
    pub head: ResponseHead,
    pub body: Vec<u8>,
    pub expected: MeterReading,
    /// The boundaries between events. Empty for a body with one document.
    pub ends: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Expected {
    status: u16,
    headers: BTreeMap<String, String>,
    usage: Option<Counts>,
    delivered: u64,
    uncovered: u64,
    ended_in_error: bool,
    broken: Option<String>,
    #[serde(default)]
    only_total: bool,
    #[serde(default)]
    other_unit: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Counts {
    input: u64,
    output: u64,
    total: u64,
    cached: u64,
    #[serde(default)]
    cache_write: u64,
    #[serde(default, rename = "cacheWrite1h")]
    cache_write_1h: u64,
    reasoning: u64,
}

pub fn cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(load);
    &CASES
}

fn load() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/responses");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".expected"))
        .collect();
    names.sort();
    assert!(names.len() > 80, "the corpus is not where it should be");
    names.into_iter().map(|name| case(&folder, name)).collect()
}

fn case(folder: &Path, name: String) -> Case {
    let body = std::fs::read(folder.join(&name)).unwrap();
    let expected = std::fs::read(folder.join(format!("{name}.expected"))).unwrap();
    let expected: Expected = serde_json::from_slice(&expected).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (body, ends) = match name.rsplit('.').next() {
        Some("frames") => frames::encode(&body),
        Some("sse") => (body.clone(), after_each(&body, is_event_end)),
        Some("ndjson") => (body.clone(), after_each(&body, |before| before.ends_with(b"\n"))),
        _ => (body, Vec::new()),
    };
    let header = |name: &str| expected.headers.get(name).cloned().unwrap_or_default();
    let head = ResponseHead {
        status: expected.status,
        content_type: header("content-type"),
        content_encoding: header("content-encoding"),
        usage_headers: expected.headers.clone().into_iter().collect(),
    };
    let usage = expected.usage.map(|counts| Usage {
        input: counts.input,
        output: counts.output,
        total: counts.total,
        cached: counts.cached,
        cache_write: counts.cache_write,
        cache_write_1h: counts.cache_write_1h,
        reasoning: counts.reasoning,
    });
    assert!(expected.broken.is_none(), "{name}: the corpus holds sound bodies");
    let expected = MeterReading {
        usage,
        only_total: expected.only_total,
        other_unit: expected.other_unit,
        delivered: expected.delivered,
        uncovered: expected.uncovered,
        ended_in_error: expected.ended_in_error,
        quoted: false,
        doubtful: in_pieces(&head, &body, usize::MAX).doubtful,
        doubtful_total: in_pieces(&head, &body, usize::MAX).doubtful_total,
        broken: None,
    };
    Case { name, head, body, expected, ends }
}

fn after_each(body: &[u8], ends: impl Fn(&[u8]) -> bool) -> Vec<usize> {
    (1..=body.len()).filter(|at| ends(&body[..*at])).collect()
}

fn is_event_end(before: &[u8]) -> bool {
    [&b"\n\n"[..], b"\r\r", b"\r\n\r\n"].iter().any(|end| before.ends_with(end))
}
