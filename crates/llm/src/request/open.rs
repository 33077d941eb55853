//! The string that is being read. Only the parts that matter are kept.

use super::image::ImageHead;
use super::media::ForeignBytes;
use super::place::Place;

#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) place: Option<Place>,
    pub(super) characters: u64,
    pub(super) bytes: u64,
    /// The bytes that base64 does not have.
    pub(super) foreign: ForeignBytes,
    beginning: [u8; BEGINNING],
    length: usize,
    /// A possible image.
    pub(super) image: ImageHead,
}

/// The number of bytes that are kept of a string.
const BEGINNING: usize = 96;

impl Default for Open {
    fn default() -> Self {
        Self {
            place: None,
            characters: 0,
            bytes: 0,
            foreign: ForeignBytes::default(),
            beginning: [0; BEGINNING],
            length: 0,
            image: ImageHead::default(),
        }
    }
}

impl Open {
    /// Begins another string.
    pub(super) fn begin(&mut self, place: Place) {
        (self.place, self.characters, self.bytes) = (Some(place), 0, 0);
        (self.foreign, self.length) = (ForeignBytes::default(), 0);
        if matches!(place, Place::Data(_) | Place::Media(_) | Place::Source(_)) {
            self.image = ImageHead::default();
        }
    }

    /// Appends the next chunk, decoded.
    pub(super) fn add(&mut self, piece: &[u8], characters: u64) {
        self.characters = self.characters.saturating_add(characters);
        self.bytes = self.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.push(piece);
    }

    fn push(&mut self, piece: &[u8]) {
        let room = self.beginning.get_mut(self.length..).unwrap_or_default();
        let some = piece.get(..room.len()).unwrap_or(piece);
        room.iter_mut().zip(some).for_each(|(to, from)| *to = *from);
        self.length = self.length.saturating_add(some.len());
    }

    pub(super) fn beginning(&self) -> &[u8] {
        self.beginning.get(..self.length).unwrap_or_default()
    }

    /// Returns the whole string, if it is short.
    pub(super) fn word(&self) -> &[u8] {
        if self.bytes <= 48 { self.beginning() } else { &[] }
    }
}
