//! Reads multipart responses: the increments of a GraphQL server, or Google's batches, in which each part is a response
//! of its own. After its headers, a part may have a document, which begins a line.

use super::Scanner;
use super::report::Report;
use crate::json::Reader;
use memchr::memchr;

/// The beginning of a response in a part.
const RESPONSE: &[u8] = b"HTTP/";

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Multipart {
    /// Whether the next byte continues a line.
    is_in_line: bool,
    is_in_document: bool,
    /// How much of the line has matched [`RESPONSE`]. `None` if it differs.
    matched: Option<usize>,
}

impl Multipart {
    pub(super) fn feed(&mut self, mut bytes: &[u8], scanner: &mut Scanner, to: &mut Report) {
        while let Some(first) = bytes.first() {
            if !self.is_in_line {
                self.is_in_document |= matches!(first, b'{' | b'[');
                self.matched = Some(0);
            }
            let end = memchr(b'\n', bytes).map_or(bytes.len(), |at| at.saturating_add(1));
            let (line, rest) = bytes.split_at(end);
            if self.is_in_document {
                scanner.feed(line, to);
                self.is_in_document = scanner.is_open();
            } else {
                // A boundary, a header, or text.
                self.compare(line);
                to.is_batch |= self.matched == Some(RESPONSE.len());
                to.unread(line);
            }
            self.is_in_line = !line.ends_with(b"\n");
            bytes = rest;
        }
    }

    fn compare(&mut self, line: &[u8]) {
        let Some(matched) = self.matched else { return };
        let rest = RESPONSE.get(matched..).unwrap_or_default();
        let length = rest.len().min(line.len());
        let is_same = rest.get(..length) == line.get(..length);
        self.matched = is_same.then_some(matched.saturating_add(length));
    }
}
