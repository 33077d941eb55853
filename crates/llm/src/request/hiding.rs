//! Parameters with which a client hides the usage of a response. All of Google's APIs have them
//! (<https://cloud.google.com/apis/docs/system-parameters>): a field mask can leave out the usage, and other formats
//! than JSON cannot be read.

use crate::spelling;
use memchr::{memchr, memchr2, memrchr};

/// The header for a field mask.
pub const FIELD_MASK: &str = "x-goog-fieldmask";

/// How a request hides its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageHiding {
    /// A field mask does not include it.
    FieldMask,
    /// The response is not plain JSON.
    Format,
}

impl UsageHiding {
    /// Returns the name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::FieldMask => "field_mask",
            Self::Format => "format",
        }
    }

    /// Returns the message for the client.
    pub fn message(self) -> &'static str {
        match self {
            Self::FieldMask => {
                "The field mask (`fields` or `X-Goog-FieldMask`) leaves out the usage, which the gateway counts. Please add \
                 `usageMetadata` to it."
            }
            Self::Format => {
                "The gateway cannot read the usage in this format. Please set `alt` to `json` or `sse`, and do not set \
                 `callback`."
            }
        }
    }
}

/// Returns whether the path may be of an API with such parameters. This is asked about every request, so it looks at each
/// byte only once.
pub fn may_hide_usage(path: &str) -> bool {
    let path = path.as_bytes();
    let path = memchr(b'?', path).and_then(|end| path.get(..end)).unwrap_or(path);
    let is_of_google = |segment: &[u8]| match segment.first() {
        Some(b'v') => segment.starts_with(b"v1beta"),
        Some(b'p') => segment == b"projects",
        Some(b'i') => segment == b"interactions",
        _ => false,
    };
    // The name of a method, such as `:generateContent`, is at the end.
    let last = memrchr(b'/', path).and_then(|slash| path.get(slash..)).unwrap_or(path);
    memchr2(b':', b'%', last).is_some() || path.split(|byte| *byte == b'/').any(is_of_google)
}

/// Returns how a request hides the usage of its response. `header` is the field mask in its headers.
pub fn hides_usage(path: &str, header: &str) -> Option<UsageHiding> {
    let asks = !header.is_empty() || memchr(b'?', path.as_bytes()).is_some();
    if !asks || !may_hide_usage(path) {
        return None;
    }
    let mut hiding = (!includes_usage(header)).then_some(UsageHiding::FieldMask);
    for (key, value) in spelling::query_pairs(path) {
        match key.strip_prefix('$').unwrap_or(&key) {
            "fields" if !includes_usage(&value) => hiding = hiding.or(Some(UsageHiding::FieldMask)),
            "alt" if !is_json(&value) => hiding = hiding.or(Some(UsageHiding::Format)),
            "callback" if !value.is_empty() => hiding = hiding.or(Some(UsageHiding::Format)),
            _ => {}
        }
    }
    hiding
}

/// Returns whether a field mask includes the whole usage. An empty mask includes everything.
fn includes_usage(mask: &str) -> bool {
    let mut depth = 0usize;
    let outside = |character: char| {
        match character {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    };
    mask.trim().is_empty()
        || mask
            .split(outside)
            .any(|one| matches!(one.trim(), "*" | "usageMetadata" | "usage_metadata" | "usage"))
}

/// Returns whether a value of `alt` stands for JSON, which may have parameters: `json;enum-encoding=int`.
fn is_json(alt: &str) -> bool {
    matches!(alt.split(';').next().unwrap_or_default().trim(), "" | "json" | "sse")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

    #[test]
    fn parameters_may_hide_the_usage() {
        use UsageHiding::{FieldMask, Format};
        for (query, hiding) in [
            ("", None),
            ("?key=k", None),
            ("?alt=sse", None),
            ("?alt=", None),
            ("?$alt=json%3Benum-encoding%3Dint", None),
            ("?fields=", None),
            ("?fields=*", None),
            ("?fields=candidates(content),usageMetadata", None),
            ("?fields=usage_metadata,candidates", None),
            ("?fields=candidates", Some(FieldMask)),
            ("?%24fields=candidates", Some(FieldMask)),
            ("?%66ields=candidates", Some(FieldMask)),
            ("?fields=usageMetadata/promptTokenCount", Some(FieldMask)),
            ("?fields=usageMetadata(promptTokenCount)", Some(FieldMask)),
            ("?fields=candidates(content,usageMetadata)", Some(FieldMask)),
            ("?fields=usageMetadata&fields=candidates", Some(FieldMask)),
            ("?alt=proto", Some(Format)),
            ("?$alt=media", Some(Format)),
            ("?callback=f", Some(Format)),
        ] {
            assert_eq!(hides_usage(&format!("{CALL}{query}"), ""), hiding, "{query}");
        }
        assert_eq!(hides_usage(CALL, "candidates"), Some(FieldMask));
        assert_eq!(hides_usage(CALL, "candidates,usageMetadata"), None);
    }

    #[test]
    fn only_google_s_paths_have_such_parameters() {
        for path in [
            "/v1beta/openai/chat/completions",
            "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
        ] {
            assert!(hides_usage(&format!("{path}?fields=choices"), "").is_some(), "{path}");
        }
        for path in ["/v1/chat/completions", "/v1/messages", "/search"] {
            assert_eq!(hides_usage(&format!("{path}?fields=a&alt=b"), "c"), None, "{path}");
        }
    }
}
