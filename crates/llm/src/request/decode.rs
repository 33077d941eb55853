//! Decodes the `content-encoding` of requests, and decides what to send if the body is edited. Some clients
//! compress by default. Others name an encoding that the body does not have. Such a body works with servers
//! that ignore the header or detect the encoding from the bytes. So the bytes take precedence over the
//! header.

use super::lenient::{self, reads_as_text};
use super::{Extent, length, unicode};
use crate::response::Cause;
use crate::response::decode::{Budget, Decoder, Sink};
use std::borrow::Cow;

/// The maximum number of nested encodings. Nobody needs more than one.
const LAYERS: usize = 3;

/// A body without its `content-encoding`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The decoded body.
    pub body: Cow<'a, [u8]>,
    /// Whether the decoded body is complete. Only a complete body may be edited. An edited body is sent
    /// without `content-encoding`.
    pub extent: Extent,
    /// Why the decoded body is incomplete although the whole body was available.
    pub cause: Option<Cause>,
    /// Whether the `content-encoding` header is correct.
    pub label: Label,
    /// What a server that trusts the header reads, if that is possible and differs from `body`.
    pub trusting: Option<Cow<'a, [u8]>>,
}

/// Whether a `content-encoding` is correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// The body is encoded as the header says.
    True,
    /// The body is encoded differently, or not at all.
    False,
    /// No known decoder can read it.
    Undecoded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
    Unknown,
}

impl Coding {
    fn of(name: &str) -> Option<Self> {
        let name = name.trim();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name {
            _ if name.is_empty() || is("identity") => None,
            _ if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            _ if is("deflate") => Some(Self::Deflate),
            _ if is("br") => Some(Self::Brotli),
            _ if is("zstd") => Some(Self::Zstd),
            _ => Some(Self::Unknown),
        }
    }

    /// Detects the encoding from the first bytes. Brotli and raw deflate have no signature.
    fn of_bytes(body: &[u8]) -> Option<Self> {
        let divides = |head: [u8; 2]| u16::from_be_bytes(head).checked_rem(31) == Some(0);
        match body {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0x78, second, ..] if divides([0x78, *second]) => Some(Self::Deflate),
            _ => None,
        }
    }

    /// Returns whether data in this encoding may begin like text.
    fn may_look_like_text(self) -> bool {
        matches!(self, Self::Deflate | Self::Brotli)
    }

    fn decoder(self) -> Result<Decoder, Cause> {
        Decoder::new(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Unknown => return Err(Cause::Encoding),
        })
    }
}

/// Decodes at most `most` bytes of a body. A part that cannot be decoded stays unchanged.
pub fn decode<'a>(content_encoding: &str, body: &'a [u8], extent: Extent, most: usize) -> Decoded<'a> {
    let (cause, label, trusting) = (None, Label::True, None);
    let mut decoded = Decoded { body: Cow::Borrowed(body), extent, cause, label, trusting };
    // The encoding that was applied last is removed first. Names beyond the maximum do not matter.
    let names = content_encoding.split(',').rev().filter_map(Coding::of);
    let mut labels = names.take(LAYERS.saturating_add(1)).peekable();
    if body.is_empty() {
        return decoded;
    }
    let mut failure = None;
    for _ in 0..LAYERS {
        let text = reads_as_text(&decoded.body);
        let label = labels.peek().copied();
        let sign = Coding::of_bytes(&decoded.body).filter(|_| !text);
        let by_label = label.filter(|label| !text || label.may_look_like_text());
        let mut codings = sign.into_iter().chain(by_label.filter(|label| Some(*label) != sign));
        let unpacked = codings.find_map(|coding| {
            let layer = unpack(coding, &decoded.body, decoded.extent, most);
            let layer = layer.map_err(|cause| failure = Some(cause)).ok()?;
            (!text || reads_as_text(&layer.bytes)).then_some((coding, layer))
        });
        let Some((coding, layer)) = unpacked else { break };
        if text && lenient::is_document(&unicode::to_utf8(&decoded.body)) {
            // Only a malicious client sends a body that can be read in both ways.
            decoded.trusting = Some(Cow::Owned(layer.bytes));
            break;
        }
        if labels.next_if_eq(&coding).is_none() {
            decoded.label = Label::False;
        }
        (decoded.body, decoded.extent, decoded.cause) = (Cow::Owned(layer.bytes), layer.extent, layer.cause);
        if decoded.cause.is_some() {
            return decoded;
        }
    }
    if let Some(label) = labels.peek() {
        decoded.label = Label::False;
        if !reads_as_text(&decoded.body) {
            decoded.label = Label::Undecoded;
            decoded.extent = Extent::Cut(Some(length(body)));
            decoded.cause = Some(failure.filter(|_| *label != Coding::Unknown).unwrap_or(Cause::Encoding));
        }
    }
    decoded
}

/// The output of one decoder.
struct Unpacked {
    bytes: Vec<u8>,
    extent: Extent,
    cause: Option<Cause>,
}

/// Decodes one layer. Fails if no server would accept the result.
fn unpack(coding: Coding, body: &[u8], extent: Extent, most: usize) -> Result<Unpacked, Cause> {
    let mut decoder = coding.decoder()?;
    let mut budget = Budget::of(u64::try_from(most).unwrap_or(u64::MAX));
    let mut decoded = Collected { bytes: Vec::new(), most };
    let mut outcome = decoder.feed(body, &mut budget, &mut decoded);
    if extent == Extent::Whole && outcome.is_ok() {
        outcome = decoder.finish(&budget);
    }
    let bytes = decoded.bytes;
    match outcome {
        Ok(()) => Ok(Unpacked { bytes, extent, cause: None }),
        // Some servers have decoders that accept a truncated body.
        Err(Cause::Truncated) if lenient::is_document(&unicode::to_utf8(&bytes)) => {
            Ok(Unpacked { bytes, extent, cause: None })
        }
        Err(cause) if cause == Cause::Bomb || reads_as_text(&bytes) => {
            Ok(Unpacked { bytes, extent: Extent::Cut(None), cause: Some(cause) })
        }
        Err(cause) => Err(cause),
    }
}

struct Collected {
    bytes: Vec<u8>,
    most: usize,
}

impl Sink for Collected {
    fn take(&mut self, bytes: &[u8]) {
        let room = self.most.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}
