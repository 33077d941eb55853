//! Estimates strings that may be an image or a recording in base64 or hexadecimal digits.

use super::raw::MEDIA_BYTES;
use crate::json::characters;

/// Text has a space or another foreign character more often than once in so many bytes.
const DIGITS: u64 = 64;

/// The digits of base64 in a number of a vector.
const DIGITS_PER_NUMBER: u64 = 6;

/// The open string in a place for media.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MediaText {
    bytes: u64,
    characters: u64,
    /// The number of bytes that are not digits of base64.
    foreign: u64,
}

impl MediaText {
    pub(super) fn add(&mut self, piece: &[u8]) {
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let foreign = piece.iter().filter(|byte| !is_digit(byte)).count();
        self.foreign = self.foreign.saturating_add(foreign as u64);
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        self.characters = self.characters.saturating_add(characters(piece));
    }

    /// Returns whether the string consists of digits.
    fn is_media(self) -> bool {
        self.foreign.saturating_mul(DIGITS) < self.bytes
    }

    /// Returns the length of the vector that the string encodes, or `None` if it is text.
    pub(super) fn numbers(self) -> Option<u64> {
        self.is_media().then(|| self.bytes.div_ceil(DIGITS_PER_NUMBER))
    }

    /// Returns the number of characters that the string counts as.
    pub(super) fn weight(self) -> u64 {
        if self.is_media() { self.bytes.div_ceil(MEDIA_BYTES).min(self.characters) } else { self.characters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_media() {
        let weight = |text: &str| {
            let mut whole = MediaText::default();
            whole.add(text.as_bytes());
            let mut pieces = MediaText::default();
            text.as_bytes().chunks(3).for_each(|piece| pieces.add(piece));
            assert_eq!(pieces.bytes, whole.bytes);
            assert_eq!(pieces.foreign, whole.foreign);
            whole.weight()
        };
        let digits = "SUQzBAAAAAAAI1RTU0U/".repeat(1000);
        assert_eq!(weight(&digits), 79);
        assert_eq!(weight(&format!("data:audio/mpeg;base64,{digits}")), 79);
        assert_eq!(weight(&"49443304".repeat(1000)), 32);
        assert_eq!(weight("The quick brown fox"), characters(b"The quick brown fox"));
        assert_eq!(weight("https://host/path"), characters(b"https://host/path"));
        assert_eq!(weight(""), 0);
    }
}
