//! Implements permessage-deflate: parses the negotiated parameters and decompresses the messages of one
//! direction.

use super::SocketError;
use crate::memory::{Lease, MemoryBudget, Purpose};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// The extensions that both sides of a socket have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Whether messages may be compressed.
    pub deflate: bool,
    /// Whether the client's messages may refer to earlier ones.
    pub client_takeover: bool,
    /// Whether the server's messages may refer to earlier ones.
    pub server_takeover: bool,
}

impl Extensions {
    /// Parses the response's `sec-websocket-extensions` header. Returns `None` if it names an unknown
    /// extension.
    pub fn read(header: &str) -> Option<Self> {
        let mut extensions = Self::default();
        for offer in header.split(',').map(str::trim).filter(|offer| !offer.is_empty()) {
            let mut parts = offer.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            if !name.eq_ignore_ascii_case("permessage-deflate") || extensions.deflate {
                return None;
            }
            extensions = Self { deflate: true, client_takeover: true, server_takeover: true };
            for parameter in parts {
                let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
                match name.trim().to_ascii_lowercase().as_str() {
                    "client_no_context_takeover" => extensions.client_takeover = false,
                    "server_no_context_takeover" => extensions.server_takeover = false,
                    // The largest window can also decode messages for a smaller one.
                    "client_max_window_bits" | "server_max_window_bits" => {}
                    _ => return None,
                }
            }
        }
        Some(extensions)
    }
}

/// The maximum distance of a match. The output wraps around in a buffer of this size.
const WINDOW: usize = 32 << 10;
/// The maximum size of a decompressed message.
const MAX_MESSAGE: usize = 256 << 20;
/// The end of every compressed message. The sender removes it, and the receiver appends it again.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The decoder of one direction.
pub(super) struct MessageInflater {
    core: DecompressorOxide,
    window: [u8; WINDOW],
    at: usize,
    takeover: bool,
    /// The decompressed size of the current message so far.
    written: usize,
    // The lease comes last, so that it is dropped after the memory that it covers.
    _lease: Lease,
}

impl std::fmt::Debug for MessageInflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageInflater").field("takeover", &self.takeover).finish_non_exhaustive()
    }
}

impl MessageInflater {
    /// Allocates all memory that the decoder will ever need.
    pub fn new(takeover: bool, memory: &MemoryBudget) -> Result<Box<Self>, SocketError> {
        let lease = memory.lease(Purpose::Keep, size_of::<Self>()).ok_or(SocketError::Memory)?;
        let core = DecompressorOxide::new();
        Ok(Box::new(Self { core, window: [0; WINDOW], at: 0, takeover, written: 0, _lease: lease }))
    }

    /// Decompresses the next bytes of a message.
    pub fn feed(&mut self, mut bytes: &[u8], to: &mut impl FnMut(&[u8])) -> Result<(), SocketError> {
        loop {
            let (status, read, written) =
                decompress(&mut self.core, bytes, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            bytes = bytes.get(read..).unwrap_or_default();
            let end = self.at.saturating_add(written);
            self.written = self.written.saturating_add(written);
            if self.written > MAX_MESSAGE {
                return Err(SocketError::Bomb);
            }
            to(self.window.get(self.at..end).unwrap_or_default());
            self.at = if end >= WINDOW { 0 } else { end };
            match status {
                // A sender may end its deflate stream in the middle of a message. The rest of the message is
                // a new stream with the same window.
                TINFLStatus::Done => self.core = DecompressorOxide::new(),
                TINFLStatus::NeedsMoreInput => return Ok(()),
                TINFLStatus::HasMoreOutput => continue,
                _ => return Err(SocketError::Corrupt),
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Ends a message.
    pub fn finish(&mut self, to: &mut impl FnMut(&[u8])) -> Result<(), SocketError> {
        self.feed(&TAIL, to)?;
        self.written = 0;
        if !self.takeover {
            self.core = DecompressorOxide::new();
            self.window = [0; WINDOW];
            self.at = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_negotiated_is_read_and_what_is_unknown_is_not() {
        let deflate = |client_takeover, server_takeover| {
            Some(Extensions { deflate: true, client_takeover, server_takeover })
        };
        let table = [
            ("", Some(Extensions::default())),
            ("permessage-deflate", deflate(true, true)),
            ("Permessage-Deflate; server_no_context_takeover", deflate(true, false)),
            (
                "permessage-deflate;client_no_context_takeover ; server_max_window_bits=10",
                deflate(false, true),
            ),
            ("permessage-deflate, permessage-deflate", None),
            ("permessage-deflate; unheard_of", None),
            ("x-webkit-deflate-frame", None),
        ];
        for (header, extensions) in table {
            assert_eq!(Extensions::read(header), extensions, "{header}");
        }
    }
}
