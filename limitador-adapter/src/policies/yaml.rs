//! Converts between documents and YAML (and therefore JSON). No other file uses the YAML crate.

use serde_json::Value;
use serde_saphyr::UserMessageFormatter;

/// The maximum size of a file. No policy is nearly as large.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Returns the non-empty documents of a file, in order. An error includes the line and column.
///
/// Duplicate keys are errors, because one of the two values would be ignored. `yes` and `on` are strings, not
/// booleans.
pub fn parse(bytes: &[u8]) -> Result<Vec<Value>, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("is larger than {MAX_BYTES} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {error}"))?;
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let told = error.render_with_formatter(&UserMessageFormatter);
        format!("is not valid YAML: {}", told.split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

/// Formats a document as YAML.
pub fn render(document: &Value) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn several_documents_and_the_types_of_scalars() {
        let text = b"---\nlimit: 20000\nwindow: 24h\nflag: true\nword: yes\n---\n\n---\n{\"json\": [1, \"a\", null]}\n";
        let wanted = [
            json!({"limit": 20000, "window": "24h", "flag": true, "word": "yes"}),
            json!({"json": [1, "a", null]}),
        ];
        assert_eq!(parse(text).unwrap(), wanted);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_place() {
        let bad: [(&str, &[u8]); 5] = [
            ("duplicate key", b"a: 1\nb: 2\na: 3\n"),
            ("duplicate key in JSON", br#"{"a": 1, "a": 2}"#),
            ("indentation", b"a:\n  b: 1\n c: 2\n"),
            ("unclosed", b"a: [1, 2\nb: 3\n"),
            ("not UTF-8", b"a: \xff\n"),
        ];
        let told: Vec<_> =
            bad.iter().map(|(name, text)| format!("{name}: {}", parse(text).expect_err(name))).collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
