//! Reads frames from chunks of any size.

use super::{Opcode, SocketError};

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub fin: bool,
    /// The extension bit that permessage-deflate uses (RSV1).
    pub compressed: bool,
    pub opcode: Opcode,
    pub mask: Option<[u8; 4]>,
    pub length: u64,
}

/// The next part of a stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Head(FrameHead),
    /// Some of the payload, still masked. `offset` is its position in the payload.
    Payload {
        bytes: &'a [u8],
        offset: u64,
    },
    End,
}

/// The maximum length of a head: two bytes, eight for the length, four for the mask.
const MAX_HEAD: usize = 14;
/// The maximum length of a control frame's payload.
const MAX_CONTROL: u64 = 125;

/// Reads frames.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    head: [u8; MAX_HEAD],
    read: usize,
    payload: Option<Payload>,
}

#[derive(Clone, Copy, Debug)]
struct Payload {
    length: u64,
    passed: u64,
}

impl FrameReader {
    /// Returns whether the next byte begins a frame.
    pub fn is_between_frames(&self) -> bool {
        self.payload.is_none() && self.read == 0
    }

    /// Takes the next part from the beginning of these bytes. Returns `None` if more bytes are needed.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, SocketError> {
        if let Some(payload) = &mut self.payload {
            let left = payload.length.saturating_sub(payload.passed);
            if left == 0 {
                self.payload = None;
                return Ok(Some(Part::End));
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(take);
            *bytes = later;
            let offset = payload.passed;
            payload.passed = offset.saturating_add(take as u64);
            return Ok(Some(Part::Payload { bytes: now, offset }));
        }
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            if let Some(place) = self.head.get_mut(self.read) {
                *place = *byte;
            }
            self.read = self.read.saturating_add(1);
            if self.read >= 2 && self.read >= self.head_length() {
                let head = self.parse()?;
                self.read = 0;
                self.payload = Some(Payload { length: head.length, passed: 0 });
                return Ok(Some(Part::Head(head)));
            }
        }
        Ok(None)
    }

    fn head_length(&self) -> usize {
        let [_, second, ..] = self.head;
        let length = match second & 0x7f {
            126 => 2_usize,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        length.saturating_add(mask).saturating_add(2)
    }

    fn parse(&self) -> Result<FrameHead, SocketError> {
        let [first, second, a, b, c, d, e, f, g, h, i, j, k, l] = self.head;
        let opcode = Opcode::of(first & 0x0f).ok_or(SocketError::Protocol)?;
        let (length, mask) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([a, b])), [c, d, e, f]),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), [i, j, k, l]),
            length => (u64::from(length), [a, b, c, d]),
        };
        let fin = first & 0x80 != 0;
        // Only the first of the three extension bits is known.
        let known = first & 0x30 == 0;
        let control = !opcode.is_control() || fin && length <= MAX_CONTROL && first & 0x40 == 0;
        if !known || !control || length >> 63 != 0 {
            return Err(SocketError::Protocol);
        }
        let mask = (second & 0x80 != 0).then_some(mask);
        Ok(FrameHead { fin, compressed: first & 0x40 != 0, opcode, mask, length })
    }
}

/// Masks or unmasks bytes. `offset` is their position in the payload.
pub(super) fn mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let mut key = key;
    key.rotate_left((offset % 4) as usize);
    let word = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    rest.iter_mut().zip(key.into_iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}
