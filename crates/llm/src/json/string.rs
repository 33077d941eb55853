//! Reads strings that arrive in chunks and decodes their escape sequences.

use super::bytes::{characters, plain_characters, short_string};
use super::{JsonPlace, Reader, ScanState, Scanner, Use, script};
use memchr::memchr2;

/// The maximum length of a key, number or word in bytes. Longer ones have no meaning.
const TOKEN: usize = 48;

/// The position in an escape sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Escape {
    #[default]
    None,
    Begun,
    Hex {
        left: u8,
        value: u32,
    },
}

/// A key, number or word that may arrive in chunks.
#[derive(Clone, Debug)]
pub(super) struct TokenBuffer {
    bytes: [u8; TOKEN],
    length: usize,
}

impl Default for TokenBuffer {
    fn default() -> Self {
        Self { bytes: [0; TOKEN], length: 0 }
    }
}

impl TokenBuffer {
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Appends a piece. If the token becomes too long, only its length is kept up to date.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let end = self.length.saturating_add(piece.len());
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(piece);
        }
        self.length = end;
    }

    /// Returns the length in bytes if the token is too long.
    pub(super) fn too_long(&self) -> Option<u64> {
        (self.length > TOKEN).then(|| u64::try_from(self.length).unwrap_or(u64::MAX))
    }

    /// Returns the token, or `None` if it is too long.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

impl<P: JsonPlace> Scanner<P> {
    pub(super) fn string<'a>(
        &mut self,
        mut bytes: &'a [u8],
        purpose: Use,
        to: &mut impl Reader<Place = P>,
    ) -> &'a [u8] {
        loop {
            if self.escape != Escape::None {
                let Some((first, rest)) = bytes.split_first() else { return bytes };
                if self.escape(*first, purpose, to) {
                    bytes = rest;
                }
                continue;
            }
            if self.only_counts(purpose) {
                bytes = self.text(bytes, to);
            }
            let end = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
            let (piece, rest) = bytes.split_at(end);
            self.piece(piece, purpose, to);
            match rest.split_first() {
                None => return rest,
                Some((b'"', rest)) => {
                    self.end_string(purpose, to);
                    return rest;
                }
                Some((_, rest)) => {
                    self.escape = Escape::Begun;
                    bytes = rest;
                }
            }
        }
    }

    /// Counts text up to its closing quote, or up to an incomplete escape sequence.
    fn text<'a>(&mut self, bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        let (weight, end) = text_weight(bytes);
        let (text, rest) = bytes.split_at(end.min(bytes.len()));
        to.counted_text(self.place, text, weight);
        rest
    }

    /// Returns whether only the number of characters matters.
    fn only_counts(&self, purpose: Use) -> bool {
        purpose == Use::Text && self.place.only_counts()
    }

    fn piece(&mut self, piece: &[u8], purpose: Use, to: &mut impl Reader<Place = P>) {
        if !piece.is_empty() && self.half.take().is_some() {
            self.character(u32::MAX, purpose, to);
        }
        match purpose {
            Use::Text => to.text(self.place, piece),
            Use::Key | Use::Word => self.token.push(piece),
            Use::Nothing | Use::Skip => {}
        }
    }

    /// Reads a byte of an escape sequence. Returns `false` if the byte does not belong to it, because it
    /// should be a digit and is not.
    fn escape(&mut self, byte: u8, purpose: Use, to: &mut impl Reader<Place = P>) -> bool {
        match (self.escape, char::from(byte).to_digit(16)) {
            (Escape::Hex { left, value }, Some(digit)) => {
                let value = (value << 4) | digit;
                if left > 1 {
                    self.escape = Escape::Hex { left: left.saturating_sub(1), value };
                } else {
                    self.escape = Escape::None;
                    self.code_unit(value, purpose, to);
                }
            }
            (Escape::Hex { .. }, None) => {
                self.escape = Escape::None;
                return false;
            }
            _ if byte == b'u' => self.escape = Escape::Hex { left: 4, value: 0 },
            _ => {
                self.escape = Escape::None;
                let decoded = match byte {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    other => other,
                };
                self.piece(&[decoded], purpose, to);
            }
        }
        true
    }

    /// Adds a UTF-16 code unit. If characters are only counted, the second half of a surrogate pair adds
    /// none.
    fn code_unit(&mut self, unit: u32, purpose: Use, to: &mut impl Reader<Place = P>) {
        match (self.half.take(), unit) {
            (Some(first), 0xdc00..0xe000) => {
                let offset = ((first & 0x3ff) << 10) | (unit & 0x3ff);
                self.character(offset.saturating_add(0x10000), purpose, to);
            }
            (half, unit) => {
                if half.is_some() {
                    self.character(u32::MAX, purpose, to);
                }
                match unit {
                    _ if self.only_counts(purpose) => to.characters(self.place, script::of_unit(unit)),
                    0xd800..0xdc00 => self.half = Some(unit),
                    _ => self.character(unit, purpose, to),
                }
            }
        }
    }

    /// Adds a character, or a replacement for an invalid one, such as half a surrogate pair.
    fn character(&mut self, code: u32, purpose: Use, to: &mut impl Reader<Place = P>) {
        let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.piece(character.encode_utf8(&mut [0; 4]).as_bytes(), purpose, to);
    }

    fn end_string(&mut self, purpose: Use, to: &mut impl Reader<Place = P>) {
        if self.half.take().is_some() {
            self.character(u32::MAX, purpose, to);
        }
        match purpose {
            Use::Key => {
                let parent = self.here.place;
                if let Some(length) = self.token.too_long() {
                    to.long_key(parent, length);
                }
                self.place = to.child(parent, self.token.bytes().unwrap_or_default());
                self.state = ScanState::Colon;
            }
            Use::Word => {
                to.word(self.place, self.token.bytes());
                self.after_value();
            }
            Use::Text => {
                to.close_text(self.place);
                self.after_value();
            }
            Use::Nothing => self.after_value(),
            Use::Skip => self.state = ScanState::Skip,
        }
    }
}

/// Returns the weight of a string's text up to its closing quote, and the position of the quote. Returns `None` if
/// the string is incomplete or has an invalid escape sequence. `bytes` must begin inside the string.
#[inline]
pub(crate) fn counted_string(bytes: &[u8]) -> Option<(u64, usize)> {
    if let Some(end) = short_string(bytes) {
        return Some((characters(bytes.get(..end)?), end));
    }
    let (weight, end) = text_weight(bytes);
    (bytes.get(end) == Some(&b'"')).then_some((weight, end))
}

/// Returns the weight of text up to its closing quote or an incomplete escape sequence, and the number of bytes up
/// to there.
fn text_weight(text: &[u8]) -> (u64, usize) {
    let (mut weight, mut bytes) = (0u64, text);
    // The number of bytes that remain of a block that could not be counted as a whole.
    let mut close = 0usize;
    loop {
        if close == 0 {
            let (plain, reach) = plain_characters(bytes);
            weight = weight.saturating_add(plain);
            bytes = bytes.get(reach..).unwrap_or_default();
            close = 64;
        }
        let (characters, reach) = match escape_sequence(bytes) {
            Some(escape) => escape,
            None => {
                let end = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                (characters(bytes.get(..end).unwrap_or_default()), end)
            }
        };
        if reach == 0 {
            return (weight, text.len().saturating_sub(bytes.len()));
        }
        weight = weight.saturating_add(characters);
        bytes = bytes.get(reach..).unwrap_or_default();
        close = close.saturating_sub(reach);
    }
}

/// Returns the weight and length of the escape sequence at the beginning, if it is complete. The second half
/// of a surrogate pair adds no weight.
fn escape_sequence(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes {
        [b'\\', b'u', digits @ ..] => {
            let digit = |unit: u32, digit: &u8| Some(unit << 4 | char::from(*digit).to_digit(16)?);
            let unit = digits.first_chunk::<4>()?.iter().try_fold(0, digit)?;
            Some((script::of_unit(unit), 6))
        }
        // Only the byte after the backslash has a weight.
        [b'\\', other, ..] => Some((characters(&[*other]), 2)),
        _ => None,
    }
}
