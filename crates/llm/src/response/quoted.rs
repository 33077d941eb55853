//! Reads documents inside of strings: `"usage": "{\"prompt_tokens\": 5}"`, or a body that was encoded twice.

use super::Scanner;
use super::document::Document;
use super::found::OpenMember;
use super::place::Node;
use super::report::Report;
use crate::json::{LABEL, Reader, characters};

/// The longest string with counts that is read, in bytes.
const MAX_COUNTS: usize = 1024;

/// The content of an open string.
#[derive(Clone, Debug, Default)]
pub(super) enum QuotedText {
    /// Only white space has arrived.
    #[default]
    Unknown,
    Text,
    /// A document, and the state of the document around the string.
    Document(Box<Scanner>, Document, OpenMember),
    /// The beginning of a string in the place of an object of counts.
    Counts(Vec<u8>),
}

/// What is read inside of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotedKind {
    Document,
    Counts,
}

impl Report {
    /// Begins a string that may contain a document.
    pub(super) fn open_quoted(&mut self, node: Node) {
        if self.inside.is_none() {
            let counts = QuotedText::Counts(Vec::new());
            *self.quoted_mut() = if node.is_counts() { counts } else { QuotedText::Unknown };
        }
    }

    /// Reads a piece of the string. Strings inside of other strings are text.
    pub(super) fn quoted_piece(&mut self, mut piece: &[u8]) {
        if self.inside.is_some() {
            return self.quoted_text(piece);
        }
        let mut quoted = std::mem::take(self.quoted_mut());
        if let QuotedText::Unknown = quoted {
            piece = piece.trim_ascii_start();
            quoted = match piece.first() {
                None => return,
                Some(b'{') => {
                    let around = (std::mem::take(&mut self.document), std::mem::take(&mut self.member));
                    QuotedText::Document(Box::default(), around.0, around.1)
                }
                Some(_) => QuotedText::Text,
            };
        }
        match &mut quoted {
            QuotedText::Unknown | QuotedText::Text => self.quoted_text(piece),
            QuotedText::Document(scanner, ..) => {
                self.read_inside(QuotedKind::Document, |report| scanner.feed(piece, report));
            }
            QuotedText::Counts(counts) => {
                let free = MAX_COUNTS.saturating_sub(counts.len()).min(piece.len());
                let (kept, rest) = piece.split_at(free);
                counts.extend_from_slice(kept);
                self.quoted_text(rest);
            }
        }
        *self.quoted_mut() = quoted;
    }

    /// Ends the string.
    pub(super) fn close_quoted(&mut self, node: Node) {
        if self.inside.is_some() {
            return;
        }
        match std::mem::take(self.quoted_mut()) {
            QuotedText::Unknown | QuotedText::Text => {}
            QuotedText::Document(mut scanner, document, member) => {
                self.read_inside(QuotedKind::Document, |report| scanner.end(report));
                (self.document, self.member) = (document, member);
            }
            QuotedText::Counts(counts) if counts.trim_ascii_start().first() == Some(&b'{') => {
                let mut scanner = Scanner::default();
                scanner.expect(node);
                self.read_inside(QuotedKind::Counts, |report| {
                    scanner.feed(&counts, report);
                    scanner.end(report);
                });
            }
            QuotedText::Counts(text) => self.quoted_text(text.get(LABEL..).unwrap_or_default()),
        }
    }

    fn read_inside(&mut self, kind: QuotedKind, read: impl FnOnce(&mut Self)) {
        self.inside = Some(kind);
        read(self);
        self.inside = None;
    }

    fn quoted_text(&mut self, piece: &[u8]) {
        if self.inside.is_none() {
            self.compare_text(piece);
        }
        self.characters(Node::Root, characters(piece));
    }
}
