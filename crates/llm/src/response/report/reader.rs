//! Receives what the scanner finds, and passes each value on by its place.

use super::{Covers, Report, Source};
use crate::json::{LABEL, Reader, characters};
use crate::providers::{Repeat, all};
use crate::response::CHARACTERS_PER_TOKEN;
use crate::response::cause::Cause;
use crate::response::document::Document;
use crate::response::found::{DoubtfulUsage, OpenMember};
use crate::response::names;
use crate::response::place::Node;
use crate::response::stored::StoredAnswer;
use crate::response::tally::{Field, Tally, count, grouped_count};
use serde_json::Value;

/// The type or class of a chunk of a message in LangChain. The usage of all chunks adds up. Messages that the state of an
/// agent contains may have this type too, but they are whole.
const MESSAGE_CHUNK: &[u8] = b"AIMessageChunk";

/// The types of events that end a step of an agent (AI SDK, Mastra). The usage of all steps adds up.
const STEPS: [&[u8]; 2] = [b"finish-step", b"step-finish"];

impl Reader for Report {
    type Place = Node;

    #[inline]
    fn child(&mut self, parent: Node, key: &[u8]) -> Node {
        if let Some(search) = &self.search {
            return search.child(parent, key);
        }
        if self.has_list_events
            && parent == Node::Root
            && let Some(part) = message_member(key)
        {
            return self.marked(part);
        }
        match parent.everyday(key) {
            Some(Node::Choices) => {
                self.begin_member();
                Node::Choices
            }
            Some(node) => node,
            None => self.other_child(parent, key),
        }
    }

    fn open(&mut self, node: Node) {
        if !node.belongs_to_counts() {
            self.member.depth = self.member.depth.saturating_add(1);
        }
    }

    fn element(&mut self, array: Node, index: u32) -> Node {
        if matches!(array, Node::Root) {
            self.trace_effect();
            self.list |= !self.events;
            self.has_list_events |= self.events;
            self.is_next_in_event = self.events && index > 0;
        }
        match &self.search {
            Some(search) => search.element(array, index),
            None => array.element(),
        }
    }

    fn open_document(&mut self) {
        self.document = Document::default();
        self.member = OpenMember::default();
        self.doubtful_usage = DoubtfulUsage::default();
        self.document.is_usage = std::mem::take(&mut self.usage_event);
        if !self.own.is_empty() {
            self.own = Tally::default();
        }
    }

    fn close(&mut self, node: Node) {
        if !node.belongs_to_counts() {
            self.found.close_object();
            self.member.depth = self.member.depth.saturating_sub(1);
        }
        let (source, covers) = match node {
            Node::Root => return self.close_document(),
            Node::AgentMessage | Node::Output => {
                let is_chunk = std::mem::take(&mut self.document.is_serialized_chunk);
                return self.end_message(is_chunk && !self.has_whole_messages);
            }
            Node::ChoiceMessage => {
                self.document.in_message = false;
                return;
            }
            Node::MessageUsage => {
                let mut usage = std::mem::take(&mut self.open);
                usage.add_members();
                self.unusual().calls.message_usage(&usage);
                let member = &mut self.member;
                self.calls_level = self.calls_level.min(Some(member.level)).or(Some(member.level));
                member.is_doubtful |= member.may_be_generated;
                // The messages of an agent contain those of its user and its tools, which the model has read.
                self.doubtful_usage.is_in_messages |= member.may_be_generated && member.is_message;
                self.doubtful_usage.is_in_call |= member.may_be_generated && !member.is_message;
                return;
            }
            Node::TracedCall => {
                self.document.is_call = true;
                return;
            }
            Node::Generation => {
                self.document.has_generation = true;
                return;
            }
            Node::PromptToken => {
                self.found.set(&mut self.member, Field::Predicted, 1);
                return self.trace_effect();
            }
            Node::Usage | Node::Meta => (Source::Usage, Covers::Several),
            Node::TotalUsage => (Source::TotalUsage, Covers::Several),
            Node::UsageMetadata => (Source::Usage, Covers::One),
            Node::InvocationMetrics => (Source::InvocationMetrics, Covers::Several),
            Node::Timings => (Source::Timings, Covers::Several),
            Node::Iterations | Node::Tool => return self.take_beside(),
            Node::Metrics | Node::CacheDetails | Node::ListedCounts => return self.take_pair(node),
            Node::Count(field) if !self.open.close_parts(field) => return self.misplaced(node),
            Node::Own(field) if !self.own.close_parts(field) => return self.misplaced(node),
            Node::Found(field) | Node::Series(field) => {
                self.found.close_parts(&self.member, field);
                return self.trace_effect();
            }
            _ => return,
        };
        let mut tally = std::mem::take(&mut self.open);
        tally.add_members();
        self.take(source, &tally, covers);
    }

    fn close_document(&mut self) {
        if !self.own.is_empty() {
            let mut own = std::mem::take(&mut self.own);
            own.add_members();
            if let Some(index) = self.document.index.filter(|_| self.events) {
                self.unusual().results.note(index.into(), own.usage());
            }
            self.take(Source::Native, &own, Covers::Several);
        }
        if self.unusual.is_some() {
            if self.has_list_events {
                self.end_message(self.document.is_chunk && !self.has_whole_messages);
            }
            self.take_unusual();
        }
        if !self.found.is_empty() {
            self.take_found();
        }
        if self.document.is_call || self.is_batch || self.document.is_chunk && !self.has_list_events {
            self.end_call(self.document.is_partial);
        }
        self.document.failed |= std::mem::take(&mut self.error_event);
        if let Some(trace) = &mut self.trace {
            trace.end_document(&self.document);
        }
        self.take_text();
    }

    fn scalar(&mut self, node: Node, token: Option<&[u8]>) {
        let null = token == Some(b"null");
        match node {
            Node::Count(_) | Node::Own(_) if null => {}
            // Clients can set metadata too, but only to text, so a number comes from the provider.
            Node::MetadataCount(_) | Node::MetadataPart(_) => self.count_at(node, token),
            node if node.is_count() => self.count_at(node, token),
            Node::PartialMark => self.document.is_partial = token == Some(b"true"),
            Node::ErrorCode if !matches!(token, Some(b"null" | b"0" | b"false")) => self.fail(),
            Node::Success if token == Some(b"false") => self.fail(),
            Node::Status(outcome) => self.document.status_number(outcome, token),
            Node::Index => {
                self.document.index = token.and_then(count).and_then(|index| u32::try_from(index).ok());
            }
            Node::OtherUnit if !null => self.open.other_unit = true,
            Node::Pointed(pointer) => {
                let text = token.and_then(|token| std::str::from_utf8(token).ok());
                self.find(pointer, text.and_then(|text| serde_json::from_str(text).ok()));
            }
            Node::Error if !null => self.fail(),
            Node::Embedding if !null => {
                self.trace_effect();
                self.numbers = self.numbers.saturating_add(1);
            }
            Node::TokenIds if token.is_some_and(|token| token.iter().all(u8::is_ascii_digit)) => {
                self.characters(Node::TextAgain, CHARACTERS_PER_TOKEN);
            }
            Node::Stored(part) => {
                self.stored_mut().into_iter().for_each(|stored| stored.scalar(part, token));
            }
            _ => {}
        }
    }

    fn open_text(&mut self, node: Node) {
        match node {
            Node::Stored(part) => {
                self.stored_mut().into_iter().for_each(|stored| stored.open_text(part));
            }
            Node::Status(_) => self.document.open_status(),
            Node::Root | Node::Quoted => self.open_quoted(node),
            node if node.is_counts() => self.open_quoted(node),
            _ => {}
        }
    }

    fn word(&mut self, node: Node, word: Option<&[u8]>) {
        match node {
            node if node.is_count() => match word.and_then(grouped_count) {
                Some(count) => self.set_count(node, Some(count)),
                None => self.count_at(node, word),
            },
            Node::PairName => self.unusual().pair.0 = word.and_then(|word| names::field(word, false)),
            Node::CountName => {
                let unusual = self.unusual();
                unusual.pair.0 = word.and_then(|word| names::field(word, true));
                unusual.pair_has_name = true;
            }
            Node::CacheTtl => {
                let lives_long = word == Some(b"1h");
                self.unusual().pair.0 =
                    Some(if lives_long { Field::CacheWrite1h } else { Field::CacheWrite5m });
            }
            Node::IterationType => {
                self.unusual().is_reported = matches!(word, Some(b"message" | b"fallback_message"))
            }
            Node::ErrorCode if !matches!(word, Some(b"" | b"0")) => self.fail(),
            Node::Pointed(pointer) => {
                self.find(pointer, word.map(|word| String::from_utf8_lossy(word).into()));
            }
            Node::Error => self.fail(),
            Node::CallMark => self.document.is_call = true,
            Node::MessageId | Node::EventId => {
                word.into_iter().for_each(|id| self.unusual().calls.message_id(id));
            }
            Node::MessageAuthor => {
                self.unusual().calls.message_author(word.unwrap_or_default());
            }
            Node::ClassName => self.document.is_serialized_chunk = word == Some(MESSAGE_CHUNK),
            Node::Type => self.kind(word.unwrap_or_default()),
            _ => {}
        }
    }

    fn misplaced(&mut self, node: Node) {
        match node {
            // An object that stands for a count may have members in other units.
            Node::Count(Field::InputPart | Field::OutputPart)
            | Node::Own(Field::InputPart | Field::OutputPart) => {}
            Node::Count(field) => {
                self.open.unset(field);
                self.broken(Cause::Count);
            }
            Node::Own(field) => {
                self.own.unset(field);
                self.broken(Cause::Count);
            }
            Node::Error => self.fail(),
            _ => {}
        }
    }

    fn text(&mut self, node: Node, piece: &[u8]) {
        match node {
            Node::Stored(part) => {
                self.stored_mut().into_iter().for_each(|stored| stored.text(part, piece));
            }
            Node::Status(_) => self.document.status_piece(piece),
            Node::Media | Node::Embedding => self.unusual().media.add(piece),
            Node::Root | Node::Quoted => self.quoted_piece(piece),
            node if node.is_counts() => self.quoted_piece(piece),
            _ => {
                if let Some(trace) = &mut self.trace {
                    trace.text(node, piece);
                }
                if self.is_compared(node) {
                    self.text_so_far.add(piece);
                }
                self.add_text(node, characters(piece));
            }
        }
    }

    fn close_text(&mut self, node: Node) {
        match node {
            Node::Status(outcome) => self.document.close_status(outcome),
            Node::Media => {
                let media = std::mem::take(&mut self.unusual().media);
                self.add_text(node, media.weight());
            }
            Node::Embedding => {
                let string = std::mem::take(&mut self.unusual().media);
                match string.numbers() {
                    Some(numbers) => self.numbers = self.numbers.saturating_add(numbers),
                    None => self.add_text(node, string.weight()),
                }
            }
            Node::Root | Node::Quoted => self.close_quoted(node),
            node if node.is_counts() => self.close_quoted(node),
            _ => {}
        }
    }

    fn characters(&mut self, node: Node, characters: u64) {
        self.trace_effect();
        self.add_text(node, characters);
    }

    fn counted_text(&mut self, node: Node, text: &[u8], characters: u64) {
        self.trace_effect();
        self.compare_escaped(node, text, characters);
        self.count_text(node, characters);
    }

    fn skipped(&mut self, value: &[u8], is_string: bool) {
        if let Some(trace) = &mut self.trace {
            trace.skipped(value, is_string);
        }
    }

    fn passed(&mut self, node: Node, before: usize, piece: &[u8]) {
        self.trace_effect();
        if !matches!(node, Node::Other | Node::Metadata | Node::Vectors) {
            let beyond = piece.get(LABEL.saturating_sub(before)..).unwrap_or_default();
            self.document.text = self.document.text.saturating_add(characters(beyond));
        }
    }

    fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.trace_effect();
            self.raw.take(bytes);
        }
    }

    fn malformed(&mut self) {
        self.broken(Cause::Malformed);
    }
}

impl Report {
    /// Adds text of the open document, which may repeat that of an earlier one.
    fn add_text(&mut self, node: Node, characters: u64) {
        if self.is_compared(node) {
            self.text_so_far.add_characters(characters);
        }
        self.count_text(node, characters);
    }

    /// Adds text of the open document.
    fn count_text(&mut self, node: Node, characters: u64) {
        let count = match node {
            // The root is reported only for text outside of documents.
            Node::Root => &mut self.delivered,
            Node::Whole => &mut self.whole,
            Node::Notice | Node::Message => &mut self.document.notice,
            Node::Complaint => {
                self.document.failed = true;
                &mut self.document.notice
            }
            Node::Reasoning => &mut self.document.reasoning,
            Node::ReasoningContent => &mut self.document.reasoning_content,
            Node::ReasoningDetails => &mut self.document.reasoning_details,
            Node::TextAgain => &mut self.document.text_again,
            Node::TextParts => &mut self.document.text_parts,
            Node::Amount => &mut self.document.amounts,
            Node::Aside => &mut self.document.aside,
            Node::MetadataText => &mut self.doubtful_usage.metadata,
            _ if self.document.in_message => &mut self.document.text_again,
            _ => &mut self.document.text,
        };
        *count = count.saturating_add(characters);
    }

    /// Returns whether text at this place may repeat that of an earlier event.
    fn is_compared(&self, node: Node) -> bool {
        self.events && self.text_so_far.compares(node)
    }

    /// Compares a piece of text with complete escape sequences.
    pub(in crate::response) fn compare_escaped(&mut self, node: Node, text: &[u8], characters: u64) {
        if self.is_compared(node) {
            self.text_so_far.add_escaped(text);
            self.text_so_far.add_characters(characters);
        }
    }

    /// Compares a piece of a string outside of documents.
    pub(in crate::response) fn compare_text(&mut self, piece: &[u8]) {
        if self.is_compared(Node::Root) {
            self.text_so_far.add(piece);
        }
    }

    /// Ends an event of a stream.
    pub(in crate::response) fn end_event(&mut self) {
        self.has_whole_messages = false;
        self.is_next_in_event = false;
        // Strings outside of documents.
        self.text_so_far.end_document(true);
    }

    /// Ends a document that only has text.
    fn take_text(&mut self) {
        self.ended_in_error |= self.document.is_only_error();
        self.delivered = self.delivered.saturating_add(self.document.delivered());
        self.repeated = self.repeated.max(self.document.repeated());
        self.text_so_far.end_document(self.document.delivered() > 0);
        let tells_output = self.document.tells_output;
        self.document = Document::default();
        if tells_output {
            self.covered = self.delivered();
        }
    }

    /// Reads a document that equals an earlier one in all but its texts.
    pub(in crate::response) fn repeat_document(
        &mut self,
        document: Document,
        texts: impl Iterator<Item = (Node, u64)>,
    ) {
        self.document = document;
        texts.for_each(|(node, characters)| self.count_text(node, characters));
        self.take_text();
    }

    /// Returns the place of a key that does not occur in nearly every event.
    fn other_child(&mut self, parent: Node, key: &[u8]) -> Node {
        if matches!(parent, Node::Root) {
            self.begin_member();
            self.document.is_notification |= key == b"method";
        }
        if matches!(parent, Node::Choices) && self.events {
            self.document.in_message = key == b"message";
            self.document.has_message |= self.document.in_message;
        }
        let node = match parent {
            Node::Root if key == b"params" && self.document.is_notification => Node::Aside,
            Node::Root if self.document.is_usage => usage_member(key, self.events),
            Node::Root if key == b"parameters" && (self.document.has_generation || self.has_vectors) => {
                Node::Around
            }
            _ => parent.child(key, self.events),
        };
        if node.leads_to_counts() && !parent.belongs_to_counts() {
            let member = &mut self.member;
            member.level = parent.level(member.depth);
            member.may_be_generated = parent.may_be_generated(member.depth);
            member.is_message = matches!(parent, Node::AgentMessage);
            if matches!(node, Node::Counts | Node::ListedCounts) {
                self.found.begin_breakdown(member.level, names::is_breakdown(key));
            }
            self.doubtful_usage.is_in_metadata |= matches!(parent, Node::Metadata);
            self.doubtful_usage.is_in_part |= matches!(node, Node::MetadataPart(_));
        }
        self.marked(node)
    }

    /// Begins a member of the document.
    #[inline(never)]
    fn begin_member(&mut self) {
        self.end_member();
        self.member.before = self.characters_so_far();
    }

    /// Ends a member of the document. If it contains a count that a model may have written, all of its text
    /// may be part of the same answer.
    pub(super) fn end_member(&mut self) {
        if self.member.is_doubtful {
            let so_far = self.characters_so_far();
            let member = &mut self.member;
            member.is_doubtful = false;
            member.doubtful = member.doubtful.saturating_add(so_far.saturating_sub(member.before));
        }
    }

    /// Begins a report of usage, if the member is one.
    fn marked(&mut self, node: Node) -> Node {
        if node == Node::Vectors {
            self.trace_effect();
            self.has_vectors = true;
        }
        if node.is_marked() {
            self.open = Tally::default();
            let is_cumulative = self.events && matches!(node, Node::Cumulative);
            self.document.repeats |= is_cumulative;
            self.document.is_of_result |= is_cumulative;
        }
        node
    }

    /// Records the value at a pointer of a policy.
    fn find(&mut self, pointer: u16, value: Option<Value>) {
        if let Some(search) = &mut self.search {
            search.find(pointer, value);
        }
    }

    fn stored_mut(&mut self) -> Option<&mut StoredAnswer> {
        self.search.as_mut()?.stored_mut()
    }

    /// Records that the call failed.
    fn fail(&mut self) {
        self.trace_effect();
        self.ended_in_error = true;
        self.document.failed = true;
    }

    /// Records the type of the document.
    fn kind(&mut self, kind: &[u8]) {
        // Most events are of these types, so nothing else is compared.
        if kind.ends_with(b"delta") {
            self.document.mute |= self.events && kind.ends_with(b"audio.delta");
            return;
        }
        if matches!(kind, b"error" | b"response.failed") {
            self.trace_effect();
            self.ended_in_error = true;
        }
        self.document.is_usage |= names::is_named_usage(kind) || names::is_statistics(kind);
        self.document.is_call |= STEPS.contains(&kind);
        self.document.is_chunk |= kind == MESSAGE_CHUNK;
        self.document.mute |= kind == b"error";
        self.document.repeats |= repeats(kind, self.events);
    }
}

/// Returns the place of a member of an event that is a message.
fn message_member(key: &[u8]) -> Option<Node> {
    match Node::AgentMessage.child(key, true) {
        Node::MessageId => Some(Node::EventId),
        part @ (Node::MessageMetadata | Node::MessageUsage) => Some(part),
        _ => None,
    }
}

/// Returns the place of a member of a document that contains only usage, according to its type or the name of
/// its event.
fn usage_member(key: &[u8], events: bool) -> Node {
    match names::field(key, true) {
        Some(field) => Node::Found(field),
        None if matches!(key, b"data" | b"payload" | b"value") => Node::Counts,
        None => Node::Root.child(key, events),
    }
}

static REPEATS: &[Repeat] = all!(Repeat, repeats, Repeat { begins: "", ends: &[], is_event: false });

/// Returns whether documents of this type repeat what other documents in their stream delivered.
fn repeats(kind: &[u8], events: bool) -> bool {
    REPEATS.iter().any(|repeat| {
        (events || !repeat.is_event)
            && kind.starts_with(repeat.begins.as_bytes())
            && repeat.ends.iter().any(|end| kind.ends_with(end.as_bytes()))
    })
}
