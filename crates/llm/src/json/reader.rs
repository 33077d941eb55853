//! The interface between the scanner and its readers: places in a document, what a reader requests at a
//! place, and what the scanner found there.

use super::Counted;

/// A place in a document. An array's elements are at the place of the array, unless the reader maps them to
/// another place. The default is the document itself.
pub(crate) trait JsonPlace: Copy + Default + Eq {
    /// Returns what the reader requests at this place.
    fn wants(self) -> Wants;

    /// Returns whether this is the place of the whole document.
    fn is_document(self) -> bool {
        self == Self::default()
    }

    /// Returns whether only the length of a text at this place matters.
    fn only_counts(self) -> bool;
}

/// What a reader requests at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Nothing. The value is skipped.
    Nothing,
    /// The members of an object or of an array of objects.
    Object,
    /// A string.
    Text,
    /// A string, or the number of characters in a container that replaces it.
    TextOrLength,
    /// All strings in the value. Beyond the maximum depth, only the number of their characters.
    Strings,
    /// A number, word or literal.
    Scalar,
    /// A number, word or literal, or the members of an object in its place.
    ScalarOrObject,
    /// A number, word or literal, or the elements of an array in its place.
    ScalarOrArray,
    /// A number, word or literal, or the members of an object or the elements of an array in its place.
    ScalarOrContainer,
    /// A string, an object's members, a number or a literal.
    Anything,
    /// A string, a number or a literal. For a container, only the amount of its text.
    Count,
}

impl Wants {
    /// Returns whether the reader requests a number or literal at this place.
    pub(super) fn has_scalars(self) -> bool {
        matches!(
            self,
            Wants::Scalar
                | Wants::ScalarOrObject
                | Wants::ScalarOrArray
                | Wants::ScalarOrContainer
                | Wants::Anything
                | Wants::Count
        )
    }
}

/// The longest string, in bytes, that can be an id or another label. Longer ones may be text.
pub(crate) const LABEL: usize = 256;

/// Receives what a document contains.
pub(crate) trait Reader {
    /// The places that the reader knows.
    type Place: JsonPlace;

    /// Returns the place of a key in an object at `parent`. A key that is longer than all known names may be
    /// passed as empty.
    fn child(&mut self, parent: Self::Place, key: &[u8]) -> Self::Place;
    /// Returns the place of an element of the array at `array`.
    fn element(&mut self, array: Self::Place, _index: u32) -> Self::Place {
        array
    }
    /// Called at the beginning of a document that is an object.
    fn open_document(&mut self) {}
    /// Called when the open document has ended or was abandoned.
    fn close_document(&mut self) {}
    /// Called at the beginning of an object that is read.
    fn open(&mut self, _place: Self::Place) {}
    /// Called at the end of an object.
    fn close(&mut self, _place: Self::Place) {}
    /// Called at the beginning of a requested string.
    fn open_text(&mut self, _place: Self::Place) {}
    /// Called at the end of a requested string.
    fn close_text(&mut self, _place: Self::Place) {}
    /// Called with the amount of text in a container that is only counted, or in a part of it.
    fn counted(&mut self, _place: Self::Place, _found: Counted) {}
    /// Called before a key of `length` bytes that is longer than all known names.
    fn long_key(&mut self, _parent: Self::Place, _length: u64) {}
    /// Called before a long number or literal of `length` bytes.
    fn long_scalar(&mut self, _place: Self::Place, _length: u64) {}
    /// Called with a decoded piece of a requested string.
    fn text(&mut self, place: Self::Place, piece: &[u8]);
    /// Called with a number of characters of a string if only their number matters.
    fn characters(&mut self, place: Self::Place, characters: u64);
    /// Like [`Reader::characters`], with the text. Its escape sequences are complete.
    fn counted_text(&mut self, place: Self::Place, _text: &[u8], characters: u64) {
        self.characters(place, characters);
    }
    /// Called with a number or literal, or with `None` if it is too long.
    fn scalar(&mut self, place: Self::Place, token: Option<&[u8]>);
    /// Called with a short string in place of a scalar, or with `None` if it is too long.
    fn word(&mut self, place: Self::Place, word: Option<&[u8]>);
    /// Called for a container in place of a scalar.
    fn misplaced(&mut self, _place: Self::Place) {}
    /// Called with an undecoded piece of a skipped string and the number of bytes before it in the string.
    /// Complete strings of at most [`LABEL`] bytes may be omitted.
    fn passed(&mut self, _place: Self::Place, _before: usize, _piece: &[u8]) {}
    /// Called with a complete value that was skipped, if it was short and its length was found at once: the content
    /// of a string, or a number or literal.
    fn skipped(&mut self, _value: &[u8], _is_string: bool) {}
    /// Called with bytes outside of all documents, or after invalid JSON in a document.
    fn unread(&mut self, _bytes: &[u8]) {}
    /// Called when the input is not valid JSON.
    fn malformed(&mut self);
}
