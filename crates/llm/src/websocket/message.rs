//! Assembles messages from their frames and decompresses them, as far as they fit into memory.

use super::deflate::{Extensions, MessageInflater};
use super::frame::{FrameHead, FrameReader, Part, mask};
use super::{Opcode, SocketError};
use crate::memory::{Lease, MemoryBudget, Purpose};

/// The side that sends the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The client, which masks its frames.
    Client,
    /// The server, which does not mask its frames.
    Server,
}

/// What a reader has just finished reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// A whole message. [`MessageReader::message`] returns it.
    Message,
    /// The part of a message that fits into memory. [`MessageReader::message`] returns it. The rest is
    /// skipped.
    Truncated,
    /// A control frame.
    Control(Opcode),
}

/// The number of bytes that are unmasked at once.
const PIECE: usize = 4 << 10;
/// The memory for messages grows in multiples of this size.
const STEP: usize = 4 << 10;
/// The memory that is kept for the next message after a long one.
const KEPT: usize = 16 << 10;

/// Reads the messages of one direction.
#[derive(Debug)]
pub struct MessageReader {
    frames: FrameReader,
    peer: Peer,
    deflate: Option<bool>,
    inflater: Option<Box<MessageInflater>>,
    memory: MemoryBudget,
    max: usize,
    /// The head of the current frame.
    frame: Option<FrameHead>,
    /// The state of the current message.
    message: Progress,
    text: Vec<u8>,
    lease: Lease,
    error: Option<SocketError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No message is being read.
    None,
    /// The message is kept.
    Kept { compressed: bool },
    /// The rest of the message is skipped.
    Skipped { compressed: bool },
}

impl MessageReader {
    /// Creates a reader that keeps at most `max` bytes of each message.
    pub fn new(peer: Peer, extensions: Extensions, max: usize, memory: &MemoryBudget) -> Self {
        let mut reader = Self {
            frames: FrameReader::default(),
            peer,
            deflate: None,
            inflater: None,
            memory: memory.clone(),
            max,
            frame: None,
            message: Progress::None,
            text: Vec::new(),
            lease: memory.empty(Purpose::Keep),
            error: None,
        };
        reader.agree(extensions);
        reader
    }

    /// Sets the agreed extensions. Must be called before the first byte is read.
    pub fn agree(&mut self, extensions: Extensions) {
        let takeover = match self.peer {
            Peer::Client => extensions.client_takeover,
            Peer::Server => extensions.server_takeover,
        };
        self.deflate = extensions.deflate.then_some(takeover);
    }

    /// Returns whether a message can be replaced. This is the case if no later message refers to it.
    pub fn is_replaceable(&self) -> bool {
        self.deflate != Some(true)
    }

    /// Returns the message that has just ended, or the part of it that was kept.
    pub fn message(&self) -> &[u8] {
        &self.text
    }

    /// Returns whether the next byte begins a frame, and a message may begin with it.
    pub fn is_between_messages(&self) -> bool {
        self.message == Progress::None && self.frames.is_between_frames()
    }

    /// Returns whether the bytes read last cannot be interpreted yet, because a message is incomplete and
    /// kept, or the head of a frame is incomplete.
    pub fn is_undecided(&self) -> bool {
        let head = self.frame.is_none() && !self.frames.is_between_frames();
        matches!(self.message, Progress::Kept { .. }) || head
    }

    /// Reads these bytes up to the next event. Returns `None` if more bytes are needed. After an error,
    /// nothing more is read.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<SocketEvent>, SocketError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let event = self.read(bytes);
        self.error = event.err();
        event
    }

    fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<SocketEvent>, SocketError> {
        while let Some(part) = self.frames.next(bytes)? {
            let event = match part {
                Part::Head(head) => self.begin(head)?,
                Part::Payload { bytes, offset } => self.payload(bytes, offset)?,
                Part::End => self.end()?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn begin(&mut self, head: FrameHead) -> Result<Option<SocketEvent>, SocketError> {
        if head.mask.is_some() != (self.peer == Peer::Client) {
            return Err(SocketError::Protocol);
        }
        if !head.opcode.is_control() {
            let begins = head.opcode != Opcode::Continuation;
            let compressed = head.compressed;
            if begins != (self.message == Progress::None) || compressed && (!begins || self.deflate.is_none())
            {
                return Err(SocketError::Protocol);
            }
            if begins {
                self.text.clear();
                self.shrink();
                self.message = Progress::Kept { compressed };
            }
            if compressed && self.inflater.is_none() {
                let takeover = self.deflate.unwrap_or_default();
                self.inflater = Some(MessageInflater::new(takeover, &self.memory)?);
            }
        }
        self.frame = Some(head);
        Ok(None)
    }

    fn payload(&mut self, bytes: &[u8], offset: u64) -> Result<Option<SocketEvent>, SocketError> {
        let Some(head) = self.frame.filter(|head| !head.opcode.is_control()) else { return Ok(None) };
        let (Progress::Kept { compressed } | Progress::Skipped { compressed }) = self.message else {
            return Ok(None);
        };
        if self.message == (Progress::Skipped { compressed: false }) {
            return Ok(None);
        }
        let mut fits = true;
        match head.mask {
            None if compressed => fits = self.inflate(bytes)?,
            None => fits = self.keep(bytes),
            Some(key) => {
                let mut at = offset;
                for piece in bytes.chunks(PIECE) {
                    fits &= match compressed {
                        true => self.inflate_masked(piece, key, at)?,
                        false => self.keep_masked(piece, key, at),
                    };
                    at = at.saturating_add(piece.len() as u64);
                }
            }
        }
        Ok(self.skip_unless(fits, compressed))
    }

    /// Skips the rest of a message that does not fit. Returns an event only the first time.
    fn skip_unless(&mut self, fits: bool, compressed: bool) -> Option<SocketEvent> {
        let truncated = !fits && matches!(self.message, Progress::Kept { .. });
        if truncated {
            self.message = Progress::Skipped { compressed };
        }
        truncated.then_some(SocketEvent::Truncated)
    }

    fn end(&mut self) -> Result<Option<SocketEvent>, SocketError> {
        let Some(head) = self.frame.take() else { return Ok(None) };
        if head.opcode.is_control() {
            return Ok(Some(SocketEvent::Control(head.opcode)));
        }
        if !head.fin {
            return Ok(None);
        }
        let progress = std::mem::replace(&mut self.message, Progress::None);
        let (Progress::Kept { compressed } | Progress::Skipped { compressed }) = progress else {
            return Ok(None);
        };
        let mut fits = true;
        if compressed && let Some(mut inflater) = self.inflater.take() {
            inflater.finish(&mut |bytes| fits &= self.keep(bytes))?;
            self.inflater = Some(inflater);
        }
        Ok(match progress {
            Progress::Kept { .. } if fits => Some(SocketEvent::Message),
            Progress::Kept { .. } => Some(SocketEvent::Truncated),
            _ => None,
        })
    }

    fn inflate(&mut self, bytes: &[u8]) -> Result<bool, SocketError> {
        let Some(mut inflater) = self.inflater.take() else { return Ok(true) };
        let mut fits = true;
        inflater.feed(bytes, &mut |bytes| fits &= self.keep(bytes))?;
        self.inflater = Some(inflater);
        Ok(fits)
    }

    /// Decompresses a masked piece of at most [`PIECE`] bytes. `offset` is its position in the payload.
    fn inflate_masked(&mut self, bytes: &[u8], key: [u8; 4], offset: u64) -> Result<bool, SocketError> {
        let mut piece = [0; PIECE];
        let Some(piece) = piece.get_mut(..bytes.len()) else { return Ok(false) };
        piece.copy_from_slice(bytes);
        mask(piece, key, offset);
        self.inflate(piece)
    }

    /// Keeps a masked piece of a message. `offset` is its position in the payload.
    fn keep_masked(&mut self, bytes: &[u8], key: [u8; 4], offset: u64) -> bool {
        let begin = self.text.len();
        let fits = self.keep(bytes);
        mask(self.text.get_mut(begin..).unwrap_or_default(), key, offset);
        fits
    }

    /// Keeps a piece of a message. Returns `false` if not all of it fits.
    fn keep(&mut self, bytes: &[u8]) -> bool {
        if matches!(self.message, Progress::Skipped { .. }) {
            return true;
        }
        let room = self.max.saturating_sub(self.text.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        let needed = self.text.len().saturating_add(kept.len());
        if needed > self.text.capacity() {
            let grown = needed.max(self.text.capacity().saturating_mul(2)).next_multiple_of(STEP);
            // While the buffer grows, both allocations exist.
            let both = grown.saturating_add(self.text.capacity());
            if !self.lease.resize(both)
                || self.text.try_reserve_exact(grown.saturating_sub(self.text.len())).is_err()
            {
                return false;
            }
            self.lease.shrink(self.text.capacity());
        }
        self.text.extend_from_slice(kept);
        kept.len() == bytes.len()
    }

    fn shrink(&mut self) {
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
            self.lease.shrink(0);
        }
    }
}

#[cfg(test)]
mod tests;
