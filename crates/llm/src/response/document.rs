//! The open document of a response: how much text it contains, and whether it is only an error.

use super::NAMES;
use super::place::StatusKind;
use crate::json::{LABEL, characters};

/// The open document.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Document {
    /// Whether it has reported usage.
    pub(super) reports: bool,
    pub(super) tells_output: bool,
    /// Whether a model may have written the usage that is being recorded.
    pub(super) is_doubtful: bool,
    /// Whether the whole document is usage.
    pub(super) is_usage: bool,
    /// Whether it carries no text.
    pub(super) mute: bool,
    /// Whether it repeats what other events delivered.
    pub(super) repeats: bool,
    /// Whether it reports that the call failed.
    pub(super) failed: bool,
    /// Whether it names the result to which its counts belong. A stream may have several results.
    pub(super) is_of_result: bool,
    pub(super) index: Option<u32>,
    /// Whether its parameters are those of the provider, because generated text came before them.
    pub(super) has_generation: bool,
    /// Whether it is a JSON-RPC notification, so that its `params` are the server's, not those of a request.
    pub(super) is_notification: bool,
    /// Whether it reports a call of its own, in addition to those of other documents.
    pub(super) is_call: bool,
    /// Whether a later document replaces that call.
    pub(super) is_partial: bool,
    /// Whether it has the type of a chunk of a message.
    pub(super) is_chunk: bool,
    /// Whether it is LangChain's serialisation of such a chunk, until the chunk ends.
    pub(super) is_serialized_chunk: bool,
    /// Whether a choice of an event has a `message`, and whether that is open. Some servers repeat the text of the
    /// `delta` in it (Writer).
    pub(super) has_message: bool,
    pub(super) in_message: bool,
    pub(super) text: u64,
    /// The same text as `text` under other names, or other text in its place.
    pub(super) text_again: u64,
    pub(super) text_parts: u64,
    /// A message for people. If the call failed, the message does not come from the model.
    pub(super) notice: u64,
    pub(super) reasoning: u64,
    pub(super) reasoning_content: u64,
    pub(super) reasoning_details: u64,
    /// Strings in places for amounts. Together they are text if they are too long for amounts.
    pub(super) amounts: u64,
    /// Strings in unlisted places. They may belong to a description of an error.
    pub(super) aside: u64,
    status: StatusText,
}

/// A string that may describe the outcome of the call.
#[derive(Clone, Copy, Debug, Default)]
struct StatusText {
    bytes: usize,
    characters: u64,
    /// Whether it contains a character that does not occur in codes.
    is_prose: bool,
    beginning: [u8; BEGINNING],
}

/// The longest word for success or failure.
const BEGINNING: usize = 12;
/// The longest code, in bytes.
const MAX_CODE: usize = 64;

impl Document {
    /// Returns the number of characters in the document. Some servers send the same text or reasoning under
    /// several names, so only the longest of each counts.
    fn characters(&self) -> u64 {
        if self.mute || self.is_only_error() {
            0
        } else {
            self.text().saturating_add(self.reasoning()).saturating_add(self.notice)
        }
    }

    fn text(&self) -> u64 {
        let amounts = if self.amounts > LABEL as u64 { self.amounts } else { 0 };
        let text = self.text.saturating_add(self.aside);
        text.max(self.text_again).max(self.text_parts).saturating_add(amounts)
    }

    fn reasoning(&self) -> u64 {
        self.reasoning.max(self.reasoning_content).max(self.reasoning_details)
    }

    /// Returns whether the document has more effects than its text. An outcome only affects the document itself.
    pub(super) fn has_effects(&self) -> bool {
        self.reports
            || self.tells_output
            || self.is_usage
            || self.is_call
            || self.is_chunk
            || self.is_serialized_chunk
            || self.has_message
    }

    /// Returns the document as it would be if all of its texts were empty.
    pub(super) fn without_text(self) -> Self {
        Self {
            text: 0,
            text_again: 0,
            text_parts: 0,
            notice: 0,
            reasoning: 0,
            reasoning_content: 0,
            reasoning_details: 0,
            amounts: 0,
            aside: 0,
            ..self
        }
    }

    pub(super) fn delivered(&self) -> u64 {
        if self.repeats { 0 } else { self.characters() }
    }

    pub(super) fn repeated(&self) -> u64 {
        if self.repeats { self.characters() } else { 0 }
    }

    /// Returns whether the document only reports a failure.
    pub(super) fn is_only_error(&self) -> bool {
        if !self.failed || self.reports || self.aside > NAMES {
            return false;
        }
        Self { aside: 0, ..*self }.text() == 0 && self.reasoning() == 0
    }

    /// Begins a string that may describe the outcome.
    pub(super) fn open_status(&mut self) {
        self.status = StatusText::default();
    }

    pub(super) fn status_piece(&mut self, piece: &[u8]) {
        let status = &mut self.status;
        let free = status.beginning.get_mut(status.bytes..).unwrap_or_default();
        free.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
        status.bytes = status.bytes.saturating_add(piece.len());
        status.characters = status.characters.saturating_add(characters(piece));
        let is_of_code = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        status.is_prose |= !piece.iter().all(is_of_code);
    }

    /// Ends that string. A string that cannot be a code or a word for the outcome counts as text.
    pub(super) fn close_status(&mut self, outcome: StatusKind) {
        let StatusText { bytes, characters, is_prose, beginning } = self.status;
        let word = beginning.get(..bytes);
        match outcome {
            StatusKind::Code if is_prose || bytes > MAX_CODE => {
                self.text = self.text.saturating_add(characters)
            }
            StatusKind::Code => self.failed |= bytes > 0 && !word.is_some_and(is_success),
            StatusKind::Word if bytes > LABEL => self.text = self.text.saturating_add(characters),
            StatusKind::Word => self.failed |= word.is_some_and(is_failure),
        }
    }

    /// Reads a number or literal that may describe the outcome.
    pub(super) fn status_number(&mut self, outcome: StatusKind, token: Option<&[u8]>) {
        let Some(token) = token.filter(|token| token.first().is_some_and(|first| *first != b'n')) else {
            return;
        };
        self.failed |= match outcome {
            StatusKind::Code => !is_success(token),
            StatusKind::Word => is_failure(token),
        };
    }
}

/// Returns whether a code means success.
fn is_success(code: &[u8]) -> bool {
    let zero = code.iter().all(|digit| *digit == b'0');
    let two_hundred = code.first() == Some(&b'2') && code.iter().all(u8::is_ascii_digit);
    let word: &[&[u8]] = &[b"ok", b"success", b"succeed", b"succeeded", b"true", b"completed"];
    zero || two_hundred || word.iter().any(|word| code.eq_ignore_ascii_case(word))
}

fn is_failure(status: &[u8]) -> bool {
    let number = status.len() == 3 && matches!(status.first(), Some(b'4' | b'5'));
    let word: &[&[u8]] = &[b"error", b"failed", b"failure", b"fail"];
    number && status.iter().all(u8::is_ascii_digit)
        || word.iter().any(|word| status.eq_ignore_ascii_case(word))
}
