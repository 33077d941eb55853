//! Reads tensors, the prompts of Triton and KServe: `{"name": "max_tokens", "data": [[100]]}`. Prompts,
//! token ids and settings are tensors, and only the names tell them apart.

use super::super::maximum::{is_completions, is_maximum};
use super::super::place::Place;
use super::Gather;
use crate::response::count;

/// The open object in a list of prompts, which may be a tensor. Its name may follow its values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenTensor {
    has_name: bool,
    has_values: bool,
    /// Whether it has a member that tensors do not have. A server may read that member as a prompt.
    has_others: bool,
    is_maximum: bool,
    is_completions: bool,
    /// The largest of its numbers, and their sum. A batch has a number for each prompt.
    largest: u64,
    sum: u64,
    /// The number of strings. A batch has a string for each prompt.
    strings: u64,
}

impl OpenTensor {
    /// Adds a member of the object.
    pub(super) fn add_member(&mut self, key: &[u8]) {
        self.has_others |= !matches!(key, b"name" | b"shape" | b"datatype" | b"parameters" | b"data");
    }

    fn add_value(&mut self, value: u64) {
        self.has_values = true;
        self.largest = self.largest.max(value);
        self.sum = self.sum.saturating_add(value);
    }
}

impl Gather {
    /// Ends a string in a tensor, or its name.
    pub(super) fn tensor_text(&mut self, place: Place) {
        self.seen.content = true;
        self.tally.add_text(self.open.characters);
        let word = self.open.word();
        if place == Place::TensorName {
            self.tensor.has_name = true;
            // If there are several names, a server may use any of them.
            self.tensor.is_maximum |= is_maximum(word);
            self.tensor.is_completions |= is_completions(word);
            return;
        }
        self.tensor.add_value(count(word.trim_ascii()).unwrap_or_default());
        self.tensor.strings = self.tensor.strings.saturating_add(1);
        self.end_settings();
    }

    /// Reads a number in a tensor. It may be a token id.
    pub(super) fn tensor_number(&mut self, token: &[u8]) {
        self.tensor.add_value(count(token).unwrap_or_default());
        self.add_tokens(1);
    }

    /// Ends an object that may be a tensor. Returns whether it is one.
    pub(super) fn end_tensor(&mut self) -> bool {
        let tensor = std::mem::take(&mut self.tensor);
        if tensor.is_maximum {
            self.maxima.add_elements(tensor.largest, tensor.sum);
        }
        if tensor.is_completions {
            self.set_completions(tensor.largest);
        }
        self.prompts = self.prompts.max(tensor.strings);
        let is_tensor = tensor.has_name && tensor.has_values && !tensor.has_others;
        if is_tensor {
            // A server that reads tensors ignores a maximum beside them.
            self.maxima.set_unsure();
        }
        is_tensor
    }
}
