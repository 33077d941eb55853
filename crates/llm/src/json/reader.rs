//! The interface between the scanner and its readers: places in a document, what is wanted of the value at a
//! place, and what was found there.

use super::Counted;

/// A place in a document. An array's elements are at the place of the array, unless the reader says otherwise.
/// The default is the document itself.
pub(crate) trait JsonPlace: Copy + Default + Eq {
    /// What to do with the value here.
    fn wants(self) -> Wants;

    /// Whether it is the whole document.
    fn is_document(self) -> bool {
        self == Self::default()
    }

    /// Whether only the length of a text at this place matters.
    fn only_counts(self) -> bool;
}

/// What the scanner reports about the value at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Nothing: it is skipped.
    Nothing,
    /// Its members, if it is an object (or an array of objects).
    Object,
    /// A string.
    Text,
    /// A string, or the number of characters in a container that replaces it.
    TextOrLength,
    /// All strings in the value. Below the maximum depth, only their characters.
    Strings,
    /// A number, word or literal.
    Scalar,
    /// A number, word or literal, or the members of an object in place of one.
    ScalarOrObject,
    /// A string, an object's members, a number or a literal.
    Anything,
    /// A string, a number or a literal. For a container, only the amount of its text.
    Count,
}

/// The longest string, in bytes, that can be an id or another label. Longer ones may be text.
pub(crate) const LABEL: usize = 256;

/// Receives what a document contains.
pub(crate) trait Reader {
    /// The places that it knows.
    type Place: JsonPlace;

    /// The place of a key in an object at `parent`. A key that is longer than all names may be reported as
    /// empty.
    fn child(&mut self, parent: Self::Place, key: &[u8]) -> Self::Place;
    /// The place of an element of an array at `array`.
    fn element(&mut self, array: Self::Place, _index: u32) -> Self::Place {
        array
    }
    /// A document begins, and it is an object.
    fn open_document(&mut self) {}
    /// The open document has ended, or will never end.
    fn close_document(&mut self) {}
    /// An object has ended.
    fn close(&mut self, _place: Self::Place) {}
    /// A requested string begins.
    fn open_text(&mut self, _place: Self::Place) {}
    /// A requested string ends.
    fn close_text(&mut self, _place: Self::Place) {}
    /// How much text an unexamined container, or a part of it, contains.
    fn counted(&mut self, _place: Self::Place, _found: Counted) {}
    /// The next key is longer than all names and has this many bytes.
    fn long_key(&mut self, _parent: Self::Place, _length: u64) {}
    /// The next number or literal is long and has this many bytes.
    fn long_scalar(&mut self, _place: Self::Place, _length: u64) {}
    /// A piece of a requested string, decoded.
    fn text(&mut self, place: Self::Place, piece: &[u8]);
    /// A number of characters of a string, if only that matters.
    fn characters(&mut self, place: Self::Place, characters: u64);
    /// A number or literal; `None` if it is too long.
    fn scalar(&mut self, place: Self::Place, token: Option<&[u8]>);
    /// A short string instead of a scalar; `None` if it is too long.
    fn word(&mut self, place: Self::Place, word: Option<&[u8]>);
    /// A container instead of a scalar.
    fn misplaced(&mut self, _place: Self::Place) {}
    /// A piece of a skipped string, not decoded, and how many bytes of it came before. Complete strings of at
    /// most [`LABEL`] bytes may be omitted.
    fn passed(&mut self, _place: Self::Place, _before: usize, _piece: &[u8]) {}
    /// Bytes outside of all documents, or in a document after invalid JSON.
    fn unread(&mut self, _bytes: &[u8]) {}
    /// The input is not valid JSON.
    fn malformed(&mut self);
}
