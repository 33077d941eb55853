//! How much text a request has: what certainly is text, and what is not as long as there is little of it.

/// How many characters of tags, names and known keys are free, whatever else there is.
pub(super) const FREE_STRUCTURE: u64 = 4096;
/// How many characters metadata may have in all. OpenAI allows 16 pairs of 64 and 512.
pub(super) const FREE_LABELS: u64 = 16 << 10;

/// Characters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CharacterTally {
    /// Text.
    pub(super) text: u64,
    /// Tags, names and known keys.
    structure: u64,
    /// Metadata.
    labels: u64,
}

impl CharacterTally {
    pub(super) fn add_text(&mut self, characters: u64) {
        self.text = self.text.saturating_add(characters);
    }

    /// Adds a known key.
    pub(super) fn add_key(&mut self, characters: u64) {
        self.structure = self.structure.saturating_add(characters);
    }

    /// Adds a tag or name; what is longer than `most` is text.
    pub(super) fn add_name(&mut self, characters: u64, most: u64) {
        if characters > most { self.add_text(characters) } else { self.add_key(characters) }
    }

    /// Adds a key or string of metadata; what is longer than `most` is text.
    pub(super) fn add_label(&mut self, characters: u64, most: u64) {
        if characters > most {
            self.add_text(characters);
        } else {
            self.labels = self.labels.saturating_add(characters);
        }
    }

    /// What counts. Structure is free up to as much as there is text, and a little more: whatever it is called, more
    /// of it than of text is text. So at least half of all strings counts, beyond the free ones, and more text never
    /// makes it less.
    pub(super) fn characters(&self) -> u64 {
        let text = self.text.saturating_add(self.labels.saturating_sub(FREE_LABELS));
        text.max(self.structure.saturating_sub(FREE_STRUCTURE))
    }
}
