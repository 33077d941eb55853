//! `content-encoding`: compressed bytes in, in any pieces; decoded bytes out, as soon as they are known. Memory is
//! bounded by the windows of the formats, work by what came over the wire ([`Budget`]). Checksums are not verified:
//! the client does that, and we only count.

#[cfg(feature = "brotli")]
mod brotli;
mod inflate;
#[cfg(feature = "zstd")]
mod zstd;

use super::report::Cause;

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
        Self::of(Self::MOST)
    }
}

impl Budget {
    /// What any body may decode to, however small it is on the wire: text that repeats itself compresses well.
    const FREE: u64 = 32 << 20;
    /// What each byte on the wire may decode to beyond that. Text compresses 3 to 20 times.
    const RATIO: u64 = 64;
    /// What a body may decode to in all.
    const MOST: u64 = 1 << 30;

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

impl Decoder {
    /// The decoder for this header; an error if it names several encodings or one we do not know.
    pub(crate) fn new(content_encoding: &str) -> Result<Self, Cause> {
        let mut encodings = content_encoding
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
        let Some(encoding) = encodings.next() else { return Ok(Decoder::Identity) };
        if encodings.next().is_some() {
            return Err(Cause::Encoding);
        }
        match encoding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Ok(Decoder::Inflate(Box::new(inflate::Inflate::gzip()))),
            "deflate" => Ok(Decoder::Inflate(Box::new(inflate::Inflate::deflate()))),
            #[cfg(feature = "brotli")]
            "br" => Ok(Decoder::Brotli(Box::default())),
            #[cfg(feature = "zstd")]
            "zstd" => Ok(Decoder::Zstd(Box::default())),
            _ => Err(Cause::Encoding),
        }
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

    /// Nothing more comes: hands over what was held back. An error if the body is not complete.
    #[cfg_attr(not(feature = "zstd"), allow(unused_variables))]
    pub(crate) fn finish(&mut self, budget: &mut Budget, to: &mut impl Sink) -> Result<(), Cause> {
        let complete = match self {
            Decoder::Identity | Decoder::Over => true,
            _ if budget.input == 0 => true,
            Decoder::Inflate(inflate) => inflate.is_complete(),
            #[cfg(feature = "brotli")]
            Decoder::Brotli(brotli) => brotli.is_complete(),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(zstd) => zstd.finish(budget, to)?,
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
