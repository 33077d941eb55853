//! A path, a line end, and any bytes as the request's body: read; and edited only where it is valid JSON, which it
//! then stays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::request::{self, Extent, edit};
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let path = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let body = parts.next().unwrap_or_default();
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let _ = request::decode(encoding, body, Extent::Whole, 1 << 16);
    }
    let _ = request::read(&path, "multipart/form-data; boundary=x", body, Extent::Whole);
    let _ = request::read(&path, "application/json", body, Extent::Cut(None));
    let facts = request::read(&path, "application/json", body, Extent::Whole);
    let json = |body: &[u8]| {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        serde_json::from_slice::<&RawValue>(body).is_ok()
    };
    let again = |body: &[u8]| request::read(&path, "application/json", body, Extent::Whole);
    if let Some(edited) = edit::ask_for_usage(&facts, body).body {
        assert!(json(body) && json(&edited));
        assert_eq!(edit::ask_for_usage(&again(&edited), &edited), edit::UsageRequest::default());
    }
    if let Some(edited) = edit::cap_output(&facts, body, 250) {
        assert!(json(body) && json(&edited));
        assert_eq!(edit::cap_output(&again(&edited), &edited, 250), None);
    }
});
