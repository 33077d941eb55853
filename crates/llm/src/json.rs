//! A scanner for JSON that arrives in chunks of any size. It calls a [`Reader`] for the places that the
//! reader requests, and skips all other values. It builds no values and keeps a few hundred bytes, however
//! large the document is. Several documents may follow each other (NDJSON) or be elements of an array
//! (Gemini's streams).
//!
//! The scanner does not validate its input: skipped parts may be invalid JSON.

mod bytes;
mod count;
mod lanes;
mod reader;
mod script;
mod string;
pub mod tree;

pub(crate) use bytes::{characters, closing_quote as skipped_string};
pub(crate) use count::Counted;
pub(crate) use reader::{JsonPlace, LABEL, Reader, Wants};

pub(crate) use string::counted_string;

use bytes::{after_space, closing_quote, short_string};
use count::Counter;
use lanes::{Nesting, Structure, find};
use string::{Escape, TokenBuffer};

/// The maximum number of relevant containers that may be open at once. The deepest place that any reader
/// requests is nine levels deep.
const MAX_DEPTH: usize = 24;

/// Numbers and literals longer than this many bytes are copied into a buffer.
const SHORT_SCALAR: usize = 24;

#[derive(Clone, Debug, Default)]
pub(crate) struct Scanner<P> {
    state: ScanState,
    /// The open containers that are relevant and contain `here`, outermost first.
    open: [Frame<P>; MAX_DEPTH],
    depth: usize,
    /// The innermost relevant container, if there is one.
    here: Frame<P>,
    /// How many containers are open inside a skipped value. Only this number grows with the depth of the
    /// input.
    skipped: u64,
    /// The place of a whole document.
    root: P,
    /// The place of the next value.
    place: P,
    escape: Escape,
    /// The first half of a surrogate pair. The second half may follow.
    half: Option<u32>,
    token: TokenBuffer,
    /// The number of bytes of the skipped string that have been read.
    passed: usize,
    /// Counts the text in containers that are skipped.
    counter: Counter,
}

#[derive(Clone, Copy, Debug, Default)]
struct Frame<P> {
    place: P,
    array: bool,
    /// The index of the current element in that container.
    index: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ScanState {
    /// Between two documents.
    #[default]
    Document,
    /// Before a value, or the end of an empty array.
    Value,
    /// Before a key, or the end of the object.
    Key,
    /// Between a key and its value.
    Colon,
    /// After a value, or in a skipped number or literal.
    Comma,
    /// In a requested number or literal.
    Scalar,
    String(Use),
    /// In a skipped container.
    Skip,
    /// In text that is not a document.
    Stray,
    /// In a container in which text is only counted.
    Count,
    /// The input is not JSON. Nothing more is read until `Scanner::end` resets the scanner.
    Broken,
}

/// The purpose of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Key,
    Text,
    Word,
    Nothing,
    /// Nothing: it is in a skipped container.
    Skip,
}

impl<P: JsonPlace> Scanner<P> {
    /// Reads the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], to: &mut impl Reader<Place = P>) {
        while !bytes.is_empty() {
            bytes = match self.state {
                ScanState::Value => self.value(bytes, to),
                ScanState::Key => self.members(bytes, to),
                ScanState::Colon => self.colon(bytes, to),
                ScanState::Comma => self.comma(bytes, to),
                ScanState::String(purpose @ (Use::Key | Use::Text)) => self.string(bytes, purpose, to),
                ScanState::String(purpose @ (Use::Nothing | Use::Word)) => {
                    let rest = self.string(bytes, purpose, to);
                    self.pass(bytes, rest.len(), to);
                    rest
                }
                ScanState::String(Use::Skip) => {
                    let rest = self.string(bytes, Use::Skip, to);
                    self.measure(bytes, rest.len(), to);
                    rest
                }
                ScanState::Skip => {
                    let rest = self.skip(bytes, to);
                    self.measure(bytes, rest.len(), to);
                    rest
                }
                ScanState::Count => self.count(bytes, to),
                ScanState::Scalar => self.scalar(bytes, to),
                ScanState::Document => self.document(bytes, to),
                ScanState::Stray => self.stray(bytes, to),
                ScanState::Broken => {
                    to.unread(bytes);
                    &[]
                }
            };
        }
    }

    /// Reports a piece of a skipped string: `bytes` without the last `left` bytes and without a closing
    /// quote.
    fn pass(&mut self, bytes: &[u8], left: usize, to: &mut impl Reader<Place = P>) {
        let quote = usize::from(!matches!(self.state, ScanState::String(_)));
        let end = bytes.len().saturating_sub(left.saturating_add(quote));
        let piece = bytes.get(..end).unwrap_or_default();
        to.passed(self.place, self.passed, piece);
        self.passed = self.passed.saturating_add(piece.len());
    }

    /// Counts the characters in `bytes` without the last `left` bytes and without the end of the container, if
    /// the length of the skipped container matters.
    fn measure(&self, bytes: &[u8], left: usize, to: &mut impl Reader<Place = P>) {
        if !matches!(self.place.wants(), Wants::TextOrLength | Wants::Strings) {
            return;
        }
        let end = usize::from(self.skipped == 0).saturating_add(left);
        let passed = bytes.get(..bytes.len().saturating_sub(end)).unwrap_or_default();
        to.characters(self.place, characters(passed));
    }

    /// Sets the place of the documents that follow.
    pub(crate) fn expect(&mut self, root: P) {
        self.root = root;
    }

    /// Returns whether a document is incomplete.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, ScanState::Document | ScanState::Stray | ScanState::Broken)
    }

    /// Ends the open document, if there is one. The next byte begins a new document.
    pub(crate) fn end(&mut self, to: &mut impl Reader<Place = P>) {
        if matches!(self.state, ScanState::Document | ScanState::Stray) {
            self.state = ScanState::Document;
            // No document is open.
            return;
        }
        if self.is_open() {
            to.malformed();
        }
        to.close_document();
        self.state = ScanState::Document;
        self.depth = 0;
        self.here = Frame::default();
        self.skipped = 0;
        self.place = P::default();
        self.escape = Escape::None;
        self.half = None;
    }

    fn document<'a>(&mut self, bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        let bytes = after_space(bytes);
        if bytes.is_empty() {
            return bytes;
        }
        // In JSON text sequences (RFC 7464), each document follows a record separator.
        if let [0x1e, rest @ ..] = bytes {
            return rest;
        }
        self.place = self.root;
        if matches!(bytes.first(), Some(b'{' | b'[' | b'"' | b'}' | b']' | b',' | b':'))
            || self.place.wants() == Wants::Anything
        {
            return self.value(bytes, to);
        }
        self.state = ScanState::Stray;
        bytes
    }

    /// Skips text that is not a document, up to the end of the line or the beginning of a document.
    fn stray<'a>(&mut self, bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        let over = |b: &u8| matches!(b, b'{' | b'[' | b'"' | b'\n');
        let end = bytes.iter().position(over).unwrap_or(bytes.len());
        let (stray, rest) = bytes.split_at(end);
        to.unread(stray);
        if !rest.is_empty() {
            self.state = ScanState::Document;
        }
        rest
    }

    fn value<'a>(&mut self, bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        let bytes = after_space(bytes);
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        let wants = self.place.wants();
        match first {
            b'"' => return self.begin_string(rest, wants, to),
            b'{' | b'[' => self.begin_container(*first == b'[', wants, to),
            b']' if self.here.array => self.end_container(true, to),
            b'}' | b']' | b',' | b':' => self.broken(to),
            b'#' | b'\'' | b'/' => self.broken(to),
            _ if wants.has_scalars() => {
                if self.depth > 0
                    && let Some((scalar, rest)) = short_scalar(bytes)
                {
                    to.scalar(self.place, Some(scalar));
                    self.after_value();
                    return rest;
                }
                self.token.clear();
                self.state = ScanState::Scalar;
                return bytes;
            }
            _ => self.after_value(),
        }
        rest
    }

    fn begin_string<'a>(
        &mut self,
        rest: &'a [u8],
        wants: Wants,
        to: &mut impl Reader<Place = P>,
    ) -> &'a [u8] {
        let purpose = match wants {
            Wants::Text | Wants::TextOrLength | Wants::Anything | Wants::Count | Wants::Strings => Use::Text,
            Wants::Scalar | Wants::ScalarOrObject | Wants::ScalarOrArray | Wants::ScalarOrContainer => {
                Use::Word
            }
            Wants::Object | Wants::Nothing => Use::Nothing,
        };
        if purpose == Use::Text {
            to.open_text(self.place);
        }
        let end = match purpose {
            Use::Nothing => closing_quote(rest),
            _ => short_string(rest),
        };
        if let Some(end) = end
            && let (string, [_, rest @ ..]) = rest.split_at(end)
        {
            match purpose {
                Use::Text => {
                    to.text(self.place, string);
                    to.close_text(self.place);
                }
                Use::Word => to.word(self.place, Some(string)),
                _ if end > LABEL => to.passed(self.place, 0, string),
                _ => {}
            }
            self.after_value();
            return rest;
        }
        self.token.clear();
        self.passed = 0;
        self.state = ScanState::String(purpose);
        match purpose {
            Use::Text => self.string(rest, purpose, to),
            _ => rest,
        }
    }

    fn begin_container(&mut self, array: bool, wants: Wants, to: &mut impl Reader<Place = P>) {
        let matters = match wants {
            Wants::Object | Wants::Anything | Wants::Strings | Wants::ScalarOrContainer => true,
            Wants::ScalarOrObject => !array,
            Wants::ScalarOrArray => array,
            Wants::Nothing | Wants::Text | Wants::TextOrLength | Wants::Scalar | Wants::Count => false,
        };
        if !matters && matches!(wants, Wants::Scalar | Wants::ScalarOrObject | Wants::ScalarOrArray) {
            to.misplaced(self.place);
        }
        let place = self.place;
        match self.open.get_mut(self.depth) {
            Some(around) if matters => {
                *around = self.here;
                self.here = Frame { place, array, index: 0 };
                self.depth = self.depth.saturating_add(1);
                if !array && place.is_document() {
                    to.open_document();
                }
                if !array {
                    to.open(place);
                }
                self.state = if array { ScanState::Value } else { ScanState::Key };
                if array {
                    self.place = to.element(place, 0);
                }
            }
            // Text is counted even beyond the maximum depth.
            _ if matches!(wants, Wants::Count | Wants::Anything) => {
                self.counter.begin();
                self.state = ScanState::Count;
            }
            _ => {
                self.skipped = 1;
                self.state = ScanState::Skip;
            }
        }
    }

    fn count<'a>(&mut self, bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        let rest = self.counter.feed(bytes);
        to.counted(self.place, self.counter.found());
        match rest {
            Some(rest) if self.counter.is_stray() => {
                self.broken(to);
                rest
            }
            Some(rest) => {
                self.after_value();
                rest
            }
            None => &[],
        }
    }

    fn end_container(&mut self, array: bool, to: &mut impl Reader<Place = P>) {
        let Some(around) = self.depth.checked_sub(1).filter(|_| self.here.array == array) else {
            return self.broken(to);
        };
        if !array {
            to.close(self.here.place);
        }
        self.depth = around;
        self.here = self.open.get(around).copied().unwrap_or_default();
        self.after_value();
    }

    /// Skips members and reads short values, as long as they are complete and have no escape sequences.
    fn members<'a>(&mut self, mut bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        while let Some((key, value)) = plain_key(bytes) {
            let place = to.child(self.here.place, key);
            match plain_value(place, value, to) {
                Some([b',', rest @ ..]) => bytes = rest,
                Some(rest) => {
                    self.state = ScanState::Comma;
                    return rest;
                }
                None => {
                    self.place = place;
                    self.state = ScanState::Value;
                    let rest = self.value(value, to);
                    if self.state != ScanState::Key {
                        return rest;
                    }
                    bytes = rest;
                }
            }
        }
        if bytes.is_empty() { bytes } else { self.key(bytes, to) }
    }

    fn key<'a>(&mut self, bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        let bytes = after_space(bytes);
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        match first {
            b'"' => {
                self.token.clear();
                self.state = ScanState::String(Use::Key);
            }
            b'}' => self.end_container(false, to),
            _ => self.broken(to),
        }
        rest
    }

    fn colon<'a>(&mut self, bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        let bytes = after_space(bytes);
        match bytes.split_first() {
            Some((b':', rest)) => {
                self.state = ScanState::Value;
                rest
            }
            Some((_, rest)) => {
                self.broken(to);
                rest
            }
            None => bytes,
        }
    }

    fn comma<'a>(&mut self, mut bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        while self.state == ScanState::Comma {
            let Some(found) = find::<Structure>(bytes).and_then(|at| bytes.get(at..)) else { return &[] };
            let Some((first, rest)) = found.split_first() else { return found };
            bytes = rest;
            match first {
                b',' if self.here.array => {
                    self.here.index = self.here.index.saturating_add(1);
                    self.place = to.element(self.here.place, self.here.index);
                    self.state = ScanState::Value;
                    bytes = self.value(rest, to);
                }
                b',' => {
                    self.state = ScanState::Key;
                    return self.members(rest, to);
                }
                b'}' => self.end_container(false, to),
                b']' => self.end_container(true, to),
                _ => self.broken(to),
            }
        }
        bytes
    }

    fn scalar<'a>(&mut self, bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        let end = bytes.iter().position(|byte| ends_scalar(*byte)).unwrap_or(bytes.len());
        let (piece, rest) = bytes.split_at(end);
        self.token.push(piece);
        if !rest.is_empty() {
            if let Some(length) = self.token.too_long() {
                to.long_scalar(self.place, length);
            }
            to.scalar(self.place, self.token.bytes());
            self.after_value();
        }
        rest
    }

    fn skip<'a>(&mut self, mut bytes: &'a [u8], to: &mut impl Reader<Place = P>) -> &'a [u8] {
        while let Some(at) = find::<Nesting>(bytes) {
            let (_, found) = bytes.split_at(at);
            let Some((first, rest)) = found.split_first() else { return found };
            bytes = rest;
            match first {
                b'"' => match closing_quote(rest) {
                    Some(end) => bytes = rest.get(end.saturating_add(1)..).unwrap_or_default(),
                    None => {
                        self.state = ScanState::String(Use::Skip);
                        return rest;
                    }
                },
                b'{' | b'[' => self.skipped = self.skipped.saturating_add(1),
                // In lenient parsers, these characters begin a comment or a string, and the bytes that follow
                // may be part of it.
                b'#' | b'&' | b'\'' | b'/' => {
                    self.broken(to);
                    return rest;
                }
                _ => {
                    self.skipped = self.skipped.saturating_sub(1);
                    if self.skipped == 0 {
                        self.after_value();
                        return rest;
                    }
                }
            }
        }
        &[]
    }

    fn after_value(&mut self) {
        self.state = if self.depth == 0 { ScanState::Document } else { ScanState::Comma };
    }

    fn broken(&mut self, to: &mut impl Reader<Place = P>) {
        to.malformed();
        self.state = ScanState::Broken;
    }
}

fn ends_scalar(byte: u8) -> bool {
    matches!(
        byte,
        b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'{' | b'[' | b'\'' | b'/' | b'#'
    )
}

/// Splits off a number or literal if it is short and complete. Returns it and the remaining bytes.
fn short_scalar(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().take(SHORT_SCALAR).position(|byte| ends_scalar(*byte))?;
    bytes.split_at_checked(end)
}

/// Splits off a key if it has no escape sequences and a colon follows it directly. Returns the key and the
/// bytes after the colon.
fn plain_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [b'"', bytes @ ..] = bytes else { return None };
    match bytes.split_at_checked(short_string(bytes)?)? {
        (key, [_, b':', value @ ..]) => Some((key, value)),
        _ => None,
    }
}

/// Reads or skips a value that is complete, not a container, and short if it is requested. Returns the
/// remaining bytes.
#[inline]
fn plain_value<'a, P: JsonPlace>(
    place: P,
    bytes: &'a [u8],
    to: &mut impl Reader<Place = P>,
) -> Option<&'a [u8]> {
    let wants = place.wants();
    match bytes {
        [b'"', string @ ..] if matches!(wants, Wants::Nothing | Wants::Object) => {
            let end = closing_quote(string)?;
            let (string, rest) = string.split_at_checked(end)?;
            if end > LABEL {
                to.passed(place, 0, string);
            }
            to.skipped(string, true);
            rest.get(1..)
        }
        [b'"', string @ ..] => {
            let (text, rest) = string.split_at_checked(short_string(string)?)?;
            match wants {
                Wants::Text | Wants::TextOrLength | Wants::Anything | Wants::Count => {
                    to.open_text(place);
                    to.text(place, text);
                    to.close_text(place);
                }
                Wants::Strings => to.text(place, text),
                Wants::Scalar | Wants::ScalarOrObject | Wants::ScalarOrArray | Wants::ScalarOrContainer => {
                    to.word(place, Some(text));
                }
                Wants::Object | Wants::Nothing => {}
            }
            rest.get(1..)
        }
        [first, ..] if !first.is_ascii_alphanumeric() && *first != b'-' => None,
        _ if wants.has_scalars() => {
            let (scalar, rest) = short_scalar(bytes)?;
            to.scalar(place, Some(scalar));
            Some(rest)
        }
        _ => {
            let (value, rest) = bytes.split_at_checked(find::<Structure>(bytes)?)?;
            to.skipped(value, false);
            Some(rest)
        }
    }
}
