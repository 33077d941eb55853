//! Recognises streams in which each event repeats the whole text so far and adds to it. Without usage, only the
//! last text of such a stream counts.
//!
//! The text of each document is compared with that of the document before, by a hash of its beginning. The first
//! document that does not repeat the one before it ends the comparison, so nearly all streams are compared up to
//! their second document only.

use super::place::Node;

/// So many documents must have repeated and extended the text before them. Two short pieces of text may do so by
/// chance.
const LEAST: u32 = 2;

/// The longest text that is compared, in bytes. Longer text ends the comparison.
const MAX_TEXT: u64 = 16 << 10;

/// The parameters of the FNV-1a hash.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TextSoFar {
    /// Whether a document did not repeat the text before it.
    is_over: bool,
    before: Prefix,
    open: Prefix,
    /// Whether the open text begins with the one before it.
    repeats_before: bool,
    /// The number of documents that extended the text before them.
    extended: u32,
    /// Whether a document repeated the text without adding to it.
    has_ended: bool,
    /// The characters that were delivered again.
    repeated: u64,
}

/// The text of one document.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    /// The number of bytes that are compared, and their hash.
    length: u64,
    hash: u64,
    characters: u64,
}

impl Default for Prefix {
    fn default() -> Self {
        Self { length: 0, hash: OFFSET, characters: 0 }
    }
}

impl TextSoFar {
    /// Returns whether the comparison goes on.
    pub(super) fn is_open(&self) -> bool {
        !self.is_over
    }

    /// Returns whether text at this place is compared. Text that may be repeated under another name is not.
    pub(super) fn compares(&self, node: Node) -> bool {
        !self.is_over
            && !matches!(
                node,
                Node::Whole
                    | Node::Notice
                    | Node::Message
                    | Node::Complaint
                    | Node::Reasoning
                    | Node::ReasoningContent
                    | Node::ReasoningDetails
                    | Node::TextAgain
                    | Node::TextParts
                    | Node::Amount
                    | Node::MetadataText
                    | Node::Media
                    | Node::Embedding
            )
    }

    /// Adds text without escape sequences to the open document.
    pub(super) fn add(&mut self, text: &[u8]) {
        for byte in text {
            if self.is_over {
                return;
            }
            self.byte(*byte);
        }
    }

    /// Adds text with complete escape sequences. They are not compared, because a sequence that arrives in two
    /// pieces is decoded elsewhere.
    pub(super) fn add_escaped(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some((first, after)) = rest.split_first().filter(|_| !self.is_over) {
            rest = match (first, after) {
                (b'\\', [b'u', after @ ..]) => {
                    let digits = after.iter().take(4).take_while(|byte| byte.is_ascii_hexdigit()).count();
                    after.get(digits..).unwrap_or_default()
                }
                (b'\\', [b'n' | b't' | b'r' | b'b' | b'f', after @ ..]) => after,
                (b'\\', [byte, after @ ..]) | (byte, after) => {
                    self.byte(*byte);
                    after
                }
            };
        }
    }

    fn byte(&mut self, byte: u8) {
        // Only escape sequences can stand for most of these characters.
        if byte < b' ' || matches!(byte, b'"' | b'\\' | b'/') {
            return;
        }
        let open = &mut self.open;
        open.hash = (open.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        open.length = open.length.saturating_add(1);
        if open.length == self.before.length {
            self.repeats_before = open.hash == self.before.hash;
        } else if open.length > MAX_TEXT {
            self.end();
        }
    }

    /// Adds to the characters of the open document.
    pub(super) fn add_characters(&mut self, characters: u64) {
        self.open.characters = self.open.characters.saturating_add(characters);
    }

    /// Ends the open document. If its text does not count, it is not compared.
    #[inline]
    pub(super) fn end_document(&mut self, counts: bool) {
        if !self.is_over {
            self.compare_document(counts);
        }
    }

    #[cold]
    fn compare_document(&mut self, counts: bool) {
        let open = std::mem::take(&mut self.open);
        let repeats_before = std::mem::take(&mut self.repeats_before);
        if open.length == 0 || !counts {
            return;
        }
        let extends = open.length > self.before.length;
        if self.before.length > 0 {
            // Only the last document may repeat the text without adding to it. Otherwise, the pieces of a text in
            // which a model repeats itself could look like that.
            let may_follow = !self.has_ended && (extends || self.extended >= LEAST);
            if !repeats_before || !may_follow {
                return self.end();
            }
            self.has_ended = !extends;
            self.extended = self.extended.saturating_add(extends.into());
            self.repeated = self.repeated.saturating_add(self.before.characters);
        }
        self.before = open;
    }

    /// Ends the comparison. All text counts.
    fn end(&mut self) {
        *self = Self { is_over: true, ..Self::default() };
    }

    /// Returns the characters that documents have repeated, if each of them repeated the one before it.
    pub(super) fn repeated(&self) -> u64 {
        if self.extended < LEAST { 0 } else { self.repeated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(documents: &[&str]) -> u64 {
        let mut so_far = TextSoFar::default();
        for text in documents {
            so_far.add(text.as_bytes());
            so_far.add_characters(text.len() as u64);
            so_far.end_document(true);
        }
        so_far.repeated()
    }

    #[test]
    fn text_that_each_document_repeats_counts_once() {
        for (documents, expected) in [
            (&["The", "The weir", "The weir holds"][..], 11),
            (&["The", "The weir", "", "The weir holds", "The weir holds"], 25),
            // Two pieces of text may be alike by chance.
            (&["a", "ab"], 0),
            (&["The", " weir", " holds"], 0),
            (&["ab", "ab", "ab", "ab"], 0),
            // Tokens of a model that repeats one letter.
            (&["a", "aa", "aaa", "aaa", "aaa"], 0),
            (&["a", "aa", "aaa", "aaa", "aaaa"], 0),
            (&["The", "The weir", "The weir holds", "back"], 0),
            (&["The", "the weir", "the weir holds", "the weir holds back"], 0),
            (&[], 0),
        ] {
            assert_eq!(repeated(documents), expected, "{documents:?}");
        }
    }

    #[test]
    fn text_that_is_too_long_ends_the_comparison() {
        let long = "weir ".repeat(MAX_TEXT as usize / 5 + 1);
        assert_eq!(repeated(&["weir", "weir weir", "weir weir weir", &long]), 0);
        assert!(repeated(&["weir", "weir weir", "weir weir weir"]) > 0);
    }

    #[test]
    fn an_escape_sequence_may_arrive_in_pieces() {
        let (mut whole, mut pieces) = (TextSoFar::default(), TextSoFar::default());
        whole.add_escaped(br#"a\n\u6c34b\/c\"d\\n"#);
        for piece in [&b"a"[..], b"\n", b"b", b"/", b"c", b"\"", b"d", b"\\", b"n"] {
            pieces.add(piece);
        }
        assert_eq!((whole.open.length, whole.open.hash), (pieces.open.length, pieces.open.hash));
    }
}
