//! `content-encoding`: compressed bytes in, in any pieces; decoded bytes out, as soon as they are known. Memory is
//! asked for before it is allocated ([`MemoryBudget`]) and bounded by the largest window of each format, work by what came
//! over the wire ([`Budget`]). Checksums are not verified: the client does that, and we only count.

#[cfg(feature = "brotli")]
mod brotli;
mod inflate;
mod layers;
mod leased;
pub(crate) mod sniff;
#[cfg(feature = "zstd")]
mod zstd;

pub(super) use layers::Layers;

use super::report::Cause;
use crate::memory::MemoryBudget;

/// Decodes one body.
#[derive(Default)]
pub(crate) enum Decoder {
    /// The bytes are what they are.
    #[default]
    Identity,
    Inflate(Box<inflate::Inflate>),
    #[cfg(feature = "brotli")]
    Brotli(Box<brotli::Brotli>),
    #[cfg(feature = "zstd")]
    Zstd(Box<zstd::Zstd>),
    /// Something was wrong; the rest is ignored.
    Over,
}

/// Where decoded bytes go.
pub(crate) trait Sink {
    fn take(&mut self, bytes: &[u8]);
}

/// How much may come out for what went in.
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
    /// What any body may decode to, however small it is on the wire: text that repeats itself compresses well.
    const FREE: u64 = 32 << 20;
    /// What each byte on the wire may decode to beyond that. Text compresses 3 to 20 times.
    const RATIO: u64 = 64;
    /// What a body may decode to in all.
    const MAX: u64 = 1 << 30;

    /// For a body of which no more than this is wanted.
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

/// What `content-encoding` names.
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
    /// Whether a name in `content-encoding` stands for any encoding.
    pub(crate) fn is_any(name: &str) -> bool {
        let name = name.trim();
        !name.is_empty() && !name.eq_ignore_ascii_case("identity")
    }

    /// By this header; an error if it names several encodings or one we do not know.
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
    /// The decoder for this header; an error if it names several encodings or one we do not know.
    pub(crate) fn new(content_encoding: &str) -> Result<Self, Cause> {
        Self::of(Encoding::of(content_encoding)?, &MemoryBudget::default())
    }

    /// The decoder for an encoding, which asks for its memory here. An error if it is refused.
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

    /// The next bytes from the wire. After an error nothing more is decoded.
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

    /// Nothing more comes: an error if the body is not complete.
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
