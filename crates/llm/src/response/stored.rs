//! Finds the id and the state of a background result in a response.

use super::place::Node;

/// The maximum length of an id in bytes. Longer ones are ignored.
const LONGEST: usize = 1024;

/// A member that describes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredPart {
    /// The object that describes the result in an event of a stream.
    Around,
    /// The id, either of the document itself or of that object.
    Id { own: bool },
    /// The id of the request, which some providers answer with instead of a result.
    Request,
    /// The state of the result.
    Status,
    /// Whether the result is created in the background.
    Background,
}

/// What a response contains about a background result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAnswer {
    id: Vec<u8>,
    id_around: Vec<u8>,
    request: Vec<u8>,
    status: Vec<u8>,
    background: bool,
    /// Whether the current string is kept.
    takes: bool,
}

impl StoredAnswer {
    /// Returns the provider's id of the result.
    pub fn id(&self) -> Option<&str> {
        let id = [&self.id, &self.id_around].into_iter().find(|id| !id.is_empty()).unwrap_or(&self.request);
        std::str::from_utf8(id).ok().filter(|id| !id.is_empty() && id.len() <= LONGEST)
    }

    /// Returns whether the response contains the request's id in place of a result.
    pub fn is_announced(&self) -> bool {
        self.status.is_empty() && self.id.is_empty() && self.id_around.is_empty() && !self.request.is_empty()
    }

    /// Returns whether the result is incomplete and will be continued.
    pub fn is_pending(&self) -> bool {
        const PENDING: [&str; 9] = [
            "queued",
            "in_queue",
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

    /// Returns whether the result has failed, without being cancelled.
    pub fn has_failed(&self) -> bool {
        self.status.eq_ignore_ascii_case(b"failed")
    }

    /// Returns whether the result was abandoned.
    pub fn is_cancelled(&self) -> bool {
        [&b"cancelled"[..], b"canceled", b"expired"].iter().any(|it| self.status.eq_ignore_ascii_case(it))
    }

    /// Returns whether the provider creates the result in the background, without the client.
    pub fn is_in_background(&self) -> bool {
        self.background
    }

    /// Returns the place of `key` if the meter looks only for background results.
    pub(super) fn child(parent: Node, key: &[u8]) -> Node {
        let own = match parent {
            Node::Root => true,
            Node::Stored(StoredPart::Around) => false,
            _ => return Node::Other,
        };
        Node::Stored(match key {
            b"id" => StoredPart::Id { own },
            b"request_id" if own => StoredPart::Request,
            b"status" => StoredPart::Status,
            b"background" => StoredPart::Background,
            b"response" | b"interaction" if own => StoredPart::Around,
            _ => return Node::Other,
        })
    }

    /// Begins a string. The first id and the last status are kept.
    pub(super) fn open_text(&mut self, part: StoredPart) {
        if part == StoredPart::Status {
            self.status.clear();
        }
        self.takes = self.text_of(part).is_some_and(|text| text.is_empty());
    }

    /// Appends a part of the string.
    pub(super) fn text(&mut self, part: StoredPart, piece: &[u8]) {
        if let Some(text) = self.takes.then(|| self.text_of(part)).flatten() {
            // One additional byte shows that the text is too long.
            let room = LONGEST.saturating_add(1).saturating_sub(text.len());
            text.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
    }

    fn text_of(&mut self, part: StoredPart) -> Option<&mut Vec<u8>> {
        match part {
            StoredPart::Id { own: true } => Some(&mut self.id),
            StoredPart::Id { own: false } => Some(&mut self.id_around),
            StoredPart::Request => Some(&mut self.request),
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
