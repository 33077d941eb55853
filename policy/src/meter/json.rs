//! A scanner for JSON that arrives in pieces: it walks past everything that no dialect names, builds no values,
//! and keeps a few hundred bytes whatever the document. In: bytes, in any pieces. Out: calls of [`Report`] for the
//! places that [`Node`] names. Documents may follow each other (NDJSON) or stand in an array (Gemini's stream).
//!
//! It does not validate: what it walks past may be no JSON at all.

use super::dialect::{Node, Wants};
use super::report::{Cause, Report};
use memchr::memchr2;

/// How many containers that matter may be open at once. The deepest place that a dialect names is 9 deep.
const DEEPEST: usize = 24;
/// The longest key, number or word that a dialect could mean; what is longer is none of them.
const TOKEN: usize = 48;

#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    state: State,
    /// The containers that matter, outermost first.
    open: [Frame; DEEPEST],
    depth: usize,
    /// Containers open inside a value that is walked past. Only this number grows with the depth of the input.
    skipped: u64,
    /// What the value that comes next is.
    node: Node,
    escape: Escape,
    token: Token,
}

#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    node: Node,
    array: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between two documents.
    #[default]
    Document,
    /// Before a value, or the end of an empty array.
    Value,
    /// Before a key, or the end of the object.
    Key,
    /// Between a key and its value.
    Colon,
    /// After a value, or in a number or literal that nobody asked for.
    Comma,
    /// In a number or literal that somebody asked for.
    Scalar,
    String(Use),
    /// In a container that nobody asked for.
    Skip,
    /// What came is no JSON. Only a reset helps.
    Broken,
}

/// What a string is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Key,
    Text,
    Word,
    Nothing,
    /// Nothing, inside a container that nobody asked for.
    Skip,
}

/// Where in an escape sequence a string stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    Hex {
        left: u8,
        value: u32,
    },
}

/// A key, number or word that may come in pieces.
#[derive(Clone, Debug)]
struct Token {
    bytes: [u8; TOKEN],
    length: usize,
}

impl Default for Token {
    fn default() -> Self {
        Self { bytes: [0; TOKEN], length: 0 }
    }
}

impl Token {
    fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds a piece; one that does not fit makes the whole token too long to be anything.
    fn push(&mut self, piece: &[u8]) {
        let end = self.length.saturating_add(piece.len());
        match self.bytes.get_mut(self.length..end) {
            Some(room) => {
                room.copy_from_slice(piece);
                self.length = end;
            }
            None => self.length = TOKEN + 1,
        }
    }

    /// `None` if it was too long.
    fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

impl Scanner {
    /// The next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], to: &mut Report) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Value => self.value(bytes, to),
                State::Key => self.key(bytes, to),
                State::Colon => self.colon(bytes, to),
                State::Comma => self.comma(bytes, to),
                State::String(purpose) => self.string(bytes, purpose, to),
                State::Skip => self.skip(bytes),
                State::Scalar => self.scalar(bytes, to),
                State::Document => self.document(bytes, to),
                State::Broken => &[],
            };
        }
    }

    /// Whether a document has begun that has not ended.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Document | State::Broken)
    }

    /// Nothing follows that belongs to what is open: the next byte begins a document.
    pub(super) fn end(&mut self, to: &mut Report) {
        if self.is_open() {
            to.broken(Cause::Malformed);
        }
        to.close_document();
        self.state = State::Document;
        self.depth = 0;
        self.skipped = 0;
        self.node = Node::Root;
        self.escape = Escape::None;
    }

    fn document<'a>(&mut self, bytes: &'a [u8], to: &mut Report) -> &'a [u8] {
        let bytes = after_space(bytes);
        if bytes.is_empty() {
            return bytes;
        }
        self.node = Node::Root;
        self.value(bytes, to)
    }

    fn value<'a>(&mut self, bytes: &'a [u8], to: &mut Report) -> &'a [u8] {
        let bytes = after_space(bytes);
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        let wants = self.node.wants();
        match first {
            b'"' => return self.begin_string(rest, wants, to),
            b'{' | b'[' => self.begin_container(*first == b'[', wants, to),
            b']' if self.top().array => self.end_container(true, to),
            b'}' | b']' | b',' | b':' => self.broken(to),
            _ if wants == Wants::Scalar => {
                self.token.clear();
                self.state = State::Scalar;
                return bytes;
            }
            _ => self.after_value(),
        }
        rest
    }

    fn begin_string<'a>(&mut self, rest: &'a [u8], wants: Wants, to: &mut Report) -> &'a [u8] {
        let purpose = match wants {
            Wants::Text | Wants::TextOrObject => Use::Text,
            Wants::Scalar => Use::Word,
            Wants::Object | Wants::Nothing => Use::Nothing,
        };
        self.token.clear();
        self.state = State::String(purpose);
        self.string(rest, purpose, to)
    }

    fn begin_container(&mut self, array: bool, wants: Wants, to: &mut Report) {
        if wants == Wants::Scalar {
            to.misplaced(self.node);
        }
        let matters = matches!(wants, Wants::Object | Wants::TextOrObject);
        let node = self.node;
        match self.open.get_mut(self.depth) {
            Some(frame) if matters => {
                *frame = Frame { node, array };
                self.depth = self.depth.saturating_add(1);
                if !array && node == Node::Root {
                    to.open_document();
                }
                self.state = if array { State::Value } else { State::Key };
            }
            _ => {
                self.skipped = 1;
                self.state = State::Skip;
            }
        }
    }

    fn end_container(&mut self, array: bool, to: &mut Report) {
        let frame = self.top();
        if self.depth == 0 || frame.array != array {
            return self.broken(to);
        }
        self.depth = self.depth.saturating_sub(1);
        if !array {
            to.close(frame.node);
        }
        self.after_value();
    }

    fn key<'a>(&mut self, bytes: &'a [u8], to: &mut Report) -> &'a [u8] {
        let bytes = after_space(bytes);
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        match first {
            b'"' => {
                let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                if let (key, [b'"', rest @ ..]) = rest.split_at(end) {
                    self.node = to.child(self.top().node, key);
                    self.state = State::Colon;
                    return rest;
                }
                self.token.clear();
                self.state = State::String(Use::Key);
            }
            b'}' => self.end_container(false, to),
            _ => self.broken(to),
        }
        rest
    }

    fn colon<'a>(&mut self, bytes: &'a [u8], to: &mut Report) -> &'a [u8] {
        let bytes = after_space(bytes);
        match bytes.split_first() {
            Some((b':', rest)) => {
                self.state = State::Value;
                rest
            }
            Some((_, rest)) => {
                self.broken(to);
                rest
            }
            None => bytes,
        }
    }

    fn comma<'a>(&mut self, bytes: &'a [u8], to: &mut Report) -> &'a [u8] {
        let stop = |b: &u8| matches!(b, b',' | b'}' | b']' | b'"' | b'{' | b'[' | b':');
        let Some(at) = bytes.iter().position(stop) else { return &[] };
        let (_, bytes) = bytes.split_at(at);
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        match first {
            b',' => {
                let frame = self.top();
                self.node = frame.node;
                self.state = if frame.array { State::Value } else { State::Key };
            }
            b'}' => self.end_container(false, to),
            b']' => self.end_container(true, to),
            _ => self.broken(to),
        }
        rest
    }

    fn scalar<'a>(&mut self, bytes: &'a [u8], to: &mut Report) -> &'a [u8] {
        let over =
            |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'{' | b'[');
        let end = bytes.iter().position(over).unwrap_or(bytes.len());
        let (piece, rest) = bytes.split_at(end);
        self.token.push(piece);
        if !rest.is_empty() {
            to.scalar(self.node, self.token.bytes());
            self.after_value();
        }
        rest
    }

    fn skip<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(at) = bytes.iter().position(|b| matches!(b, b'"' | b'{' | b'}' | b'[' | b']')) {
            let (_, found) = bytes.split_at(at);
            let Some((first, rest)) = found.split_first() else { return found };
            bytes = rest;
            match first {
                b'"' => match string_end(rest) {
                    Some(rest) => bytes = rest,
                    None => {
                        self.state = State::String(Use::Skip);
                        return rest;
                    }
                },
                b'{' | b'[' => self.skipped = self.skipped.saturating_add(1),
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

    fn string<'a>(&mut self, mut bytes: &'a [u8], purpose: Use, to: &mut Report) -> &'a [u8] {
        loop {
            if self.escape != Escape::None {
                let Some((first, rest)) = bytes.split_first() else { return bytes };
                self.escape(*first, purpose, to);
                bytes = rest;
                continue;
            }
            let end = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
            let (piece, rest) = bytes.split_at(end);
            self.piece(piece, purpose, to);
            match rest.split_first() {
                None => return rest,
                Some((b'"', rest)) => {
                    self.end_string(purpose, to);
                    return rest;
                }
                Some((_, rest)) => {
                    self.escape = Escape::Begun;
                    bytes = rest;
                }
            }
        }
    }

    fn piece(&mut self, piece: &[u8], purpose: Use, to: &mut Report) {
        match purpose {
            Use::Text => to.text(self.node, piece),
            Use::Key | Use::Word => self.token.push(piece),
            Use::Nothing | Use::Skip => {}
        }
    }

    /// One byte of an escape sequence.
    fn escape(&mut self, byte: u8, purpose: Use, to: &mut Report) {
        let decoded = match self.escape {
            Escape::Hex { left, value } => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                let value = (value << 4) | digit;
                if left > 1 {
                    self.escape = Escape::Hex { left: left.saturating_sub(1), value };
                    return;
                }
                value
            }
            _ => match byte {
                b'u' => {
                    self.escape = Escape::Hex { left: 4, value: 0 };
                    return;
                }
                b'n' => 0x0a,
                b't' => 0x09,
                b'r' => 0x0d,
                b'b' => 0x08,
                b'f' => 0x0c,
                other => u32::from(other),
            },
        };
        self.escape = Escape::None;
        // The second half of a surrogate pair adds no character to the first.
        if !(0xdc00..0xe000).contains(&decoded) {
            let character = char::from_u32(decoded).unwrap_or(char::REPLACEMENT_CHARACTER);
            self.piece(character.encode_utf8(&mut [0; 4]).as_bytes(), purpose, to);
        }
    }

    fn end_string(&mut self, purpose: Use, to: &mut Report) {
        match purpose {
            Use::Key => {
                let parent = self.top().node;
                self.node = self.token.bytes().map_or(Node::Other, |key| to.child(parent, key));
                self.state = State::Colon;
            }
            Use::Word => {
                to.word(self.node, self.token.bytes());
                self.after_value();
            }
            Use::Text | Use::Nothing => self.after_value(),
            Use::Skip => self.state = State::Skip,
        }
    }

    /// The container that the next key or element belongs to.
    fn top(&self) -> Frame {
        self.depth.checked_sub(1).and_then(|at| self.open.get(at)).copied().unwrap_or_default()
    }

    fn after_value(&mut self) {
        self.state = if self.depth == 0 { State::Document } else { State::Comma };
    }

    fn broken(&mut self, to: &mut Report) {
        to.broken(Cause::Malformed);
        self.state = State::Broken;
    }
}

fn after_space(bytes: &[u8]) -> &[u8] {
    let space = |b: &u8| !matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let at = bytes.iter().position(space).unwrap_or(bytes.len());
    bytes.get(at..).unwrap_or_default()
}

/// What follows the string whose opening quote has been read; `None` if its end is not in `bytes`.
fn string_end(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr2(b'"', b'\\', bytes)?;
        let found = bytes.get(at..)?;
        match found {
            [b'"', rest @ ..] => return Some(rest),
            [_, _, rest @ ..] => bytes = rest,
            _ => return None,
        }
    }
}
