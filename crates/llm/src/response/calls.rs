//! Adds up the usage of the model calls that an agent reports in one response. A call has the id of its
//! message, or a document of its own.

use super::Usage;
use super::results::{Results, ResultsSoFar};
use super::tally::Tally;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The calls of a response.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentCalls {
    known: Results,
    /// The calls before the open document.
    before: ResultsSoFar,
    message: OpenMessage,
    /// The number of calls that had no id. It names the next one.
    unnamed: u64,
}

/// Returns whether an event with this name contains whole messages, or messages so far, instead of chunks:
/// `messages/partial`, `messages/complete`.
pub(super) fn has_whole_messages(event: &[u8]) -> bool {
    event.starts_with(b"messages/")
}

/// The open message.
#[derive(Clone, Debug, Default)]
struct OpenMessage {
    id: Option<u64>,
    is_of_user: bool,
    tally: Tally,
}

impl AgentCalls {
    /// Sets the id of the open message. Agents may repeat a message, with the same id.
    pub(super) fn message_id(&mut self, id: &[u8]) {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        self.message.id = Some(hasher.finish());
    }

    /// Sets the author of the open message.
    pub(super) fn message_author(&mut self, author: &[u8]) {
        self.message.is_of_user |= matches!(author, b"human" | b"user" | b"HumanMessage");
    }

    /// Records usage in the open message. A message may contain the same usage under several names.
    pub(super) fn message_usage(&mut self, usage: &Tally) {
        self.message.tally.merge(usage);
    }

    /// Ends the open message. If it is a chunk, its usage adds to that of earlier chunks. Returns whether it
    /// reported output. A message that precedes the last one of the user belongs to an earlier response.
    pub(super) fn end_message(&mut self, is_chunk: bool) -> bool {
        let OpenMessage { id, is_of_user, tally } = std::mem::take(&mut self.message);
        if is_of_user {
            self.known.return_to(self.before);
        } else if !tally.is_zero() {
            let (name, usage) = (id.unwrap_or(self.unnamed), tally.usage());
            if is_chunk {
                self.known.add(name, usage)
            } else {
                self.known.note(name, usage)
            }
            self.unnamed = self.unnamed.saturating_add(u64::from(id.is_none()));
        }
        tally.tells_output()
    }

    /// Ends the open document.
    pub(super) fn end_document(&mut self) {
        self.before = self.known.so_far();
    }

    /// Records the usage of a call that has the open document of its own. If the document is partial, a later
    /// one replaces it.
    pub(super) fn end_call(&mut self, usage: Usage, is_partial: bool) {
        self.known.note(self.unnamed, usage);
        self.unnamed = self.unnamed.saturating_add(u64::from(!is_partial));
    }

    /// Returns the sum of all calls, if there are any.
    pub(super) fn sum(&self) -> Option<Usage> {
        self.known.sum()
    }
}
