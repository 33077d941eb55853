//! Converts JSON that is not UTF-8. Servers in Python accept UTF-16 and UTF-32, so bodies in these encodings
//! must be read.

use std::borrow::Cow;

/// Converts the body to UTF-8 without a byte order mark. The first bytes reveal the encoding, since JSON
/// begins with two ASCII characters. Bytes that are not Unicode stay unchanged. The result is owned if the
/// body was not UTF-8.
pub(super) fn to_utf8(body: &[u8]) -> Cow<'_, [u8]> {
    match body {
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0, 0, 0xfe, 0xff, rest @ ..] => utf32(rest, u32::from_be_bytes),
        [0xff, 0xfe, 0, 0, rest @ ..] => utf32(rest, u32::from_le_bytes),
        [0, 0, 0, 1..=255, ..] => utf32(body, u32::from_be_bytes),
        [1..=255, 0, 0, 0, ..] => utf32(body, u32::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0, 1..=255, ..] => utf16(body, u16::from_be_bytes),
        [1..=255, 0, ..] => utf16(body, u16::from_le_bytes),
        _ => Cow::Borrowed(body),
    }
}

fn utf16(body: &[u8], unit: fn([u8; 2]) -> u16) -> Cow<'_, [u8]> {
    let (units, _) = body.as_chunks::<2>();
    let characters = char::decode_utf16(units.iter().copied().map(unit));
    let text: String = characters.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Cow::Owned(text.into_bytes())
}

fn utf32(body: &[u8], unit: fn([u8; 4]) -> u32) -> Cow<'_, [u8]> {
    let (units, _) = body.as_chunks::<4>();
    let characters = units.iter().copied().map(unit).map(char::from_u32);
    let text: String = characters.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Cow::Owned(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unicode_that_a_json_reader_takes_is_read() {
        let text = "{\"modäl\":\"𝄞\"}";
        let utf16: Vec<u16> = text.encode_utf16().collect();
        let utf32: Vec<u32> = text.chars().map(u32::from).collect();
        let bytes16 = |unit: fn(u16) -> [u8; 2]| utf16.iter().copied().flat_map(unit).collect::<Vec<u8>>();
        let bytes32 = |unit: fn(u32) -> [u8; 4]| utf32.iter().copied().flat_map(unit).collect::<Vec<u8>>();
        let table = [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            bytes16(u16::to_be_bytes),
            bytes16(u16::to_le_bytes),
            [b"\xfe\xff".to_vec(), bytes16(u16::to_be_bytes)].concat(),
            [b"\xff\xfe".to_vec(), bytes16(u16::to_le_bytes)].concat(),
            bytes32(u32::to_be_bytes),
            bytes32(u32::to_le_bytes),
            [b"\0\0\xfe\xff".to_vec(), bytes32(u32::to_be_bytes)].concat(),
            [b"\xff\xfe\0\0".to_vec(), bytes32(u32::to_le_bytes)].concat(),
        ];
        for bytes in table {
            assert_eq!(to_utf8(&bytes), text.as_bytes(), "{bytes:?}");
        }
        for other in [&b""[..], b"{", b"\0\0\0\0", b"\xff\x00"] {
            let _ = to_utf8(other);
        }
    }
}
