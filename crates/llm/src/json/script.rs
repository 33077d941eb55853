//! Weighs characters by their script, to approximate the number of tokens in a text.
//!
//! The unit is an English character. Four units make a token. The first byte of a character in UTF-8
//! determines the script, so many bytes can be weighed at once.
//!
//! | first byte | characters | weight |
//! |---|---|---|
//! | up to 0x7f | ASCII | 1 |
//! | 0xc2 to 0xdf | Latin with accents, Greek, Cyrillic, Hebrew, Arabic | 2 |
//! | 0xe0 to 0xe2 | the scripts of India and South-East Asia, typographic marks | 3 |
//! | 0xe3 to 0xef | Chinese, Japanese, Korean | 4 |
//! | 0xf0 and above | emoji, rare characters | 8 |
//!
//! `tests/request/scripts.json` has texts in twelve languages with the counts of real tokenizers. Older
//! tokenizers need twice as many tokens for Greek, Hebrew, Hindi and Thai as newer ones, and the weights are
//! in between.

/// First bytes of at least these values weigh one or four more than other bytes. All other bytes weigh 1, so
/// the weight of most texts is their length in bytes.
pub(super) const ONE_MORE_FROM: u8 = 0xe3;
pub(super) const FOUR_MORE_FROM: u8 = 0xf0;

/// Returns the weight of a byte in UTF-8.
pub(super) const fn of_byte(byte: u8) -> u64 {
    match byte {
        0..ONE_MORE_FROM => 1,
        ONE_MORE_FROM..FOUR_MORE_FROM => 2,
        FOUR_MORE_FROM.. => 5,
    }
}

/// Returns the weight of a UTF-16 code unit. A surrogate pair counts at its first half.
pub(super) const fn of_unit(unit: u32) -> u64 {
    match unit {
        0xdc00..0xe000 => 0,
        0xd800..0xdc00 => 8,
        0..0x80 => 1,
        0x80..0x800 => 2,
        0x800..0x3000 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_weighs_the_same_in_utf_8_and_in_utf_16() {
        for character in ('\u{1}'..='\u{10ffff}').step_by(7) {
            let bytes: u64 = character.encode_utf8(&mut [0; 4]).bytes().map(of_byte).sum();
            let units: u64 =
                character.encode_utf16(&mut [0; 2]).iter().map(|unit| of_unit(u32::from(*unit))).sum();
            assert_eq!(bytes, units, "{character:?}");
        }
    }
}
