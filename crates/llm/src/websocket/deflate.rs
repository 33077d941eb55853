//! permessage-deflate: what was negotiated, and the messages of one direction decompressed.

use super::SocketError;
use crate::memory::{Lease, MemoryBudget, Purpose};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// What the two sides of a socket have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Messages may be compressed.
    pub deflate: bool,
    /// The client's messages may refer to those before.
    pub client_takeover: bool,
    /// The server's may.
    pub server_takeover: bool,
}

impl Extensions {
    /// Reads the response's `sec-websocket-extensions`. `None`: there is one that is not known.
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
                    // A smaller window is read with the largest one.
                    "client_max_window_bits" | "server_max_window_bits" => {}
                    _ => return None,
                }
            }
        }
        Some(extensions)
    }
}

/// How far back a match may reach; the output wraps around in it.
const WINDOW: usize = 32 << 10;
/// The most that one message may be when it is decompressed.
const MAX_MESSAGE: usize = 256 << 20;
/// What every message ends with, and none contains.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The decoder of one direction.
pub(super) struct MessageInflater {
    core: DecompressorOxide,
    window: [u8; WINDOW],
    at: usize,
    takeover: bool,
    /// Of the message that is being read.
    written: usize,
    // Last: it outlives what it allows.
    _lease: Lease,
}

impl std::fmt::Debug for MessageInflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageInflater").field("takeover", &self.takeover).finish_non_exhaustive()
    }
}

impl MessageInflater {
    /// All that it will ever need.
    pub fn new(takeover: bool, memory: &MemoryBudget) -> Result<Box<Self>, SocketError> {
        let lease = memory.lease(Purpose::Keep, size_of::<Self>()).ok_or(SocketError::Memory)?;
        let core = DecompressorOxide::new();
        Ok(Box::new(Self { core, window: [0; WINDOW], at: 0, takeover, written: 0, _lease: lease }))
    }

    /// More of a message.
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
                // A sender may end its data within a message; what follows begins anew, with the same window.
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

    /// The end of a message.
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
