//! Determines the encoding of a body: the one in `content-encoding`, unless the first bytes contradict it.

use super::super::cause::Cause;
use super::Encoding;

/// The number of bytes that always suffice to determine an encoding.
pub(crate) const HEAD: usize = 8;

/// Returns whether the first bytes of a body suffice to determine its encoding.
pub(crate) fn is_enough(label: Result<Encoding, Cause>, head: &[u8]) -> bool {
    match (label, head.first()) {
        (_, None) => false,
        (Ok(Encoding::Identity), Some(first)) if !matches!(first, 0x1f | 0x28 | 0x78) => true,
        _ => head.len() >= HEAD,
    }
}

/// Returns the encoding of a body that begins with `head` and has this label. `other` is set if the header
/// names another encoding, too.
pub(crate) fn encoding(
    label: Result<Encoding, Cause>,
    other: Option<Encoding>,
    head: &[u8],
) -> Result<Encoding, Cause> {
    let found = match head {
        [0x1f, 0x8b, 8, ..] => Some(Encoding::Gzip),
        #[cfg(feature = "zstd")]
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Encoding::Zstd),
        // Two bytes are too few to contradict another encoding. If the label names none, they suffice,
        // because no text begins like this.
        [0x78, 0x01 | 0x9c | 0xda, ..] if label == Ok(Encoding::Identity) => Some(Encoding::Deflate),
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    match label {
        Ok(Encoding::Identity) => label,
        // Gzip and zstd would have been recognised above.
        Ok(Encoding::Gzip) if is_text(head) => Ok(Encoding::Identity),
        #[cfg(feature = "zstd")]
        Ok(Encoding::Zstd) if is_text(head) => Ok(Encoding::Identity),
        _ if is_text(head) && begins_like_an_answer(head) => Ok(Encoding::Identity),
        Ok(Encoding::Gzip) => other.map_or(label, Ok),
        #[cfg(feature = "zstd")]
        Ok(Encoding::Zstd) => other.map_or(label, Ok),
        // A character encoding, or an encoding that only a proxy knows.
        Err(_) => other.map_or(label, Ok),
        Ok(_) => label,
    }
}

/// Returns whether this is text in UTF-8. The last character may be incomplete.
fn is_text(head: &[u8]) -> bool {
    let is_utf8 = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    is_utf8 && !head.iter().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n'))
}

/// Returns whether these bytes begin JSON or server-sent events. Compressed data does so only about once in a
/// million times.
fn begins_like_an_answer(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match head {
        [b'{', next, ..] => matches!(next, b'"' | b'}' | b' ' | b'\t' | b'\r' | b'\n'),
        [b'[', next, ..] => matches!(next, b'{' | b'"' | b'[' | b']' | b' ' | b'\t' | b'\r' | b'\n'),
        _ => [&b"data:"[..], b"event:", b"id:", b"retry:", b": "].iter().any(|field| head.starts_with(field)),
    }
}
