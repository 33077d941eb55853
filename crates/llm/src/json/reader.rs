//! What the scanner and whoever reads with it say to each other: places in a document, what is wanted of the value
//! at each, and what was found there.

use super::Counted;

/// A place in a document. An element of an array is where its array is, unless the reader says otherwise. The default one is the document
/// itself.
pub(crate) trait JsonPlace: Copy + Default + Eq {
    /// What to do with the value here.
    fn wants(self) -> Wants;

    /// Whether it is the document itself.
    fn is_document(self) -> bool {
        self == Self::default()
    }

    /// Whether of a text here nothing matters but how many characters it has.
    fn only_counts(self) -> bool;
}

/// What the scanner hands over of the value at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Nothing: it is walked past.
    Nothing,
    /// Its members, if it is an object (or an array of objects).
    Object,
    /// The string, if it is one.
    Text,
    /// The string, or how many characters the container has that stands in its place.
    TextOrLength,
    /// All strings in it, whatever it is. Where it is deeper than anybody looks, all its characters.
    Strings,
    /// The number, word or literal.
    Scalar,
    /// The string, the members, the number or the literal.
    Anything,
    /// The string, the number or the literal; of a container how much text is in it.
    Count,
}

/// The longest string, in bytes, that can be an id or another label. Longer ones are text to somebody.
pub(crate) const LABEL: usize = 256;

/// Who is told what a document holds.
pub(crate) trait Reader {
    /// The places it knows.
    type Place: JsonPlace;

    /// Where the key of an object at `parent` leads. A key that is longer than all names may come as an empty one.
    fn child(&mut self, parent: Self::Place, key: &[u8]) -> Self::Place;
    /// Where an element of an array at `array` is.
    fn element(&mut self, array: Self::Place, _index: u32) -> Self::Place {
        array
    }
    /// A document begins that is an object.
    fn open_document(&mut self) {}
    /// The open document is over, or will never be.
    fn close_document(&mut self) {}
    /// An object has been read to its end.
    fn close(&mut self, _place: Self::Place) {}
    /// A string that was asked for begins.
    fn open_text(&mut self, _place: Self::Place) {}
    /// It has ended.
    fn close_text(&mut self, _place: Self::Place) {}
    /// How much text there was in a container, or in a part of it, into which nobody looked.
    fn counted(&mut self, _place: Self::Place, _found: Counted) {}
    /// The key that comes next is longer than all names: so many bytes.
    fn long_key(&mut self, _parent: Self::Place, _length: u64) {}
    /// The number or literal that comes next is a long one: so many bytes.
    fn long_scalar(&mut self, _place: Self::Place, _length: u64) {}
    /// A piece of it, decoded.
    fn text(&mut self, place: Self::Place, piece: &[u8]);
    /// So many characters of it, where only that matters.
    fn characters(&mut self, place: Self::Place, characters: u64);
    /// A number or literal; `None` if it was a long one.
    fn scalar(&mut self, place: Self::Place, token: Option<&[u8]>);
    /// A short string where a scalar was asked for; `None` if it was a long one.
    fn word(&mut self, place: Self::Place, word: Option<&[u8]>);
    /// A container where a scalar was asked for.
    fn misplaced(&mut self, _place: Self::Place) {}
    /// A piece of a string that nobody asked for, as it is written, after so many bytes of it. Strings that are
    /// complete and no longer than [`LABEL`] may be left out.
    fn passed(&mut self, _place: Self::Place, _before: usize, _piece: &[u8]) {}
    /// Bytes that stand outside of all documents, or in one after something that is no JSON.
    fn unread(&mut self, _bytes: &[u8]) {}
    /// What should be JSON is none.
    fn malformed(&mut self);
}
