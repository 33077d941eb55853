//! Counts the text in a container without parsing its structure, so that the text of unknown containers
//! counts too. Only the current depth is stored, so deep nesting costs no memory.

use super::lanes::{BLOCK, Block};
use super::script;

/// The text of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Characters of strings and keys, decoded.
    pub(crate) characters: u64,
    /// Numbers and literals.
    pub(crate) scalars: u64,
    /// Bytes of numbers and literals, and of anything else that is neither a string nor punctuation.
    pub(crate) scalar_bytes: u64,
}

/// Counts one container at a time. The container may arrive in chunks of any size.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter {
    /// The number of open containers, including the counted one.
    depth: u64,
    inside: Inside,
    found: Counted,
    /// Whether a character has appeared that begins a comment or a string in lenient parsers. The bytes that
    /// follow may be part of it.
    stray: bool,
}

/// The context of the next byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    /// Between strings, numbers and literals.
    #[default]
    Nothing,
    Scalar,
    String,
    /// After a backslash.
    Escape,
    /// In the digits of an escape sequence.
    Hex {
        left: u8,
        value: u32,
    },
}

impl Counter {
    /// Begins to count a container that has just been opened.
    pub(super) fn begin(&mut self) {
        *self = Self { depth: 1, ..Self::default() };
    }

    /// Returns what was found since the last call.
    pub(super) fn found(&mut self) -> Counted {
        std::mem::take(&mut self.found)
    }

    /// Returns whether the open container is not valid JSON.
    pub(super) fn is_stray(&self) -> bool {
        self.stray
    }

    /// Reads the next bytes. Returns the unread bytes if the container has ended or is not JSON.
    pub(super) fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> Option<&'a [u8]> {
        while let Some((block, rest)) = bytes.split_first_chunk::<BLOCK>() {
            if !self.block(block)
                && let Some(length) = self.steps(block)
            {
                return bytes.get(length..);
            }
            bytes = rest;
        }
        let length = self.steps(bytes)?;
        bytes.get(length..)
    }

    /// Reads byte by byte. If the container ends or is not JSON, returns the number of bytes read.
    fn steps(&mut self, bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|byte| self.step(*byte)).map(|at| at.saturating_add(1))
    }

    /// Reads one byte. Returns `true` if the container ends or is not JSON.
    fn step(&mut self, byte: u8) -> bool {
        let begins = script::of_byte(byte);
        self.inside = match self.inside {
            Inside::Nothing | Inside::Scalar => return self.step_outside(byte),
            Inside::String => match byte {
                b'"' => Inside::Nothing,
                b'\\' => Inside::Escape,
                _ => self.character(begins),
            },
            Inside::Escape => match byte {
                b'u' => Inside::Hex { left: 4, value: 0 },
                _ => self.character(begins),
            },
            Inside::Hex { left, value } => match char::from(byte).to_digit(16) {
                Some(digit) if left > 1 => {
                    Inside::Hex { left: left.saturating_sub(1), value: value << 4 | digit }
                }
                Some(digit) => self.character(script::of_unit(value << 4 | digit)),
                // This is not a hexadecimal digit, so it is read as an ordinary byte.
                None => {
                    self.inside = Inside::String;
                    return self.step(byte);
                }
            },
        };
        false
    }

    fn character(&mut self, begun: u64) -> Inside {
        self.found.characters = self.found.characters.saturating_add(begun);
        Inside::String
    }

    fn step_outside(&mut self, byte: u8) -> bool {
        let before = std::mem::replace(&mut self.inside, Inside::Nothing);
        match byte {
            b'"' => self.inside = Inside::String,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            ..=b' ' | b',' | b':' => {}
            b'#' | b'\'' | b'/' => {
                self.stray = true;
                return true;
            }
            _ => {
                self.found.scalars = self.found.scalars.saturating_add(u64::from(before == Inside::Nothing));
                self.found.scalar_bytes = self.found.scalar_bytes.saturating_add(1);
                self.inside = Inside::Scalar;
            }
        }
        false
    }

    /// Reads a whole block. Returns `false` if the block must be read byte by byte, because the container may
    /// end in it or an escape sequence is incomplete or longer than two bytes.
    fn block(&mut self, bytes: &[u8; BLOCK]) -> bool {
        let begins_in_string = match self.inside {
            Inside::Nothing | Inside::Scalar => 0,
            Inside::String => u64::MAX,
            Inside::Escape | Inside::Hex { .. } => return false,
        };
        let block = Block::new(bytes);
        let (quotes, backslashes) = (block.equal(b'"'), block.equal(b'\\'));
        let Some(escapes) = escapes(&block, backslashes) else { return false };
        let quotes = quotes & !(escapes << 1);
        let strings = parity(quotes) ^ begins_in_string;
        let text = strings & !quotes;
        if escapes & !text != 0 {
            return false;
        }
        let outside = !(strings | quotes);
        let (mut scalars, mut starts) = (0, 0);
        if outside != 0 {
            let (opening, closing) = (block.opening() & outside, block.closing() & outside);
            scalars = outside & !(opening | closing | block.between());
            let is_stray =
                scalars != 0 && scalars & (block.equal(b'#') | block.equal(b'\'') | block.equal(b'/')) != 0;
            if is_stray || u64::from(closing.count_ones()) >= self.depth {
                return false;
            }
            let opened = self.depth.saturating_add(opening.count_ones().into());
            self.depth = opened.saturating_sub(closing.count_ones().into());
            let before = u64::from(self.inside == Inside::Scalar);
            starts = scalars & !(scalars << 1 | before);
        }
        let characters = block.weight(text).saturating_sub(escapes.count_ones().into());
        self.found.characters = self.found.characters.saturating_add(characters);
        self.found.scalars = self.found.scalars.saturating_add(starts.count_ones().into());
        self.found.scalar_bytes = self.found.scalar_bytes.saturating_add(scalars.count_ones().into());
        let last = 1 << (BLOCK - 1);
        self.inside = match strings & last != 0 {
            true => Inside::String,
            false if scalars & last != 0 => Inside::Scalar,
            false => Inside::Nothing,
        };
        true
    }
}

/// Returns the starts of the two-byte escape sequences, or `None` if one is longer or not entirely in the
/// block.
#[inline(always)]
fn escapes(block: &Block, backslashes: u64) -> Option<u64> {
    if backslashes == 0 {
        return Some(0);
    }
    let (mut begun, mut left) = (0u64, backslashes);
    while left != 0 {
        let first = left & left.wrapping_neg();
        begun |= first;
        left &= !(first | first << 1);
    }
    let escaped = begun << 1;
    (begun >> 63 == 0 && escaped & block.equal(b'u') == 0).then_some(begun)
}

/// Sets each bit for which the number of set bits up to and including it is odd.
#[inline(always)]
fn parity(bits: u64) -> u64 {
    [1, 2, 4, 8, 16, 32].into_iter().fold(bits, |bits, shift| bits ^ bits << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is found in a text after its first bracket, and the rest.
    fn counted(text: &[u8], pieces: usize, blocks: bool) -> (Counted, Option<Vec<u8>>) {
        let mut counter = Counter::default();
        counter.begin();
        let mut found = Counted::default();
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(pieces.min(rest.len()));
            let left = if blocks {
                counter.feed(piece).map(<[u8]>::len)
            } else {
                counter.steps(piece).map(|end| piece.len() - end)
            };
            let more = counter.found();
            found.characters += more.characters;
            found.scalars += more.scalars;
            found.scalar_bytes += more.scalar_bytes;
            if let Some(left) = left {
                return (found, Some(text[text.len() - after.len() - left..].to_vec()));
            }
            rest = after;
        }
        (found, None)
    }

    #[test]
    fn strings_keys_numbers_and_literals_are_counted() {
        let text = br#""n\u00e4h\ud834\udd1e":[1,-2.5e3, true ,null],"x":{"":"\\"}},"next":1"#;
        let expected = Counted { characters: 14, scalars: 4, scalar_bytes: 15 };
        assert_eq!(counted(text, 1000, true), (expected, Some(br#","next":1"#.to_vec())));
    }

    #[test]
    fn blocks_and_bytes_and_pieces_find_the_same() {
        let mut dice = 7u64;
        let mut roll = |sides: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(dice >> 33).unwrap() % sides
        };
        let parts = [
            "\"",
            "\\\"",
            "\\\\",
            "\\u00e4",
            "\\n",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "\n",
            "1",
            "-2.5",
            "true",
            "\u{e4}",
            "\u{1f600}",
            "some words",
            "\\ud834\\udd1e",
        ];
        for _ in 0..20_000 {
            let brackets = "[".repeat(roll(40));
            let text: String = (0..roll(60)).map(|_| parts[roll(parts.len())]).collect();
            let text = format!("{brackets}{text}");
            let expected = counted(text.as_bytes(), 1000, false);
            assert_eq!(counted(text.as_bytes(), 1000, true), expected, "{text}");
            assert_eq!(counted(text.as_bytes(), 1 + roll(200), true), expected, "{text}");
        }
    }
}
