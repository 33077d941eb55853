//! Reads `application/connect+json`: each document follows a byte of flags and its length.

use super::Scanner;
use super::report::Report;
use crate::json::Reader;

/// A flag and a length.
const PREFIX: usize = 5;
/// The flag of a compressed document.
const COMPRESSED: u8 = 1;

#[derive(Clone, Debug, Default)]
pub(super) struct Envelopes {
    prefix: [u8; PREFIX],
    /// The number of bytes of the prefix that have arrived.
    length: usize,
    /// The number of bytes of the open document that have not arrived yet.
    left: u64,
}

impl Envelopes {
    pub(super) fn feed(&mut self, mut bytes: &[u8], scanner: &mut Scanner, to: &mut Report) {
        while let Some((first, rest)) = bytes.split_first() {
            if let Some(next) = self.prefix.get_mut(self.length) {
                *next = *first;
                self.length = self.length.saturating_add(1);
                bytes = rest;
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length).into();
            } else {
                let end = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                let (piece, rest) = bytes.split_at(end);
                match self.prefix {
                    [flags, ..] if flags & COMPRESSED != 0 => to.unread(piece),
                    _ => scanner.feed(piece, to),
                }
                self.left = self.left.saturating_sub(piece.len() as u64);
                bytes = rest;
            }
            if self.length == PREFIX && self.left == 0 {
                scanner.end(to);
                self.length = 0;
            }
        }
    }

    /// Returns whether a document has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.length > 0
    }
}
