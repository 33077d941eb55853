//! Realistic requests of every dialect, and the facts of each.

use crate::difference;
use llm::request::{self, Condition, Extent, Pointed, RequestBody, edit};
use std::fmt::Write as _;

/// A file of the corpus: path, content type, body.
pub struct Sample {
    pub name: String,
    pub path: String,
    pub content_type: String,
    pub body: Vec<u8>,
}

pub fn corpus() -> Vec<Sample> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let bytes = std::fs::read(&file).unwrap();
            let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
            let mut line = || String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
            let path = line().strip_prefix("POST ").unwrap().to_owned();
            let content_type = line().strip_prefix("content-type: ").unwrap().to_owned();
            assert_eq!(line(), "");
            let body = lines.next().unwrap().to_vec();
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            Sample { name, path, content_type, body }
        })
        .collect()
}

impl Sample {
    pub fn read(&self) -> RequestBody {
        request::read(&self.path, &self.content_type, &self.body, Extent::Whole)
    }
}

#[test]
fn every_dialect_is_read() {
    let mut told = String::new();
    for sample in corpus() {
        let body = sample.read();
        writeln!(
            told,
            "{}: {:?} {} {}{} | input {} output {} (max {:?} x {})",
            sample.name,
            body.dialect,
            body.operation.name(),
            body.model.as_deref().unwrap_or("-"),
            if body.stream { " stream" } else { "" },
            body.input,
            body.output(1024),
            body.max_output,
            body.completions,
        )
        .unwrap();
        let metadata = match request::pointed(&sample.body, "/metadata") {
            Pointed::Value(metadata) if metadata.is_object() => Some(metadata.to_string()),
            _ => None,
        };
        if let (None, None, None, Condition::Read) = (&body.user, &body.session, &metadata, body.condition) {
            continue;
        }
        let RequestBody { user, session, condition, .. } = &body;
        writeln!(told, "    user {user:?} session {session:?} metadata {metadata:?} {}", condition.name())
            .unwrap();
    }
    insta::assert_snapshot!(told);
}

#[test]
fn what_weir_adds_to_each_dialect() {
    let mut told = String::new();
    for sample in corpus() {
        let body = sample.read();
        let usage = edit::ask_for_usage(&body, &sample.body).unwrap();
        let capped = edit::cap_output(&body, &sample.body, 250).unwrap();
        for (what, edited) in [("usage", usage.body), ("cap", capped)] {
            let Some(edited) = edited else { continue };
            let (at, old, new) = difference(&sample.body, &edited);
            let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
            writeln!(told, "{}: {what} at {at}: {old:?} -> {new:?}", sample.name).unwrap();
        }
    }
    insta::assert_snapshot!(told);
}
