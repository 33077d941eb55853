//! Collects what a body has reported so far: usage, delivered text, and problems. The scanner calls it for
//! every place that a dialect names.

mod reader;
mod unusual;

use super::cause::Cause;
use super::document::Document;
use super::found::{DoubtfulUsage, FoundCounts, OpenMember};
use super::quoted::{QuotedKind, QuotedText};
use super::raw::Raw;
use super::search::ResponseSearch;
use super::so_far::TextSoFar;
use super::tally::Tally;
use super::template::Trace;
use super::{CHARACTERS_PER_TOKEN, NAMES, Usage};
use unusual::Unusual;

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
    /// The usage of all calls together, next to that of the last one.
    TotalUsage,
    /// The counts that AWS bills, in addition to those in the model's own format.
    InvocationMetrics,
}

/// A report of one step, and of all steps, one after the other.
const SUM_AFTER_PART: (Source, Source) = (Source::Usage, Source::TotalUsage);
const PART_AFTER_SUM: (Source, Source) = (Source::TotalUsage, Source::Usage);

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
    /// Whether the messages in the open event are whole.
    pub(super) has_whole_messages: bool,
    /// Whether the status means that nothing was generated.
    pub(super) failed: bool,
    pub(super) cause: Option<Cause>,
    reported: Option<(Source, Tally)>,
    /// The cache writes in reports that did not count.
    written: u64,
    /// The delivered characters before the open document.
    delivered: u64,
    /// The largest number of characters that one event repeated from others.
    repeated: u64,
    /// The text that events have repeated.
    pub(super) text_so_far: TextSoFar,
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
    /// The counts of the open document in unlisted places.
    found: FoundCounts,
    /// Allocated when a document needs it, which is rare.
    unusual: Option<Box<Unusual>>,
    /// Whether the documents are elements of one array that is not a stream.
    list: bool,
    /// Whether the open document follows another one in the array of an event.
    pub(super) is_next_in_event: bool,
    /// Whether events are arrays. Agents send messages in this way.
    has_list_events: bool,
    pub(super) document: Document,
    /// The open member of the document.
    pub(super) member: OpenMember,
    /// What a model may have written in the document.
    doubtful_usage: DoubtfulUsage,
    /// Whether each document answers a call of its own.
    pub(super) is_batch: bool,
    /// Whether vectors (embeddings) were found.
    has_vectors: bool,
    /// The length of all vectors in unlisted places.
    numbers: u64,
    /// Whether the body is plain text, so that a model may have written all of it.
    pub(super) is_plain: bool,
    /// Whether a model may have written the usage, and the characters that it may have written with it.
    doubtful: Option<u64>,
    /// The same for the usage in the messages of an agent.
    doubtful_calls: u64,
    /// The characters around the messages of an agent that a model may have written, or around usage in metadata.
    doubtful_messages: u64,
    doubtful_metadata: u64,
    /// The outermost level of the last document's counts in unlisted places, and of all messages with usage.
    named_level: u32,
    calls_level: Option<u32>,
    /// The kind of the open string, while the document inside of it is read.
    pub(super) inside: Option<QuotedKind>,
    /// Whether a document in a string has reported usage.
    reads_quoted: bool,
    /// If set, records what the open event contains.
    trace: Option<Trace>,
    /// If set, the reader looks only for this.
    pub(super) search: Option<ResponseSearch>,
}

/// The results that several reports cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covers {
    /// All reports cover one result, each up to its own time.
    One,
    /// Each report covers a separate result if the documents are elements of a list.
    Several,
}

impl Report {
    pub(super) fn usage(&self) -> Option<Usage> {
        let reported = self.reported.as_ref().map(|(source, tally)| (*source, tally.usage()));
        let results = self.unusual.as_ref().filter(|unusual| unusual.results.len() > 1);
        let results = results.and_then(|unusual| unusual.results.sum());
        let usage = self.calls().or(results).or(reported.map(|(_, usage)| usage));
        let usage = usage.map(|usage| match usage.cache_write {
            0 => Usage { cache_write: self.written.min(usage.input.saturating_sub(usage.cached)), ..usage },
            _ => usage,
        });
        match self.unusual.as_ref().map(|unusual| unusual.extra).filter(|extra| !extra.is_zero()) {
            Some(extra) => Some(usage.unwrap_or_default().plus(extra.usage())),
            None => usage,
        }
    }

    /// Returns the usage of the calls of an agent, if it is the usage of the response. Counts in unlisted
    /// places repeat it, unless they are further out and larger.
    fn calls(&self) -> Option<Usage> {
        let calls = self.unusual.as_ref().and_then(|unusual| unusual.calls.sum())?;
        let is_better = |(source, tally): (Source, Tally)| {
            let is_further_out =
                source == Source::Named && self.calls_level.is_some_and(|level| self.named_level < level);
            source > Source::Named || is_further_out && tally.usage().total > calls.total
        };
        (!self.reported.is_some_and(is_better)).then_some(calls)
    }

    /// Returns whether the usage may be generated text.
    pub(super) fn is_quoted(&self) -> bool {
        let is_in_body = || self.reported.is_none_or(|(source, _)| source != Source::Headers);
        self.reads_quoted || self.is_plain && is_in_body() && self.usage().is_some()
    }

    /// Returns the characters that a model may have written together with the usage.
    pub(super) fn doubtful(&self) -> u64 {
        if self.doubtful.is_none() && self.doubtful_calls == 0 {
            return 0;
        }
        let doubtful = if self.calls().is_some() { self.doubtful_calls } else { self.doubtful.unwrap_or(0) };
        doubtful.min(self.delivered())
    }

    /// Returns the characters next to the usage that a model may have read or written. It may have written the usage
    /// as well.
    pub(super) fn doubtful_total(&self) -> u64 {
        match self.reported {
            _ if self.doubtful_messages == 0 && self.doubtful_metadata == 0 => 0,
            _ if self.calls().is_some() => self.doubtful_messages,
            Some((Source::Named, _)) => self.doubtful_metadata,
            _ => 0,
        }
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
        // If the provider reports no output, strings beside vectors are names and types.
        let has_no_output = |(_, tally): &(Source, Tally)| !tally.tells_output();
        let media = self.unusual.as_ref().map_or(0, |unusual| unusual.media.weight());
        let pieces =
            self.characters_so_far().saturating_sub(self.text_so_far.repeated()).saturating_add(media);
        // A model may have written some numbers in an unlisted place, but an embedding has many.
        let most_names = self.numbers.saturating_mul(CHARACTERS_PER_TOKEN).saturating_add(NAMES);
        let has_vectors = self.has_vectors || self.numbers > 0 && pieces <= most_names;
        if self.failed || has_vectors && self.reported.as_ref().is_some_and(has_no_output) {
            return 0;
        }
        // The repeated text of a failed call is the request or the incomplete output.
        let repeated = match self.reported {
            None if !self.ended_in_error => self.repeated.max(self.document.repeated()),
            _ => 0,
        };
        pieces.max(repeated).max(self.whole).saturating_add(self.raw.characters())
    }

    /// Returns the characters of all texts that have ended, without repeated ones.
    fn characters_so_far(&self) -> u64 {
        self.delivered.saturating_add(self.document.delivered())
    }

    /// Returns the characters that no report of output covers.
    pub(super) fn uncovered(&self) -> u64 {
        if self.reported.is_some_and(|(source, _)| source == Source::Headers) {
            return 0;
        }
        let covered = if self.document.tells_output { self.delivered() } else { self.covered };
        self.delivered().saturating_sub(covered)
    }

    /// Returns whether an event has the same effect as an earlier one with the same bytes.
    pub(super) fn repeats_effects(&self) -> bool {
        let depends_on_state = self.error_event || self.usage_event || self.has_whole_messages;
        !depends_on_state && !self.has_list_events && self.inside.is_none() && self.search.is_none()
    }

    pub(super) fn begin_trace(&mut self) {
        self.trace = Some(Trace::default());
    }

    pub(super) fn end_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    /// Records that the open event has more effects than its text.
    pub(super) fn trace_effect(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.effect();
        }
    }

    /// Records a problem if it is worse than the one before.
    pub(super) fn broken(&mut self, cause: Cause) {
        self.trace_effect();
        self.cause = self.cause.max(Some(cause));
    }

    /// Records a complete report. Within one document, the last report counts, as with any repeated key. A
    /// report in a later document is merged with the earlier ones, or added to them if each document has its
    /// own result. A zero never replaces another value.
    pub(super) fn take(&mut self, source: Source, tally: &Tally, covers: Covers) {
        if tally.is_empty() {
            return;
        }
        self.trace_effect();
        let is_less_certain = |earlier: Source| match self.document.is_doubtful {
            true => earlier < Source::Named,
            false => self.is_plain && earlier == Source::Headers && source != Source::Headers,
        };
        // A constant in place of usage is like a zero, next to counts from another place.
        let is_nothing =
            |one: &Tally, other: Source, mine: Source| one.is_zero() || mine != other && one.is_placeholder();
        let is_worse = |(earlier, known): (Source, Tally)| match (
            is_nothing(&known, source, earlier),
            is_nothing(tally, earlier, source),
        ) {
            (false, true) => true,
            (true, false) => false,
            // A sum is not less than one of its parts. If it is, a model may have written it.
            _ if matches!((earlier, source), SUM_AFTER_PART | PART_AFTER_SUM) => {
                tally.usage().total < known.usage().total
            }
            _ => earlier > source || is_less_certain(earlier),
        };
        if self.reported.is_some_and(is_worse) {
            // A less reliable report may be the only one that counts cache writes. They are a part of the input.
            self.written = self.written.max(tally.usage().cache_write);
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
                Covers::Several if self.list || self.is_next_in_event => merged.add(tally),
                _ => merged.merge(tally),
            }
        } else if let Some((_, earlier)) =
            self.before.filter(|_| tally.lacks_input() && self.doubtful.unwrap_or(0) == 0)
        {
            // Anthropic reports the input at the beginning, and the output at the end.
            merged = earlier;
            merged.merge(tally);
        }
        let doubtful = self.document.is_doubtful.then_some(self.member.doubtful);
        let earlier = self.doubtful.filter(|_| self.reported.is_some_and(|(earlier, _)| earlier == source));
        self.doubtful = match (doubtful, earlier) {
            (Some(one), Some(other)) if self.list => Some(one.saturating_add(other)),
            _ => doubtful.max(earlier),
        };
        self.reported = Some((source, merged));
        self.document.tells_output |= tally.tells_output();
    }
}
