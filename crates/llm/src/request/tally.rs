//! Measures the text of a request: characters that are certainly text, and others that are free in small
//! amounts.

/// The number of characters of tags, names and known keys that are always free.
pub(super) const FREE_STRUCTURE: u64 = 4096;
/// The maximum number of free characters in metadata. OpenAI allows 16 pairs of 64 and 512.
pub(super) const FREE_LABELS: u64 = 16 << 10;

/// Counts of characters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CharacterTally {
    pub(super) text: u64,
    /// Characters of tags, names and known keys.
    structure: u64,
    /// Characters of metadata.
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

    /// Adds a tag or name. If it is longer than `most`, it is text.
    pub(super) fn add_name(&mut self, characters: u64, most: u64) {
        if characters > most { self.add_text(characters) } else { self.add_key(characters) }
    }

    /// Adds a key or string of metadata. If it is longer than `most`, it is text.
    pub(super) fn add_label(&mut self, characters: u64, most: u64) {
        if characters > most {
            self.add_text(characters);
        } else {
            self.labels = self.labels.saturating_add(characters);
        }
    }

    /// Returns the number of characters that count. Tags, names and known keys are free up to the amount of
    /// text plus [`FREE_STRUCTURE`]. Beyond that, they count as text. So at least half of all characters
    /// count, apart from those that are always free, and more text never lowers the result.
    pub(super) fn characters(&self) -> u64 {
        let text = self.text.saturating_add(self.labels.saturating_sub(FREE_LABELS));
        text.max(self.structure.saturating_sub(FREE_STRUCTURE))
    }
}
