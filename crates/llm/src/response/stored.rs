//! What an answer says of a result that the provider makes in the background: its id, and how far it is. In: the places of a
//! scanner.

use super::place::Node;

/// The longest id, in bytes. A longer one is none.
const LONGEST: usize = 1024;

/// A member that tells something of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredPart {
    /// The object that the events of a stream are about.
    Around,
    /// Of the document itself, or of that object.
    Id { own: bool },
    /// How far it is.
    Status,
    /// Whether it is made in the background.
    Background,
}

/// What an answer has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAnswer {
    id: Vec<u8>,
    id_around: Vec<u8>,
    status: Vec<u8>,
    background: bool,
    /// The string that comes is one that stays.
    takes: bool,
}

impl StoredAnswer {
    /// The provider's id of the result.
    pub fn id(&self) -> Option<&str> {
        let id = if self.id.is_empty() { &self.id_around } else { &self.id };
        std::str::from_utf8(id).ok().filter(|id| !id.is_empty() && id.len() <= LONGEST)
    }

    /// The result is still to come.
    pub fn is_pending(&self) -> bool {
        const PENDING: [&str; 8] = [
            "queued",
            "in_progress",
            "pending",
            "processing",
            "running",
            "created",
            "requires_action",
            "cancelling",
        ];
        PENDING.iter().any(|pending| self.status.eq_ignore_ascii_case(pending.as_bytes()))
    }

    /// The result will never come, and nobody asked for that.
    pub fn has_failed(&self) -> bool {
        self.status.eq_ignore_ascii_case(b"failed")
    }

    /// The result will not be finished.
    pub fn is_cancelled(&self) -> bool {
        [&b"cancelled"[..], b"canceled", b"expired"].iter().any(|it| self.status.eq_ignore_ascii_case(it))
    }

    /// The provider says that it goes on without the client.
    pub fn is_in_background(&self) -> bool {
        self.background
    }

    /// The place of `key`, where nothing else is looked for.
    pub(super) fn child(parent: Node, key: &[u8]) -> Node {
        let own = match parent {
            Node::Root => true,
            Node::Stored(StoredPart::Around) => false,
            _ => return Node::Other,
        };
        Node::Stored(match key {
            b"id" => StoredPart::Id { own },
            b"status" => StoredPart::Status,
            b"background" => StoredPart::Background,
            b"response" | b"interaction" if own => StoredPart::Around,
            _ => return Node::Other,
        })
    }

    /// A string begins. The first id stays, and the last status.
    pub(super) fn open_text(&mut self, part: StoredPart) {
        if part == StoredPart::Status {
            self.status.clear();
        }
        self.takes = self.text_of(part).is_some_and(|text| text.is_empty());
    }

    /// A piece of it.
    pub(super) fn text(&mut self, part: StoredPart, piece: &[u8]) {
        if let Some(text) = self.takes.then(|| self.text_of(part)).flatten() {
            // One byte more tells that it is too long.
            let room = LONGEST.saturating_add(1).saturating_sub(text.len());
            text.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
    }

    fn text_of(&mut self, part: StoredPart) -> Option<&mut Vec<u8>> {
        match part {
            StoredPart::Id { own: true } => Some(&mut self.id),
            StoredPart::Id { own: false } => Some(&mut self.id_around),
            StoredPart::Status => Some(&mut self.status),
            StoredPart::Around | StoredPart::Background => None,
        }
    }

    pub(super) fn scalar(&mut self, part: StoredPart, token: Option<&[u8]>) {
        if part == StoredPart::Background {
            self.background |= token == Some(b"true");
        }
    }
}
