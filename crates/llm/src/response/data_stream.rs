//! Reads the data stream protocol of Vercel's AI SDK 4: each line has a code for its kind, a colon, and a JSON
//! value. Text is a JSON string, so what a model writes never begins a line.

use super::Scanner;
use super::place::Node;
use super::report::Report;
use crate::json::Reader;
use memchr::memchr2;

/// The header that marks such a stream. Its content type is that of any text, including text that a model wrote.
pub(super) const HEADER: &str = "x-vercel-ai-data-stream";

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DataStream {
    state: DataLine,
}

#[derive(Clone, Copy, Debug, Default)]
enum DataLine {
    /// At the beginning of a line.
    #[default]
    Begin,
    /// After the code.
    Code(u8),
    Value,
    /// In a line without a code.
    Stray,
}

impl DataStream {
    pub(super) fn feed(&mut self, mut bytes: &[u8], scanner: &mut Scanner, to: &mut Report) {
        while let Some((first, rest)) = bytes.split_first() {
            bytes = match (self.state, first) {
                (_, b'\n' | b'\r') => {
                    self.state = DataLine::Begin;
                    scanner.end(to);
                    // A value that is no object is not a document of its own.
                    to.close_document();
                    rest
                }
                (DataLine::Begin, code) => {
                    self.state = DataLine::Code(*code);
                    rest
                }
                (DataLine::Code(code), b':') => {
                    self.state = DataLine::Value;
                    scanner.expect(place(code));
                    rest
                }
                (DataLine::Code(code), _) => {
                    self.state = DataLine::Stray;
                    to.unread(&[code]);
                    bytes
                }
                (DataLine::Value | DataLine::Stray, _) => {
                    let end = memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
                    let (piece, rest) = bytes.split_at(end);
                    match self.state {
                        DataLine::Stray => to.unread(piece),
                        _ => scanner.feed(piece, to),
                    }
                    rest
                }
            };
        }
    }
}

/// Returns the place of a line's value.
fn place(code: u8) -> Node {
    match code {
        // Text and reasoning.
        b'0' | b'g' => Node::Text,
        b'3' => Node::Error,
        // The end of the message has the usage of all steps.
        b'd' => Node::Root,
        // The server's own data and annotations, the results of tools, sources, signatures and files, and the
        // beginnings and ends of steps.
        b'2' | b'8' | b'a' | b'b' | b'e' | b'f' | b'h'..=b'k' => Node::Other,
        // The calls of tools, and lines that are not known.
        _ => Node::Unknown,
    }
}
