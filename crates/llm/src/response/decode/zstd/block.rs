//! Decodes compressed blocks: literals, and the sequences that combine them with matches (RFC 8878, section
//! 3.1.1.3).

use super::super::Sink;
use super::super::leased::LeasedBytes;
use super::bits::BackwardBits;
use super::fse::Table;
use super::huffman::Codes;
use super::window::{DecodedWindow, Out};
use crate::response::cause::Cause;

/// The state that later blocks of a frame inherit, and memory that all blocks share.
#[derive(Default)]
pub(super) struct Blocks {
    codes: Codes,
    literal_lengths: Table,
    offsets: Table,
    match_lengths: Table,
    /// The last three offsets, newest first.
    recent: [usize; 3],
    literals: LeasedBytes,
}

/// One of the three kinds of codes in a sequence.
struct BlockKind {
    /// The binary logarithm of the largest table's number of states.
    most_log: u32,
    symbols: usize,
    /// The shares of the default table, for blocks that do not describe a table.
    shares: &'static [i16],
    log: u32,
}

const LITERAL_LENGTHS: BlockKind = BlockKind {
    most_log: 9,
    symbols: 36,
    shares: &[
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1,
        -1, -1, -1,
    ],
    log: 6,
};

const OFFSETS: BlockKind = BlockKind {
    most_log: 8,
    symbols: 32,
    shares: &[1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1],
    log: 5,
};

const MATCH_LENGTHS: BlockKind = BlockKind {
    most_log: 9,
    symbols: 53,
    shares: &[
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
    log: 6,
};

/// For each length code: the smallest length, and the number of additional bits.
const LITERAL_LENGTH_CODES: [(u32, u8); 36] = [
    (0, 0),
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 0),
    (12, 0),
    (13, 0),
    (14, 0),
    (15, 0),
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];

const MATCH_LENGTH_CODES: [(u32, u8); 53] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 0),
    (12, 0),
    (13, 0),
    (14, 0),
    (15, 0),
    (16, 0),
    (17, 0),
    (18, 0),
    (19, 0),
    (20, 0),
    (21, 0),
    (22, 0),
    (23, 0),
    (24, 0),
    (25, 0),
    (26, 0),
    (27, 0),
    (28, 0),
    (29, 0),
    (30, 0),
    (31, 0),
    (32, 0),
    (33, 0),
    (34, 0),
    (35, 1),
    (37, 1),
    (39, 1),
    (41, 1),
    (43, 2),
    (47, 2),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 5),
    (131, 7),
    (259, 8),
    (515, 9),
    (1027, 10),
    (2051, 11),
    (4099, 12),
    (8195, 13),
    (16387, 14),
    (32771, 15),
    (65539, 16),
];

impl Blocks {
    /// Begins a frame.
    pub(super) fn begin(&mut self) {
        self.recent = [1, 4, 8];
        self.codes.is_set = false;
        for table in [&mut self.literal_lengths, &mut self.offsets, &mut self.match_lengths] {
            table.is_set = false;
        }
    }

    /// Decodes a block. Its output may have at most `most` bytes.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        most: usize,
        window: &mut DecodedWindow,
        out: &mut Out<'_, impl Sink>,
    ) -> Result<(), Cause> {
        let rest = self.read_literals(block, most, out)?;
        let (count, rest) = count(rest).ok_or(Cause::Corrupt)?;
        if count == 0 {
            return window.literals(self.literals.bytes(), out);
        }
        let stream = self.read_tables(rest).ok_or(Cause::Corrupt)?;
        self.weave(stream, count, most, window, out)
    }

    fn read_literals<'a>(
        &mut self,
        block: &'a [u8],
        most: usize,
        out: &mut Out<'_, impl Sink>,
    ) -> Result<&'a [u8], Cause> {
        let header = Header::read(block).filter(|header| header.size <= most).ok_or(Cause::Corrupt)?;
        let body = block.get(header.length..).unwrap_or_default();
        self.literals.clear();
        let literals = self.literals.add(header.size, out.memory).ok_or(Cause::Memory)?;
        let (packed, rest) = body.split_at_checked(header.packed).ok_or(Cause::Corrupt)?;
        match (header.kind, packed) {
            (0, _) => literals.copy_from_slice(packed),
            (1, _) => literals.fill(packed.first().copied().unwrap_or_default()),
            _ => {
                let streams = match header.kind {
                    2 => self.codes.read(packed),
                    _ => self.codes.is_set.then_some(packed),
                };
                let decoded = streams.and_then(|streams| match header.streams {
                    1 => self.codes.decode(streams, literals),
                    _ => four_streams(&self.codes, streams, literals),
                });
                decoded.ok_or(Cause::Corrupt)?;
            }
        }
        Ok(rest)
    }

    /// Reads the tables of the sequences. Returns the rest.
    fn read_tables<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (modes, bytes) = bytes.split_first()?;
        if modes & 3 != 0 {
            return None;
        }
        let bytes = read_table(&mut self.literal_lengths, &LITERAL_LENGTHS, modes >> 6, bytes)?;
        let bytes = read_table(&mut self.offsets, &OFFSETS, modes >> 4 & 3, bytes)?;
        read_table(&mut self.match_lengths, &MATCH_LENGTHS, modes >> 2 & 3, bytes)
    }

    fn weave(
        &mut self,
        stream: &[u8],
        count: usize,
        most: usize,
        window: &mut DecodedWindow,
        out: &mut Out<'_, impl Sink>,
    ) -> Result<(), Cause> {
        let mut bits = BackwardBits::new(stream).ok_or(Cause::Corrupt)?;
        let mut length_state = bits.take(self.literal_lengths.log);
        let mut offset_state = bits.take(self.offsets.log);
        let mut match_state = bits.take(self.match_lengths.log);
        let (mut literals, mut size) = (self.literals.bytes(), self.literals.bytes().len());
        for left in (0..count).rev() {
            bits.load();
            let code = u32::from(self.offsets.symbol(offset_state));
            let offset = 1usize.checked_shl(code).ok_or(Cause::Corrupt)?.saturating_add(bits.take(code));
            bits.load();
            let code = usize::from(self.match_lengths.symbol(match_state));
            let (base, more) = MATCH_LENGTH_CODES.get(code).ok_or(Cause::Corrupt)?;
            let match_length = (*base as usize).saturating_add(bits.take(u32::from(*more)));
            let code = usize::from(self.literal_lengths.symbol(length_state));
            let (base, more) = LITERAL_LENGTH_CODES.get(code).ok_or(Cause::Corrupt)?;
            let length = (*base as usize).saturating_add(bits.take(u32::from(*more)));
            if left > 0 {
                bits.load();
                length_state = self.literal_lengths.next(length_state, &mut bits);
                match_state = self.match_lengths.next(match_state, &mut bits);
                offset_state = self.offsets.next(offset_state, &mut bits);
            }
            // Checked before writing, because a block does not announce its size.
            size = size.saturating_add(match_length);
            let (piece, rest) = literals.split_at_checked(length).ok_or(Cause::Corrupt)?;
            if size > most || bits.is_overrun() {
                return Err(Cause::Corrupt);
            }
            literals = rest;
            let offset = recall(&mut self.recent, offset, length);
            window.literals(piece, out)?;
            window.repeat(offset, match_length, out)?;
        }
        if !bits.is_complete() {
            return Err(Cause::Corrupt);
        }
        window.literals(literals, out)
    }
}

/// Returns the offset for an offset value. The values 1 to 3 refer to the last three offsets.
fn recall(recent: &mut [usize; 3], offset: usize, literals: usize) -> usize {
    let [newest, second, third] = *recent;
    let named = if literals == 0 { offset.saturating_add(1) } else { offset };
    let (offset, kept) = match (offset, named) {
        (4.., _) => (offset.saturating_sub(3), [newest, second]),
        (_, 1) => return newest,
        (_, 2) => (second, [newest, third]),
        (_, 3) => (third, [newest, second]),
        _ => (newest.saturating_sub(1), [newest, second]),
    };
    let [one, other] = kept;
    *recent = [offset, one, other];
    offset
}

fn four_streams(codes: &Codes, bytes: &[u8], mut to: &mut [u8]) -> Option<()> {
    let ([a, b, c, d, e, f], mut bytes) = bytes.split_first_chunk::<6>()?;
    let size = to.len().div_ceil(4);
    for packed in [[a, b], [c, d], [e, f]] {
        let (stream, later) =
            bytes.split_at_checked(usize::from(u16::from_le_bytes(packed.map(|byte| *byte))))?;
        let (piece, rest) = to.split_at_mut_checked(size)?;
        codes.decode(stream, piece)?;
        (bytes, to) = (later, rest);
    }
    codes.decode(bytes, to)
}

fn read_table<'a>(table: &mut Table, kind: &BlockKind, mode: u8, bytes: &'a [u8]) -> Option<&'a [u8]> {
    match mode {
        0 => table.build(kind.shares, kind.log).map(|()| bytes),
        1 => {
            let (symbol, rest) = bytes.split_first()?;
            table.repeat(*symbol);
            Some(rest)
        }
        2 => table.read(bytes, kind.most_log, kind.symbols),
        _ => table.is_set.then_some(bytes),
    }
}

/// Returns the number of sequences and the rest.
fn count(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    match first {
        255 => {
            let (count, rest) = rest.split_first_chunk::<2>()?;
            Some((usize::from(u16::from_le_bytes(*count)).saturating_add(0x7f00), rest))
        }
        128..=254 => {
            let (low, rest) = rest.split_first()?;
            Some((usize::from(first & 127) << 8 | usize::from(*low), rest))
        }
        _ => Some((usize::from(*first), rest)),
    }
}

/// The header of the literals.
struct Header {
    /// 0: raw. 1: one repeated byte. 2: compressed. 3: compressed with the previous table.
    kind: u8,
    streams: u8,
    /// The number of literals.
    size: usize,
    /// Their size in bytes.
    packed: usize,
    /// The length of the header.
    length: usize,
}

impl Header {
    fn read(block: &[u8]) -> Option<Self> {
        let first = block.first()?;
        let (kind, format) = (first & 3, first >> 2 & 3);
        let length = match (kind, format) {
            (0 | 1, 0 | 2) => 1,
            (0 | 1, 1) => 2,
            (0 | 1, _) | (_, 0 | 1) => 3,
            (_, 2) => 4,
            _ => 5,
        };
        let mut bytes = [0; 8];
        bytes.get_mut(..length)?.copy_from_slice(block.get(..length)?);
        let value = u64::from_le_bytes(bytes);
        let field = |at: u32, width: u32| (value >> at & (1u64 << width).saturating_sub(1)) as usize;
        let (size, packed) = match (kind, length) {
            (0 | 1, 1) => (field(3, 5), 1),
            (0 | 1, 2) => (field(4, 12), 1),
            (0 | 1, _) => (field(4, 20), 1),
            (_, 3) => (field(4, 10), field(14, 10)),
            (_, 4) => (field(4, 14), field(18, 14)),
            _ => (field(4, 18), field(22, 18)),
        };
        let packed = if kind == 0 { size } else { packed };
        let streams = if kind > 1 && format == 0 { 1 } else { 4 };
        Some(Self { kind, streams, size, packed, length })
    }
}
