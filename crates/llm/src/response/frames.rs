//! Reads `application/vnd.amazon.eventstream`, which wraps JSON in binary frames. Payloads are passed on as
//! they arrive. A payload that contains another document in base64 (Bedrock's `chunk`) is decoded first.
//! Lengths are checked. Checksums are not, because anyone who can forge a frame can forge its checksum.

use super::base64::Base64;
use super::cause::Cause;
use super::place::Node;
use super::report::Report;
use super::sse::EventStream;
use crate::json::{JsonPlace, Reader, Scanner, Wants};

/// The total length, the length of the headers, and a checksum of both.
const PRELUDE: usize = 12;
/// The checksum after the payload.
const TRAILER: u64 = 4;
/// The maxima of AWS: 128 KiB of headers, 24 MiB of payload.
const MAX_HEADERS: u64 = 128 << 10;
const MAX_FRAME: u64 = (24 << 20) + MAX_HEADERS + 16;
/// The part of the headers that is kept. The relevant ones come first and are short.
const KEPT_HEADERS: usize = 1024;
/// The maximum number of bytes that are processed at once.
const PIECE: usize = 4096;

/// Reads the documents of a body.
type Documents = Scanner<Node>;

#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    state: FrameState,
    /// The number of bytes of the current part that have not arrived yet.
    left: u64,
    payload: u64,
    /// The prelude or the headers.
    kept: Vec<u8>,
    /// The type of the payload.
    kind: FrameKind,
    /// The format of the concatenated payloads of parts, once it is known.
    stream: Option<EventStream>,
    is_stream_known: bool,
    envelope: Scanner<Envelope>,
    base64: Base64,
    /// The bytes that are decoded at once.
    unpacked: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FrameState {
    /// Between two frames, or in a prelude.
    #[default]
    Prelude,
    Headers,
    Payload,
    Trailer,
    /// The bytes are not a frame.
    Broken,
}

impl Frames {
    pub(super) fn feed(&mut self, mut bytes: &[u8], documents: &mut Documents, to: &mut Report) {
        while !bytes.is_empty() && self.state != FrameState::Broken {
            if self.state == FrameState::Prelude && self.kept.is_empty() {
                self.left = PRELUDE as u64;
            }
            let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE);
            let (piece, rest) = bytes.split_at(most.min(bytes.len()));
            self.left = self.left.saturating_sub(piece.len() as u64);
            bytes = rest;
            match self.state {
                FrameState::Prelude | FrameState::Headers => self.keep(piece),
                FrameState::Payload => self.payload(piece, documents, to),
                FrameState::Trailer | FrameState::Broken => {}
            }
            while self.left == 0 && self.advance(documents, to) {}
        }
        if self.state == FrameState::Broken {
            to.unread(bytes);
        }
    }

    /// Returns whether a frame has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        !(self.state == FrameState::Broken || self.state == FrameState::Prelude && self.kept.is_empty())
    }

    /// Handles the complete current part. Returns `false` at the end of a frame.
    fn advance(&mut self, documents: &mut Documents, to: &mut Report) -> bool {
        let (state, left) = match self.state {
            FrameState::Prelude => match lengths(&self.kept) {
                Some((headers, payload)) => {
                    self.payload = payload;
                    (FrameState::Headers, headers)
                }
                None => {
                    to.broken(Cause::Malformed);
                    to.unread(&self.kept);
                    (FrameState::Broken, 1)
                }
            },
            FrameState::Headers => {
                let kind = FrameKind::of(&self.kept);
                to.ended_in_error |= kind == FrameKind::Failure;
                self.kind = kind;
                // The text of a failure does not come from the model.
                documents.expect(if kind == FrameKind::Failure { Node::Other } else { Node::Root });
                (FrameState::Payload, self.payload)
            }
            FrameState::Payload => {
                let Self { envelope, base64, unpacked, .. } = self;
                envelope.end(&mut Unpack { base64, unpacked, documents, to });
                if self.kind != FrameKind::Part {
                    documents.end(to);
                }
                (FrameState::Trailer, TRAILER)
            }
            FrameState::Trailer | FrameState::Broken => (FrameState::Prelude, 0),
        };
        self.kept.clear();
        self.state = state;
        self.left = left;
        state != FrameState::Prelude
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = KEPT_HEADERS.saturating_sub(self.kept.len());
        self.kept.extend(piece.iter().take(room));
    }

    fn payload(&mut self, piece: &[u8], documents: &mut Documents, to: &mut Report) {
        match self.kind {
            FrameKind::Part => return self.part(piece, documents, to),
            FrameKind::Event | FrameKind::Failure => return documents.feed(piece, to),
            FrameKind::Chunk => {}
        }
        let Self { envelope, base64, unpacked, .. } = self;
        envelope.feed(piece, &mut Unpack { base64, unpacked, documents, to });
    }
}

impl Frames {
    /// Reads a part of a body that SageMaker splits into frames at arbitrary positions. The body contains
    /// events or documents.
    fn part(&mut self, piece: &[u8], documents: &mut Documents, to: &mut Report) {
        let first = piece.iter().find(|byte| !byte.is_ascii_whitespace());
        if let Some(first) = first.filter(|_| !self.is_stream_known) {
            self.is_stream_known = true;
            let is_stream = matches!(first, b'd' | b'e' | b'i' | b'r' | b':');
            self.stream = is_stream.then(EventStream::default);
        }
        match &mut self.stream {
            Some(stream) => stream.feed(piece, documents, to),
            None => documents.feed(piece, to),
        }
    }
}

/// A place in the outer document of a `chunk` frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Envelope {
    #[default]
    Document,
    /// The inner document, in base64.
    Bytes,
    /// Text that does not come from the model, such as padding.
    Other,
}

impl JsonPlace for Envelope {
    fn wants(self) -> Wants {
        match self {
            Envelope::Document => Wants::Object,
            Envelope::Bytes => Wants::Text,
            Envelope::Other => Wants::Nothing,
        }
    }

    fn only_counts(self) -> bool {
        false
    }
}

/// Decodes the document inside an envelope and passes it on.
struct Unpack<'a> {
    base64: &'a mut Base64,
    unpacked: &'a mut Vec<u8>,
    documents: &'a mut Documents,
    to: &'a mut Report,
}

impl Reader for Unpack<'_> {
    type Place = Envelope;

    fn child(&mut self, parent: Envelope, key: &[u8]) -> Envelope {
        if parent == Envelope::Document && key == b"bytes" { Envelope::Bytes } else { Envelope::Other }
    }

    fn open_text(&mut self, _: Envelope) {
        *self.base64 = Base64::default();
    }

    fn text(&mut self, place: Envelope, piece: &[u8]) {
        if place == Envelope::Bytes {
            self.base64.feed(piece, self.unpacked);
            self.documents.feed(self.unpacked, self.to);
            self.unpacked.clear();
        }
    }

    fn characters(&mut self, _: Envelope, _: u64) {}
    fn scalar(&mut self, _: Envelope, _: Option<&[u8]>) {}
    fn word(&mut self, _: Envelope, _: Option<&[u8]>) {}

    fn unread(&mut self, bytes: &[u8]) {
        self.to.unread(bytes);
    }

    fn malformed(&mut self) {
        self.to.malformed();
    }
}

/// Returns the lengths of headers and payload, if they are valid.
fn lengths(prelude: &[u8]) -> Option<(u64, u64)> {
    let (total, rest) = prelude.split_first_chunk::<4>()?;
    let total = u64::from(u32::from_be_bytes(*total));
    let headers = u64::from(u32::from_be_bytes(*rest.first_chunk::<4>()?));
    let payload = total.checked_sub(PRELUDE as u64 + TRAILER)?.checked_sub(headers)?;
    (total <= MAX_FRAME && headers <= MAX_HEADERS).then_some((headers, payload))
}

/// The type of a frame according to its headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FrameKind {
    /// A document.
    #[default]
    Event,
    /// A part of a body that was split at an arbitrary position.
    Part,
    /// A document that contains another one in base64.
    Chunk,
    /// An error that ends the stream.
    Failure,
}

impl FrameKind {
    fn of(mut headers: &[u8]) -> Self {
        let mut kind = FrameKind::Event;
        while let Some((name, value, rest)) = header(headers) {
            kind = match (name, value) {
                (b":message-type", b"exception" | b"error") => return FrameKind::Failure,
                (b":event-type", b"chunk") => FrameKind::Chunk,
                (b":event-type", b"PayloadPart") => FrameKind::Part,
                _ => kind,
            };
            headers = rest;
        }
        kind
    }
}

/// Reads the next header: its name, its value, and the rest.
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, bytes) = bytes.split_first()?;
    let (name, bytes) = bytes.split_at_checked(usize::from(*length))?;
    let (kind, bytes) = bytes.split_first()?;
    let (length, bytes) = match kind {
        0 | 1 => (0, bytes),
        2 => (1, bytes),
        3 => (2, bytes),
        4 => (4, bytes),
        5 | 8 => (8, bytes),
        9 => (16, bytes),
        6 | 7 => {
            let (length, bytes) = bytes.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), bytes)
        }
        _ => return None,
    };
    let (value, rest) = bytes.split_at_checked(length)?;
    Some((name, value, rest))
}
