//! Reads and edits an arbitrary request body under any label. The input is a path, a line end, and the body.
//! Valid JSON stays valid.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::request::{self, Extent, Wire, edit};
use serde_json::value::RawValue;

/// Returns the number of bytes in strings that may be files: short URLs, or base64 with few other characters.
/// In any place, they may count as constants.
fn files(body: &[u8]) -> usize {
    let is_foreign = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"+/=_-\r\n".contains(byte);
    let file = |string: &[u8]| {
        let is_url = string.windows(3).take(16).any(|part| part == b"://");
        match string.iter().filter(|byte| is_foreign(byte)).count() {
            _ if is_url => string.len().min(4096),
            0..=16 => string.len(),
            _ => 0,
        }
    };
    body.split(|byte| *byte == b'"').filter(|string| string.len() > 20).map(file).sum()
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let path = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let body = parts.next().unwrap_or_default();
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let (content_type, extent) = ("multipart/form-data; boundary=x", Extent::Whole);
        let wire = Wire {
            method: "",
            path: &path,
            content_type,
            content_encoding: encoding,
            body,
            extent,
            most: 1 << 16,
        };
        let read = wire.read().body;
        assert!(
            !read.condition.hides_facts()
                || !read.operation.uses_tokens()
                || read.input + 16 >= (body.len() - files(body)) as u64 / 4
        );
    }
    let _ = request::read(&path, "multipart/form-data; boundary=x", body, Extent::Whole);
    let _ = request::read(&path, "application/json", body, Extent::Cut(None));
    let facts = request::read(&path, "application/json", body, Extent::Whole);
    let json = |body: &[u8]| {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        serde_json::from_slice::<&RawValue>(body).is_ok()
    };
    let again = |body: &[u8]| request::read(&path, "application/json", body, Extent::Whole);
    if let Ok(edit::UsageRequest { body: Some(edited), .. }) = edit::ask_for_usage(&facts, body) {
        assert!(!json(body) || json(&edited));
        assert_eq!(edit::ask_for_usage(&again(&edited), &edited), Ok(edit::UsageRequest::default()));
    }
    if let Ok(Some(edited)) = edit::cap_output(&facts, body, 250) {
        assert!(!json(body) || json(&edited));
        assert_eq!(edit::cap_output(&again(&edited), &edited, 250), Ok(None));
    }
});
