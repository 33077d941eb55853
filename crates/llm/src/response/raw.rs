//! Estimates the amount of text in bytes that are not a readable document.

use crate::json::characters;

/// The number of bytes of an image or of audio that count as one character of text. This is one token per
/// KiB. Speech at 24 kHz has about 20 tokens and 16 to 48 kB per second, and an image of 1 MB has a few
/// thousand tokens.
pub(super) const MEDIA_BYTES: u64 = 256;

/// The number of bytes that suffice to recognise a format.
const HEAD: usize = 12;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raw {
    /// Whether the content type declares an image, audio or video.
    pub(super) media_type: bool,
    characters: u64,
    bytes: u64,
    /// Whether bytes have arrived that never occur in text.
    binary: bool,
    head: [u8; HEAD],
    /// Bytes that could not be decoded.
    undecoded: u64,
}

impl Raw {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let seen = usize::try_from(self.bytes).unwrap_or(HEAD);
        let head = self.head.get_mut(seen.min(HEAD)..).unwrap_or_default();
        head.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.characters = self.characters.saturating_add(characters(bytes));
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let control = |b: &u8| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
        self.binary = self.binary || bytes.iter().any(control);
    }

    /// Adds bytes of compressed text, each of which counts as one character. A byte stands for several
    /// characters, but most of them belong to the format and not to the text.
    pub(super) fn undecoded(&mut self, bytes: usize) {
        self.undecoded = self.undecoded.saturating_add(bytes as u64);
    }

    /// Returns the estimated number of characters. Text counts by its characters, an image or audio by its
    /// size, and anything else as one character per byte. Text counts as text even if the content type
    /// declares an image.
    pub(super) fn characters(&self) -> u64 {
        let characters = match self.binary {
            false => self.characters,
            true if self.media_type || self.is_media() => self.bytes.div_ceil(MEDIA_BYTES),
            true => self.bytes,
        };
        characters.saturating_add(self.undecoded)
    }

    fn is_media(&self) -> bool {
        let rest = self.head.get(4..).unwrap_or_default();
        matches!(
            self.head,
            [b'R', b'I', b'F', b'F', ..]
                | [b'I', b'D', b'3', ..]
                | [b'O', b'g', b'g', b'S', ..]
                | [b'f', b'L', b'a', b'C', ..]
                | [0x89, b'P', b'N', b'G', ..]
                | [b'G', b'I', b'F', b'8', ..]
                | [0xff, 0xd8, 0xff, ..]
                | [0xff, 0xf1..=0xfb, ..]
                | [0x1a, 0x45, 0xdf, 0xa3, ..]
        ) || rest.starts_with(b"ftyp")
    }
}
