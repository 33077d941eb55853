//! Ends a stream that has used up its limit. The current event is completed. Then follows an ending that
//! clients of the API read as "maximum output reached", and the rest is dropped. The API is detected from the
//! stream itself. A stream that Weir cannot end properly (compressed, or of an unknown API) is reset instead:
//! in doubt, the limit applies.

mod array;
mod endings;
mod seen;

use array::ArrayProgress;
use endings::StreamEnding;
use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::response::{ResponseHead, Usage};
use seen::SeenStream;

/// The longest event to parse, in bytes. The first events of a response repeat the request's instructions.
const KEPT: usize = 64 << 10;

/// The prelude and checksum of a frame, and the longest frame that AWS sends.
const FRAME: u64 = 16;
const LONGEST_FRAME: u64 = (24 << 20) + (128 << 10) + FRAME;

/// Cuts one stream.
#[derive(Debug)]
pub(super) struct StreamCutter {
    framing: StreamFraming,
    phase: Phase,
    /// Whether the content type is that of a single document.
    is_json: bool,
    seen: SeenStream,
    /// The current event, unless it is too long.
    event: Vec<u8>,
    is_too_long: bool,
    memory: MemoryBudget,
    lease: Lease,
    /// The position in the array.
    array: ArrayProgress,
    /// Whether the current line is still empty.
    is_blank: bool,
    /// Whether the last line ended in CR, so that a following LF belongs to it.
    after_cr: bool,
    /// How many bytes of the current frame have passed, and its length, once known.
    passed: u64,
    total: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamFraming {
    /// Unknown until the first bytes arrive.
    Unknown,
    ServerSentEvents,
    Lines,
    Frames,
    /// The elements of a JSON array. Gemini sends one unless the request asks for events.
    Array,
    /// An unknown framing, in which the ends of events cannot be found.
    Opaque,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Passing,
    /// The stream will end after the current event.
    Asked,
    Cut,
}

/// What to do with a chunk of the response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CutEdit {
    /// Send this instead.
    Replace(Vec<u8>),
    /// Send this instead and end the stream.
    End(Vec<u8>),
    /// Reset the stream.
    Reset,
}

/// The outcome of a request to cut the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutRequest {
    /// The stream will end.
    Noted,
    /// The stream must be reset now.
    Reset,
    /// The stream has ended, or this is not a stream.
    Ignored,
}

impl StreamFraming {
    /// `None` if this is not a stream. `streams` is true if the request asked for one.
    fn of(head: &ResponseHead, streams: bool) -> Option<Self> {
        let framing = match media_type(head).as_str() {
            "text/event-stream" => Self::ServerSentEvents,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Lines,
            "application/vnd.amazon.eventstream" => Self::Frames,
            _ if streams => Self::Unknown,
            _ => return None,
        };
        Some(if head.is_encoded() { Self::Opaque } else { framing })
    }

    /// Detects the framing from the first byte, if the content type does not determine it.
    fn of_first_byte(byte: u8) -> Self {
        match byte {
            b'[' => Self::Array,
            b'{' => Self::Lines,
            // The first byte of a comment or of the fields data, event, id and retry.
            b':' | b'd' | b'e' | b'i' | b'r' => Self::ServerSentEvents,
            _ => Self::Opaque,
        }
    }
}

fn media_type(head: &ResponseHead) -> String {
    head.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl StreamCutter {
    /// Returns `None` if this response is never cut. `streams` is true if the request asked for a stream, and
    /// `tells_usage` if it also asked for the stream's usage.
    pub(super) fn of(
        head: &ResponseHead,
        streams: bool,
        tells_usage: bool,
        memory: &MemoryBudget,
    ) -> Option<Self> {
        if !head.is_success() || head.switches_protocols() {
            return None;
        }
        let mut framing = StreamFraming::of(head, streams)?;
        let mut lease = memory.empty(Purpose::Keep);
        if !lease.resize(SeenStream::SIZE) {
            framing = StreamFraming::Opaque;
        }
        Some(Self {
            framing,
            phase: Phase::Passing,
            is_json: matches!(media_type(head).as_str(), "application/json" | "text/json"),
            seen: SeenStream { tells_usage, ..SeenStream::default() },
            event: Vec::new(),
            is_too_long: false,
            memory: memory.clone(),
            lease,
            array: ArrayProgress::default(),
            is_blank: true,
            after_cr: false,
            passed: 0,
            total: None,
        })
    }

    /// Returns whether chunks of the response have to be examined as they pass.
    pub(super) fn edits(&self) -> bool {
        self.has_cut() || self.framing != StreamFraming::Opaque
    }

    /// Returns whether the stream can still be cut.
    pub(super) fn can_cut(&self) -> bool {
        self.phase == Phase::Passing && !self.may_be_one_document()
    }

    /// A JSON body that is not a stream of a known API was generated at once, so cutting it would save
    /// nothing.
    fn may_be_one_document(&self) -> bool {
        self.is_json && self.seen.api.is_none() && self.framing != StreamFraming::Opaque
    }

    /// Returns whether the rest of the upstream's response is being dropped.
    pub(super) fn has_cut(&self) -> bool {
        self.phase == Phase::Cut
    }

    /// Handles a chunk that passes and cannot be examined.
    pub(super) fn lose_track(&mut self) {
        self.framing = StreamFraming::Opaque;
        self.event = Vec::new();
        self.lease.shrink(0);
    }

    /// Records that the limit has no room for more.
    pub(super) fn cut(&mut self) -> CutRequest {
        match (self.phase, self.framing) {
            (Phase::Cut, _) => CutRequest::Ignored,
            _ if self.may_be_one_document() => CutRequest::Ignored,
            (_, StreamFraming::Opaque) => {
                self.end();
                CutRequest::Reset
            }
            _ => {
                self.phase = Phase::Asked;
                CutRequest::Noted
            }
        }
    }

    /// Edits a chunk. Returns `None` if it passes unchanged. `usage` is the usage so far.
    pub(super) fn edit(&mut self, chunk: &[u8], usage: &Usage) -> Option<CutEdit> {
        if self.has_cut() {
            return Some(CutEdit::Replace(Vec::new()));
        }
        let mut rest = chunk;
        loop {
            if std::mem::take(&mut self.after_cr) {
                match rest.split_first() {
                    Some((b'\n', after)) => rest = after,
                    Some(_) => {}
                    None => {
                        self.after_cr = true;
                        return None;
                    }
                }
            }
            if self.phase == Phase::Asked
                && let Some(edit) = self.ending(chunk, rest, usage)
            {
                self.end();
                return Some(edit);
            }
            if rest.is_empty() {
                return None;
            }
            rest = match self.framing {
                StreamFraming::Unknown => self.detect(rest),
                StreamFraming::ServerSentEvents => self.line(rest),
                StreamFraming::Lines => self.document(rest),
                StreamFraming::Frames => self.frame(rest),
                StreamFraming::Array => self.element(rest),
                StreamFraming::Opaque => return None,
            };
        }
    }

    /// Returns how to end the stream here, if possible. `rest` is the part of `chunk` that is not parsed yet.
    fn ending(&self, chunk: &[u8], rest: &[u8], usage: &Usage) -> Option<CutEdit> {
        if self.framing == StreamFraming::Opaque {
            return Some(CutEdit::Reset);
        }
        if !self.is_between() {
            return None;
        }
        let ending = match endings::of(&self.seen, usage) {
            StreamEnding::Own => return None,
            StreamEnding::Unknown => return Some(CutEdit::Reset),
            StreamEnding::Bytes(ending) if self.framing == StreamFraming::Array => {
                self.array.ending(endings::payload(&ending))
            }
            StreamEnding::Bytes(ending) => ending,
        };
        let passed = chunk.len().saturating_sub(rest.len());
        let mut bytes = chunk.get(..passed).unwrap_or_default().to_vec();
        bytes.extend_from_slice(&ending);
        Some(CutEdit::End(bytes))
    }

    fn end(&mut self) {
        self.phase = Phase::Cut;
        self.event = Vec::new();
        self.lease.shrink(0);
    }

    /// Skips the white space and byte order mark that may precede a body.
    fn detect<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let blank = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0xef | 0xbb | 0xbf);
        let at = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
        let (_, rest) = bytes.split_at(at);
        if let Some(first) = rest.first() {
            self.framing = StreamFraming::of_first_byte(*first);
        }
        rest
    }

    fn is_between(&self) -> bool {
        self.event.is_empty()
            && self.is_blank
            && !self.is_too_long
            && self.passed == 0
            && self.framing != StreamFraming::Unknown
            && (self.framing != StreamFraming::Array || self.array.is_between())
    }

    /// Reads a line of server-sent events, or part of one. Returns the remaining bytes.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        self.is_blank &= text.is_empty();
        self.keep(text);
        let Some((line_end, rest)) = rest.split_first() else { return rest };
        self.after_cr = *line_end == b'\r';
        if std::mem::replace(&mut self.is_blank, true) {
            self.end_event();
        } else {
            self.keep(b"\n");
        }
        rest
    }

    /// Reads a document on a separate line, or part of one. Returns the remaining bytes.
    fn document<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        self.keep(text);
        let Some((_, rest)) = rest.split_first() else { return rest };
        self.end_event();
        rest
    }

    /// Reads an array's element, part of one, or the separator of two. Returns the remaining bytes.
    fn element<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (inside, rest) = self.array.take_element(bytes);
        self.keep(inside);
        if self.array.is_over() {
            self.seen.is_over = true;
        } else if !inside.is_empty() && self.array.is_between() {
            self.end_event();
        }
        rest
    }

    /// Reads a frame of an event stream, or part of one. Returns the remaining bytes.
    fn frame<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let wanted = self.total.unwrap_or(4).saturating_sub(self.passed);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes.len());
        let (piece, rest) = bytes.split_at(wanted);
        self.keep(piece);
        self.passed = self.passed.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        match self.total {
            None => {
                if let Some(length) = self.event.first_chunk::<4>() {
                    let total = u64::from(u32::from_be_bytes(*length));
                    self.total = Some(total);
                    if !(FRAME..=LONGEST_FRAME).contains(&total) {
                        self.framing = StreamFraming::Opaque;
                    }
                } else if self.is_too_long {
                    self.framing = StreamFraming::Opaque;
                }
            }
            Some(total) if self.passed >= total => {
                (self.passed, self.total) = (0, None);
                self.end_event();
            }
            Some(_) => {}
        }
        rest
    }

    fn keep(&mut self, piece: &[u8]) {
        let length = self.event.len().saturating_add(piece.len());
        // A growing buffer may double its capacity.
        let room = length.saturating_mul(2).saturating_add(SeenStream::SIZE).max(self.lease.bytes());
        if self.is_too_long || length > KEPT || !self.lease.resize(room) {
            self.is_too_long |= !piece.is_empty();
            self.event.clear();
            return;
        }
        self.event.extend_from_slice(piece);
    }

    fn end_event(&mut self) {
        if !std::mem::take(&mut self.is_too_long) {
            let (event, memory) = (&self.event, &self.memory);
            match self.framing {
                StreamFraming::ServerSentEvents => self.seen.event(event, memory),
                StreamFraming::Lines | StreamFraming::Array => self.seen.document(event, memory),
                StreamFraming::Frames => self.seen.frame(event, memory),
                StreamFraming::Unknown | StreamFraming::Opaque => {}
            }
        }
        self.event.clear();
    }
}
