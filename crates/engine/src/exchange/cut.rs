//! Ends a stream that has used up its limit: bytes pass to the end of the event that is under way, then comes an ending
//! that a client of the API takes for that of a response at its maximum output, and the rest is dropped. What the API is,
//! the stream says itself; one that says nothing known is left alone.

mod endings;
mod seen;

use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::response::{ResponseHead, Usage};
use seen::SeenStream;

/// The longest event that is looked at, in bytes. Those that begin a response repeat its instructions.
const KEPT: usize = 64 << 10;

/// The prelude and the checksum of a frame, and the longest frame that AWS sends.
const FRAME: u64 = 16;
const LONGEST_FRAME: u64 = (24 << 20) + (128 << 10) + FRAME;

/// See the module.
#[derive(Debug)]
pub(super) struct StreamCutter {
    framing: StreamFraming,
    phase: Phase,
    seen: SeenStream,
    /// The event under way, if it is not too long.
    event: Vec<u8>,
    is_too_long: bool,
    lease: Lease,
    /// The current line has no text yet.
    is_blank: bool,
    /// The last line ended in CR: a LF now belongs to it.
    after_cr: bool,
    /// How much of the current frame has passed, and how much it has in all, once that is known.
    passed: u64,
    total: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamFraming {
    ServerSentEvents,
    Lines,
    Frames,
    /// What came has none that is known.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Passing,
    /// It is to end with the event under way.
    Asked,
    Cut,
}

/// What becomes of a piece of the response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CutPiece {
    /// This goes on in its place.
    pub bytes: Vec<u8>,
    /// The stream ends here.
    pub is_end: bool,
}

impl StreamCutter {
    /// `None`: a body like this is not cut. `tells_usage`: the client has asked for the usage of the stream.
    pub(super) fn of(head: &ResponseHead, tells_usage: bool, memory: &MemoryBudget) -> Option<Self> {
        if !head.is_success() || head.is_encoded() || head.switches_protocols() {
            return None;
        }
        let content_type =
            head.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let framing = match content_type.as_str() {
            "text/event-stream" => StreamFraming::ServerSentEvents,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => StreamFraming::Lines,
            "application/vnd.amazon.eventstream" => StreamFraming::Frames,
            _ => return None,
        };
        Some(Self {
            framing,
            phase: Phase::Passing,
            seen: SeenStream { tells_usage, ..SeenStream::default() },
            event: Vec::new(),
            is_too_long: false,
            lease: memory.empty(Purpose::Keep),
            is_blank: true,
            after_cr: false,
            passed: 0,
            total: None,
        })
    }

    /// Whether it would make a difference that there is no room.
    pub(super) fn can_cut(&self) -> bool {
        self.phase == Phase::Passing && self.framing != StreamFraming::Broken
    }

    /// Whether nothing of the upstream's reaches the client any more.
    pub(super) fn has_cut(&self) -> bool {
        self.phase == Phase::Cut
    }

    /// There is no room for more.
    pub(super) fn cut(&mut self) {
        if self.phase == Phase::Passing {
            self.phase = Phase::Asked;
        }
    }

    /// What becomes of `chunk`; `None`: it passes as it is. `usage`: what has been used by now.
    pub(super) fn edit(&mut self, chunk: &[u8], usage: &Usage) -> Option<CutPiece> {
        if self.has_cut() {
            return Some(CutPiece { bytes: Vec::new(), is_end: false });
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
                && self.is_between()
                && let Some(ending) = endings::of(&self.seen, usage)
            {
                self.phase = Phase::Cut;
                self.lease.shrink(0);
                self.event = Vec::new();
                let passed = chunk.len().saturating_sub(rest.len());
                let mut bytes = chunk.get(..passed).unwrap_or_default().to_vec();
                bytes.extend_from_slice(&ending);
                return Some(CutPiece { bytes, is_end: true });
            }
            if rest.is_empty() {
                return None;
            }
            rest = match self.framing {
                StreamFraming::ServerSentEvents => self.line(rest),
                StreamFraming::Lines => self.document(rest),
                StreamFraming::Frames => self.frame(rest),
                StreamFraming::Broken => return None,
            };
        }
    }

    fn is_between(&self) -> bool {
        self.event.is_empty() && self.is_blank && !self.is_too_long && self.passed == 0
    }

    /// One line of server-sent events, or the piece of it that is there. What follows it.
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

    /// One document of a line, or the piece of it that is there. What follows it.
    fn document<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        self.keep(text);
        let Some((_, rest)) = rest.split_first() else { return rest };
        self.end_event();
        rest
    }

    /// A frame of an event stream, or the piece of it that is there. What follows it.
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
                        self.framing = StreamFraming::Broken;
                    }
                } else if self.is_too_long {
                    self.framing = StreamFraming::Broken;
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
        // A buffer that grows may double.
        let room = length.saturating_mul(2).max(self.lease.bytes());
        if self.is_too_long || length > KEPT || !self.lease.resize(room) {
            self.is_too_long |= !piece.is_empty();
            self.event.clear();
            return;
        }
        self.event.extend_from_slice(piece);
    }

    fn end_event(&mut self) {
        if !std::mem::take(&mut self.is_too_long) {
            match self.framing {
                StreamFraming::ServerSentEvents => self.seen.event(&self.event),
                StreamFraming::Lines => self.seen.document(&self.event),
                StreamFraming::Frames => self.seen.frame(&self.event),
                StreamFraming::Broken => {}
            }
        }
        self.event.clear();
    }
}
