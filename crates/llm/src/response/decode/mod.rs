//! Decodes bodies with a `content-encoding`. Input may arrive in chunks of any size, and decoded bytes are
//! passed on as soon as they are known. Memory is reserved before it is allocated ([`MemoryBudget`]), and is
//! bounded by the largest window of each format. Work is bounded by the bytes on the wire ([`Budget`]).
//! Checksums are not verified: the client does that, and Weir only counts.

#[cfg(feature = "brotli")]
mod brotli;
mod inflate;
mod layers;
mod leased;
pub(crate) mod sniff;
#[cfg(feature = "zstd")]
mod zstd;

pub(super) use layers::Layers;

use super::cause::Cause;
use crate::memory::MemoryBudget;

/// Decodes one body.
#[derive(Default)]
pub(crate) enum Decoder {
    /// The bytes are not encoded.
    #[default]
    Identity,
    Inflate(Box<inflate::Inflate>),
    #[cfg(feature = "brotli")]
    Brotli(Box<brotli::Brotli>),
    #[cfg(feature = "zstd")]
    Zstd(Box<zstd::Zstd>),
    /// Decoding has failed. The rest is ignored.
    Over,
}

/// Receives the decoded bytes.
pub(crate) trait Sink {
    fn take(&mut self, bytes: &[u8]);
}

/// The maximum output for the input so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    input: u64,
    output: u64,
    most: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(Self::MAX)
    }
}

impl Budget {
    /// The output that every body may have, however small it is. Repetitive text compresses well.
    const FREE: u64 = 32 << 20;
    /// The additional output per byte on the wire. Text compresses 3 to 20 times.
    const RATIO: u64 = 64;
    /// The maximum output of a body.
    const MAX: u64 = 1 << 30;

    /// Creates the budget of a body that may have at most `most` bytes of output.
    pub(crate) fn of(most: u64) -> Self {
        Self { input: 0, output: 0, most }
    }

    fn received(&mut self, bytes: usize) {
        self.input = self.input.saturating_add(bytes as u64);
    }

    fn decoded(&mut self, bytes: usize) -> Result<(), Cause> {
        self.output = self.output.saturating_add(bytes as u64);
        let most = self.input.saturating_mul(Self::RATIO).saturating_add(Self::FREE).min(self.most);
        if self.output > most { Err(Cause::Bomb) } else { Ok(()) }
    }
}

/// An encoding in `content-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    #[cfg(feature = "brotli")]
    Brotli,
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Encoding {
    /// Returns whether a name in `content-encoding` stands for an encoding at all.
    pub(crate) fn is_any(name: &str) -> bool {
        let name = name.trim();
        !name.is_empty() && !name.eq_ignore_ascii_case("identity")
    }

    /// Parses the header. Fails if it names several encodings or an unknown one.
    pub(crate) fn of(content_encoding: &str) -> Result<Self, Cause> {
        let mut encodings = content_encoding
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
        let Some(encoding) = encodings.next() else { return Ok(Encoding::Identity) };
        if encodings.next().is_some() {
            return Err(Cause::Encoding);
        }
        match encoding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "deflate" => Ok(Encoding::Deflate),
            #[cfg(feature = "brotli")]
            "br" => Ok(Encoding::Brotli),
            #[cfg(feature = "zstd")]
            "zstd" => Ok(Encoding::Zstd),
            _ => Err(Cause::Encoding),
        }
    }
}

impl Decoder {
    /// Creates the decoder for this header. Fails if it names several encodings or an unknown one.
    pub(crate) fn new(content_encoding: &str) -> Result<Self, Cause> {
        Self::of(Encoding::of(content_encoding)?, &MemoryBudget::default())
    }

    /// Creates the decoder for an encoding and reserves its memory. Fails if there is no memory.
    pub(crate) fn of(encoding: Encoding, memory: &MemoryBudget) -> Result<Self, Cause> {
        let decoder = match encoding {
            Encoding::Identity => Some(Decoder::Identity),
            Encoding::Gzip => inflate::Inflate::gzip(memory).map(Decoder::Inflate),
            Encoding::Deflate => inflate::Inflate::deflate(memory).map(Decoder::Inflate),
            #[cfg(feature = "brotli")]
            Encoding::Brotli => brotli::Brotli::new(memory).map(Decoder::Brotli),
            #[cfg(feature = "zstd")]
            Encoding::Zstd => zstd::Zstd::new(memory).map(Decoder::Zstd),
        };
        decoder.ok_or(Cause::Memory)
    }

    /// Decodes the next bytes from the wire. After an error, nothing more is decoded.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        budget: &mut Budget,
        to: &mut impl Sink,
    ) -> Result<(), Cause> {
        budget.received(bytes.len());
        let result = match self {
            Decoder::Identity => {
                to.take(bytes);
                Ok(())
            }
            Decoder::Inflate(inflate) => inflate.feed(bytes, budget, to),
            #[cfg(feature = "brotli")]
            Decoder::Brotli(brotli) => brotli.feed(bytes, budget, to),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(zstd) => zstd.feed(bytes, budget, to),
            Decoder::Over => Ok(()),
        };
        if result.is_err() {
            *self = Decoder::Over;
        }
        result
    }

    /// Handles the end of the body. Fails if the body is incomplete.
    pub(crate) fn finish(&mut self, budget: &Budget) -> Result<(), Cause> {
        let complete = match self {
            Decoder::Identity | Decoder::Over => true,
            _ if budget.input == 0 => true,
            Decoder::Inflate(inflate) => inflate.is_complete(),
            #[cfg(feature = "brotli")]
            Decoder::Brotli(brotli) => brotli.is_complete(),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(zstd) => zstd.is_complete(),
        };
        *self = Decoder::Over;
        if complete { Ok(()) } else { Err(Cause::Truncated) }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Decoder::Identity => "Identity",
            Decoder::Inflate(_) => "Inflate",
            #[cfg(feature = "brotli")]
            Decoder::Brotli(_) => "Brotli",
            #[cfg(feature = "zstd")]
            Decoder::Zstd(_) => "Zstd",
            Decoder::Over => "Over",
        })
    }
}
