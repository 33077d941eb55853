//! Finds the value that a JSON pointer (RFC 6901) names in a body: `/messages/0/content`. Only the values
//! along the path are examined. If a key is repeated, the last one counts, as in most parsers. A key in another
//! case counts if there is no exact one, because servers in Go ignore the case.

use super::members::{element, members};
use super::{METADATA, lenient};
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;

/// The result of following a pointer.
#[derive(Clone, Debug, PartialEq)]
pub enum Pointed {
    /// There is no value.
    Absent,
    /// A value.
    Value(Value),
    /// A value of more than [`METADATA`] bytes, or with a tree that is deeper than a parser's limit or takes more
    /// than a megabyte.
    TooLarge,
}

/// Follows the pointer.
pub fn pointed(body: &[u8], pointer: &str) -> Pointed {
    match find(body, pointer).and_then(|value| body.get(value)) {
        None => Pointed::Absent,
        Some(text) if text.len() > METADATA => Pointed::TooLarge,
        Some(text) => lenient::parsed(text),
    }
}

fn find(body: &[u8], pointer: &str) -> Option<Range<usize>> {
    let start = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut value = start..body.len();
    for part in pointer.split('/').skip(1) {
        value = step(body, value, &unescaped(part))?;
    }
    Some(value)
}

fn step(body: &[u8], value: Range<usize>, name: &str) -> Option<Range<usize>> {
    if body.get(value.clone())?.trim_ascii_start().starts_with(b"[") {
        // An index has no leading zero and no sign.
        let plain = name == "0" || !name.starts_with('0') && name.bytes().all(|b| b.is_ascii_digit());
        return element(body, value.start, name.parse().ok().filter(|_| plain)?);
    }
    let found = members(body, value.start, &[name])?.found;
    let exact = found.iter().rfind(|member| member.exact);
    exact.or(found.last()).map(|member| member.value.clone())
}

fn unescaped(part: &str) -> Cow<'_, str> {
    if part.contains('~') { Cow::Owned(part.replace("~1", "/").replace("~0", "~")) } else { part.into() }
}

#[cfg(test)]
mod tests {
    use super::super::METADATA;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pointer_names_what_serde_json_says_it_names() {
        let document = json!({
            "model": "m", "": 1, "a/b": 2, "m~n": 3, "0": 4,
            "messages": [{"content": "one"}, {"content": [null, true, 1.5]}],
        });
        let text = document.to_string();
        for pointer in [
            "",
            "/model",
            "/",
            "/a~1b",
            "/m~0n",
            "/0",
            "/messages/0/content",
            "/messages/1/content/2",
            "/messages/1",
            "/messages/01",
            "/messages/-",
            "/messages/+1",
            "/messages/2",
            "/model/x",
            "/nobody",
        ] {
            let expected = document.pointer(pointer).cloned().map_or(Pointed::Absent, Pointed::Value);
            assert_eq!(pointed(text.as_bytes(), pointer), expected, "{pointer}");
        }
    }

    #[test]
    fn what_is_no_json_has_no_parts() {
        for text in ["", "{", "[1,", "nul"] {
            assert_eq!(pointed(text.as_bytes(), "/a"), Pointed::Absent, "{text}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(pointed(deep.as_bytes(), "/0/1"), Pointed::Absent);
        assert_eq!(pointed(br#"{"a":1,"a":2}"#, "/a"), Pointed::Value(json!(2)));
    }

    #[test]
    fn a_key_in_another_case_counts_if_there_is_no_exact_one() {
        for (text, expected) in [
            (r#"{"MODEL":"m"}"#, json!("m")),
            (r#"{"Model":"a","mOdel":"m"}"#, json!("m")),
            (r#"{"model":"m","MODEL":"a"}"#, json!("m")),
            (r#"{"MODEL":"a","model":"m"}"#, json!("m")),
            (r#"{"mod\u0045l":"m"}"#, json!("m")),
        ] {
            assert_eq!(pointed(text.as_bytes(), "/model"), Pointed::Value(expected), "{text}");
        }
        assert_eq!(pointed(br#"{"A":[{"B":1}]}"#, "/a/0/b"), Pointed::Value(json!(1)));
    }

    #[test]
    fn what_is_too_large_is_not_absent() {
        let long = format!("{{\"a\":\"{}\",\"b\":1}}", "x".repeat(METADATA));
        assert_eq!(pointed(long.as_bytes(), "/a"), Pointed::TooLarge);
        assert_eq!(pointed(long.as_bytes(), "/b"), Pointed::Value(json!(1)));
        let nodes = format!("{{\"a\":[{}0]}}", "{\"\":0},".repeat(9000));
        assert!(nodes.len() < METADATA);
        assert_eq!(pointed(nodes.as_bytes(), "/a"), Pointed::TooLarge);
        let deep = format!("{{\"a\":[{}{}]}}", "[".repeat(2000), "]".repeat(2000));
        assert_eq!(pointed(deep.as_bytes(), "/a"), Pointed::TooLarge);
    }
}
