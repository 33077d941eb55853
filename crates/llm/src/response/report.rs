//! Collects what a body has reported so far: usage, delivered text, and problems. The scanner calls it for
//! every place that a dialect names.

use super::Usage;
use super::calls::AgentCalls;
use super::document::Document;
use super::names;
use super::place::Node;
use super::pointed::{Found, Pointers, number};
use super::quoted::{QuotedKind, QuotedText};
use super::raw::Raw;
use super::results::Results;
use super::stored::StoredAnswer;
use super::tally::{Field, Tally, count};
use crate::json::{LABEL, Reader, characters};
use crate::providers::{Repeat, all};
use serde_json::Value;
use std::sync::Arc;

/// Why a body could not be read completely. Worse causes come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The body was not encoded as `content-encoding` says. It was read anyway.
    Mislabeled,
    /// The body ended inside a document.
    Truncated,
    /// A count was not a number of tokens: negative, fractional, text, or above 2^53.
    Count,
    /// The body should be JSON and is not.
    Malformed,
    /// `content-encoding` names an unknown encoding, or several.
    Encoding,
    /// The encoding announces a window larger than the maximum. For zstd, the maximum is 8 MiB, as in
    /// browsers.
    Window,
    /// There was no memory to read the body.
    Memory,
    /// The bytes do not have the encoding that `content-encoding` names.
    Corrupt,
    /// The decoded body is disproportionately larger than its bytes on the wire.
    Bomb,
}

impl Cause {
    /// Returns the name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Mislabeled => "mislabeled",
            Cause::Count => "count",
            Cause::Malformed => "malformed",
            Cause::Truncated => "truncated",
            Cause::Encoding => "encoding",
            Cause::Window => "window",
            Cause::Memory => "memory",
            Cause::Corrupt => "corrupt",
            Cause::Bomb => "bomb",
        }
    }
}

/// The place of a usage report. If there are several, later ones in this list are more reliable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    #[default]
    Headers,
    Timings,
    /// Counts in unlisted places, found by their names.
    Named,
    /// Members of the document itself.
    Native,
    Usage,
    /// The counts that AWS bills, in addition to those in the model's own format.
    InvocationMetrics,
}

/// What has been read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// Whether the documents are events of a stream.
    pub(super) events: bool,
    pub(super) ended_in_error: bool,
    /// Whether the name of the next event means an error.
    pub(super) error_event: bool,
    /// Whether the name of the next event means usage.
    pub(super) usage_event: bool,
    /// Whether the status means that nothing was generated.
    pub(super) failed: bool,
    pub(super) cause: Option<Cause>,
    reported: Option<(Source, Tally)>,
    /// The delivered characters before the open document.
    delivered: u64,
    /// The largest number of characters that one event repeated from others.
    repeated: u64,
    /// The characters of whole texts that may have been delivered in parts before.
    whole: u64,
    /// The bytes outside of documents.
    pub(super) raw: Raw,
    /// The delivered characters that the last report of output covers.
    covered: u64,
    /// The counts of the open object.
    open: Tally,
    /// The earlier report, if the open document has a report as well.
    before: Option<(Source, Tally)>,
    /// The counts that are members of the open document.
    own: Tally,
    /// Allocated when a document needs it, which is rare.
    unusual: Option<Box<Unusual>>,
    /// Whether the documents are elements of one array that is not a stream.
    list: bool,
    /// Whether events are arrays. Agents send messages in this way.
    has_list_events: bool,
    pub(super) document: Document,
    /// The kind of the open string, while the document inside of it is read.
    pub(super) inside: Option<QuotedKind>,
    /// Whether a document in a string has reported usage.
    reads_quoted: bool,
    /// If set, the reader looks only for this.
    search: Option<ResponseSearch>,
    found: Vec<Option<Value>>,
}

/// A search for something other than usage.
#[derive(Clone, Debug)]
enum ResponseSearch {
    Pointers(Arc<Pointers>),
    Stored(Box<StoredAnswer>),
}

/// Counts outside of reports.
#[derive(Clone, Debug, Default)]
struct Unusual {
    /// Counts in unlisted places of the open document, and those in lists.
    named: Tally,
    listed: Tally,
    /// The counts of one sampling or tool in addition to the report, and whether the report includes them.
    beside: Tally,
    is_reported: bool,
    /// The sum of these counts in the open document, and in the last document that had any.
    open_extra: Tally,
    extra: Tally,
    /// The results of a stream with several results.
    results: Results,
    calls: AgentCalls,
    quoted: QuotedText,
    /// A count with its name and its value in separate members.
    pair: (Option<Field>, Option<u64>),
}

impl Report {
    pub(super) fn look_for(&mut self, pointers: Arc<Pointers>) {
        self.found = vec![None; pointers.len()];
        self.search = Some(ResponseSearch::Pointers(pointers));
    }

    pub(super) fn look_for_stored(&mut self) {
        self.search = Some(ResponseSearch::Stored(Box::default()));
    }

    pub(super) fn found(&self) -> Found {
        match &self.search {
            Some(ResponseSearch::Pointers(pointers)) => pointers.found(&self.found),
            _ => Found::default(),
        }
    }

    pub(super) fn stored(&self) -> StoredAnswer {
        match &self.search {
            Some(ResponseSearch::Stored(stored)) => StoredAnswer::clone(stored),
            _ => StoredAnswer::default(),
        }
    }

    fn stored_mut(&mut self) -> Option<&mut StoredAnswer> {
        match &mut self.search {
            Some(ResponseSearch::Stored(stored)) => Some(stored),
            _ => None,
        }
    }

    /// Records the value at a pointer. Null is not a value, and a zero does not replace an earlier value.
    fn find(&mut self, pointer: u16, value: Option<Value>) {
        if let Some(place) = self.found.get_mut(usize::from(pointer))
            && let Some(value) = value.filter(|value| !value.is_null())
            && (place.is_none() || number(&value) != Some(0.0))
        {
            *place = Some(value);
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        let reported = self.reported.as_ref().map(|(source, tally)| (*source, tally.usage()));
        let results = self.unusual.as_ref().filter(|unusual| unusual.results.len() > 1);
        let results = results.and_then(|unusual| unusual.results.sum());
        let calls = self.unusual.as_ref().and_then(|unusual| unusual.calls.sum());
        let usage = match (reported, calls) {
            (reported, Some(calls)) if reported.is_none_or(|(source, _)| source <= Source::Named) => {
                Some(calls)
            }
            (reported, _) => results.or(reported.map(|(_, usage)| usage)),
        };
        match self.unusual.as_ref().map(|unusual| unusual.extra).filter(|extra| !extra.is_zero()) {
            Some(extra) => Some(usage.unwrap_or_default().plus(extra.usage())),
            None => usage,
        }
    }

    /// Returns whether the usage may be generated text.
    pub(super) fn is_quoted(&self) -> bool {
        self.reads_quoted
    }

    pub(super) fn quoted_mut(&mut self) -> &mut QuotedText {
        &mut self.unusual().quoted
    }

    /// Returns whether only a total was reported.
    pub(super) fn tells_only_total(&self) -> bool {
        self.reported.is_some_and(|(_, tally)| tally.is_only_total())
    }

    /// Returns whether the usage is in a unit other than tokens.
    pub(super) fn is_of_other_unit(&self) -> bool {
        self.reported.is_some_and(|(_, tally)| tally.is_of_other_unit())
    }

    /// Returns the characters of generated text. Repeated text counts only if it was not delivered before and
    /// no report counts it.
    pub(super) fn delivered(&self) -> u64 {
        if self.failed {
            return 0;
        }
        let pieces = self.delivered.saturating_add(self.document.delivered());
        // The repeated text of a failed call is the request or the incomplete output.
        let repeated = match self.reported {
            None if !self.ended_in_error => self.repeated.max(self.document.repeated()),
            _ => 0,
        };
        pieces.max(repeated).max(self.whole).saturating_add(self.raw.characters())
    }

    /// Returns the characters that no report of output covers.
    pub(super) fn uncovered(&self) -> u64 {
        if self.reported.is_some_and(|(source, _)| source == Source::Headers) {
            return 0;
        }
        let covered = if self.document.tells_output { self.delivered() } else { self.covered };
        self.delivered().saturating_sub(covered)
    }

    /// Records a problem if it is worse than the one before.
    pub(super) fn broken(&mut self, cause: Cause) {
        self.cause = self.cause.max(Some(cause));
    }

    /// Records a complete report. Within one document, the last report counts, as with any repeated key. A
    /// report in a later document is merged with the earlier ones, or added to them if each document has its
    /// own result. A zero never replaces another value.
    pub(super) fn take(&mut self, source: Source, tally: &Tally, covers: Covers) {
        let is_worse = |(earlier, known): (Source, Tally)| match (known.is_zero(), tally.is_zero()) {
            (false, true) => true,
            (true, false) => false,
            _ => earlier > source,
        };
        if tally.is_empty() || self.reported.is_some_and(is_worse) {
            return;
        }
        if !self.document.reports {
            self.document.reports = true;
            self.before = self.reported;
            self.reads_quoted |= self.inside == Some(QuotedKind::Document);
        }
        let mut merged = *tally;
        if let Some((_, earlier)) = self.before.filter(|(earlier, _)| *earlier == source) {
            merged = earlier;
            match covers {
                Covers::Several if self.list => merged.add(tally),
                _ => merged.merge(tally),
            }
        }
        self.reported = Some((source, merged));
        self.document.tells_output |= tally.tells_output();
    }

    /// Returns the place of a key that does not occur in nearly every event.
    fn other_child(&mut self, parent: Node, key: &[u8]) -> Node {
        let node = match parent {
            Node::Root if self.document.is_usage => usage_member(key, self.events),
            Node::Root if self.document.has_generation && key == b"parameters" => Node::Around,
            _ => parent.child(key, self.events),
        };
        self.marked(node)
    }

    /// Begins a report of usage, if the member is one.
    fn marked(&mut self, node: Node) -> Node {
        if node.is_marked() {
            self.open = Tally::default();
            let is_cumulative = self.events && matches!(node, Node::Cumulative);
            self.document.repeats |= is_cumulative;
            self.document.is_of_result |= is_cumulative;
        }
        node
    }

    /// Ends a message of an agent.
    fn end_message(&mut self) {
        let Some(unusual) = &mut self.unusual else { return };
        let tells_output = unusual.calls.end_message();
        self.document.tells_output |= tells_output;
        self.document.reports |= tells_output;
    }

    /// Ends a document that reports a call of its own.
    fn end_call(&mut self, is_partial: bool) {
        if let Some((_, tally)) = self.reported.take_if(|_| self.document.reports) {
            self.unusual().calls.end_call(tally.usage(), is_partial);
        }
    }

    fn unusual(&mut self) -> &mut Unusual {
        self.unusual.get_or_insert_default()
    }

    /// Adds usage that the report does not include.
    fn take_beside(&mut self) {
        let unusual = self.unusual();
        let beside = std::mem::take(&mut unusual.beside);
        if std::mem::take(&mut unusual.is_reported) {
            return;
        }
        unusual.open_extra.add(&beside);
        if !unusual.open_extra.is_zero() {
            unusual.extra = unusual.open_extra;
        }
    }

    fn take_pair(&mut self, node: Node) {
        let Some(unusual) = &mut self.unusual else { return };
        if let (Some(field), Some(value)) = std::mem::take(&mut unusual.pair) {
            match node {
                Node::Metrics => unusual.named.set(field, value),
                Node::ListedCounts => {
                    let mut one = Tally::default();
                    one.set(field, value);
                    unusual.listed.add(&one);
                }
                _ => self.open.set(field, value),
            }
        }
    }

    /// Ends the open document, which had counts in unusual places.
    #[cold]
    fn take_unusual(&mut self) {
        let Some(unusual) = &mut self.unusual else { return };
        unusual.open_extra = Tally::default();
        unusual.calls.end_document();
        let (mut all, mut named) = (std::mem::take(&mut unusual.listed), std::mem::take(&mut unusual.named));
        all.add_parts();
        named.add_members();
        all.merge(&named);
        if let Some(index) = self.document.index.filter(|_| self.document.is_of_result && !all.is_empty()) {
            unusual.results.note(index.into(), all.usage());
        }
        self.take(Source::Named, &all, Covers::Several);
    }

    /// Parses a count of tokens, which may be a string.
    fn count_at(&mut self, node: Node, token: Option<&[u8]>) {
        let value = token.and_then(|token| count(token.trim_ascii()));
        match (node, value) {
            (Node::Count(field), Some(value)) => self.open.set(field, value),
            (Node::Own(field), Some(value)) => self.own.set(field, value),
            (Node::Tokens, Some(value)) => self.open.set(Field::Total, value),
            (Node::Count(_) | Node::Own(_), None) => self.misplaced(node),
            (Node::FoundInList(field), Some(value)) => {
                let mut one = Tally::default();
                one.set(field, value);
                self.unusual().listed.add(&one);
            }
            (Node::Found(field) | Node::MetadataCount(field), Some(value)) => {
                self.unusual().named.set(field, value);
            }
            (Node::Iteration(field) | Node::ToolCount(field), Some(value)) => {
                self.unusual().beside.set(field, value);
            }
            (Node::PairValue | Node::CountValue | Node::CacheCount, Some(value)) => {
                self.unusual().pair.1 = Some(value);
            }
            _ => {}
        }
    }
}

/// The results that several reports cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covers {
    /// All reports cover one result, each up to its own time.
    One,
    /// Each report covers a separate result if the documents are elements of a list.
    Several,
}

impl Reader for Report {
    type Place = Node;

    #[inline]
    fn child(&mut self, parent: Node, key: &[u8]) -> Node {
        match &self.search {
            None => {}
            Some(ResponseSearch::Pointers(pointers)) => return pointers.child(parent, key),
            Some(ResponseSearch::Stored(_)) => return StoredAnswer::child(parent, key),
        }
        if self.has_list_events && parent == Node::Root {
            let part = Node::AgentMessage.child(key, true);
            if matches!(part, Node::MessageId | Node::MessageMetadata | Node::MessageUsage) {
                return self.marked(part);
            }
        }
        match parent.everyday(key) {
            Some(node) => node,
            None => self.other_child(parent, key),
        }
    }

    fn element(&mut self, array: Node, index: u32) -> Node {
        self.list |= matches!(array, Node::Root) && !self.events;
        self.has_list_events |= matches!(array, Node::Root) && self.events;
        match &self.search {
            Some(ResponseSearch::Pointers(pointers)) => pointers.element(array, index),
            Some(ResponseSearch::Stored(_)) => array,
            None => array.element(),
        }
    }

    fn open_document(&mut self) {
        self.document = Document::default();
        self.document.is_usage = std::mem::take(&mut self.usage_event);
        if !self.own.is_empty() {
            self.own = Tally::default();
        }
    }

    fn close(&mut self, node: Node) {
        let (source, covers) = match node {
            Node::Root => return self.close_document(),
            Node::AgentMessage | Node::Output => return self.end_message(),
            Node::MessageUsage => {
                let mut usage = std::mem::take(&mut self.open);
                usage.add_members();
                self.unusual().calls.message_usage(&usage);
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
                self.unusual().named.set(Field::Predicted, 1);
                return;
            }
            Node::Usage | Node::Meta => (Source::Usage, Covers::Several),
            Node::UsageMetadata => (Source::Usage, Covers::One),
            Node::InvocationMetrics => (Source::InvocationMetrics, Covers::Several),
            Node::Timings => (Source::Timings, Covers::Several),
            Node::Iterations | Node::Tool => return self.take_beside(),
            Node::Metrics | Node::CacheDetails | Node::ListedCounts => return self.take_pair(node),
            Node::Count(field) if !self.open.close_parts(field) => return self.misplaced(node),
            Node::Own(field) if !self.own.close_parts(field) => return self.misplaced(node),
            Node::Found(field) => {
                self.unusual().named.close_parts(field);
                return;
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
                self.end_message();
            }
            self.take_unusual();
        }
        if self.document.is_call {
            self.end_call(self.document.is_partial);
        }
        self.document.failed |= std::mem::take(&mut self.error_event);
        let document = std::mem::take(&mut self.document);
        self.ended_in_error |= document.is_only_error();
        self.delivered = self.delivered.saturating_add(document.delivered());
        self.repeated = self.repeated.max(document.repeated());
        if document.tells_output {
            self.covered = self.delivered();
        }
    }

    fn scalar(&mut self, node: Node, token: Option<&[u8]>) {
        let null = token == Some(b"null");
        match node {
            Node::Count(_) | Node::Own(_) if null => {}
            Node::Count(_)
            | Node::Own(_)
            | Node::Found(_)
            | Node::FoundInList(_)
            | Node::Iteration(_)
            | Node::ToolCount(_)
            | Node::PairValue
            | Node::CountValue
            | Node::MetadataCount(_)
            | Node::Tokens
            | Node::CacheCount => self.count_at(node, token),
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
            Node::Count(_)
            | Node::Own(_)
            | Node::Found(_)
            | Node::FoundInList(_)
            | Node::Iteration(_)
            | Node::ToolCount(_)
            | Node::PairValue
            | Node::CountValue
            | Node::Tokens
            | Node::CacheCount => self.count_at(node, word),
            Node::PairName => self.unusual().pair.0 = word.and_then(|word| names::field(word, false)),
            Node::CountName => self.unusual().pair.0 = word.and_then(|word| names::field(word, true)),
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
            Node::MessageId => {
                word.into_iter().for_each(|id| self.unusual().calls.message_id(id));
            }
            Node::MessageAuthor => {
                self.unusual().calls.message_author(word.unwrap_or_default());
            }
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
            Node::Root | Node::Quoted => self.quoted_piece(piece),
            node if node.is_counts() => self.quoted_piece(piece),
            _ => self.characters(node, characters(piece)),
        }
    }

    fn close_text(&mut self, node: Node) {
        match node {
            Node::Status(outcome) => self.document.close_status(outcome),
            Node::Root | Node::Quoted => self.close_quoted(node),
            node if node.is_counts() => self.close_quoted(node),
            _ => {}
        }
    }

    fn characters(&mut self, node: Node, characters: u64) {
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
            _ => &mut self.document.text,
        };
        *count = count.saturating_add(characters);
    }

    fn passed(&mut self, node: Node, before: usize, piece: &[u8]) {
        if !matches!(node, Node::Other | Node::Metadata) {
            let beyond = piece.get(LABEL.saturating_sub(before)..).unwrap_or_default();
            self.document.text = self.document.text.saturating_add(characters(beyond));
        }
    }

    fn unread(&mut self, bytes: &[u8]) {
        self.raw.take(bytes);
    }

    fn malformed(&mut self) {
        self.broken(Cause::Malformed);
    }
}

impl Report {
    /// Records that the call failed.
    fn fail(&mut self) {
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
            self.ended_in_error = true;
        }
        self.document.is_usage |= names::is_named_usage(kind);
        self.document.mute |= kind == b"error";
        self.document.repeats |= repeats(kind, self.events);
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
