//! Reads tensors, the prompts of Triton and KServe: `{"name": "max_tokens", "data": [[100]]}`. Prompts,
//! token ids and settings are tensors, and only the names tell them apart. Some settings are JSON in a string.

use super::super::maximum::is_maximum;
use super::super::place::Place;
use super::Gather;
use crate::json::Scanner;
use crate::response::count;

/// The longest settings in a string that are read, in bytes.
const MAX_SETTINGS: usize = 1024;

/// The maximum number of such strings that are read. A client could send millions of short ones to slow a worker down.
const MAX_READ: u16 = 256;

/// The open object in a list of prompts, which may be a tensor. Its name may follow its values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenTensor {
    has_name: bool,
    has_values: bool,
    /// Whether it has a member that tensors do not have. A server may read that member as a prompt.
    has_others: bool,
    is_maximum: bool,
    /// The largest of its numbers, and their sum. A batch has a number for each prompt.
    largest: u64,
    sum: u64,
    /// The number of strings. A batch has a string for each prompt.
    strings: u64,
}

/// The open string, if it may be an object of settings.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingsText {
    text: Vec<u8>,
    /// The number of strings that were read.
    read: u16,
    /// Whether this string is inside of another one. Such strings are not read.
    is_nested: bool,
}

impl SettingsText {
    /// Adds a piece of the string.
    pub(super) fn add(&mut self, piece: &[u8], is_first: bool) {
        if is_first {
            self.text.clear();
        }
        let begins = is_first && piece.trim_ascii_start().first() == Some(&b'{') && !self.is_nested;
        if begins || !self.text.is_empty() {
            let room = MAX_SETTINGS.saturating_sub(self.text.len()).min(piece.len());
            self.text.extend_from_slice(piece.get(..room).unwrap_or_default());
        }
    }
}

impl OpenTensor {
    /// Adds a member of the object.
    pub(super) fn add_member(&mut self, key: &[u8]) {
        self.has_others |= !matches!(key, b"name" | b"shape" | b"datatype" | b"parameters" | b"data");
    }
}

impl Gather {
    /// Ends a string in a tensor, or its name.
    pub(super) fn tensor_text(&mut self, place: Place) {
        self.seen.content = true;
        self.tally.add_text(self.open.characters);
        if place == Place::TensorName {
            self.tensor.has_name = true;
            self.tensor.is_maximum = is_maximum(self.open.word());
        } else {
            self.tensor.has_values = true;
            self.tensor.strings = self.tensor.strings.saturating_add(1);
            self.settings_text();
        }
    }

    /// Reads a number in a tensor. It may be a token id.
    pub(super) fn tensor_number(&mut self, token: &[u8]) {
        let value = count(token).unwrap_or_default();
        self.tensor.has_values = true;
        self.tensor.largest = self.tensor.largest.max(value);
        self.tensor.sum = self.tensor.sum.saturating_add(value);
        self.add_tokens(1);
    }

    /// Ends an object that may be a tensor. Returns whether it is one.
    pub(super) fn end_tensor(&mut self) -> bool {
        let tensor = std::mem::take(&mut self.tensor);
        if tensor.is_maximum {
            self.maxima.add_elements(tensor.largest, tensor.sum);
        }
        self.prompts = self.prompts.max(tensor.strings);
        tensor.has_name && tensor.has_values && !tensor.has_others
    }

    /// Ends a string that may be an object of settings.
    pub(super) fn settings_text(&mut self) {
        let text = std::mem::take(&mut self.settings.text);
        if text.is_empty() || self.settings.read >= MAX_READ {
            return;
        }
        self.settings.read = self.settings.read.saturating_add(1);
        let mut settings = Gather::default();
        settings.settings.is_nested = true;
        Scanner::default().feed(&text, &mut settings);
        // A batch of prompts may have settings for each of them.
        self.maxima.add_element(Some(settings.maxima.possible()));
    }
}
