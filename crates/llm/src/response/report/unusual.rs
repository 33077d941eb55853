//! Collects counts outside of reports of usage: in unlisted places, of several results or calls, and those
//! that a report does not include.

use super::{Covers, Report, Source};
use crate::json::Reader;
use crate::response::calls::AgentCalls;
use crate::response::media::MediaText;
use crate::response::place::Node;
use crate::response::quoted::QuotedText;
use crate::response::results::Results;
use crate::response::tally::{Field, Tally, count};

/// Counts outside of reports.
#[derive(Clone, Debug, Default)]
pub(super) struct Unusual {
    /// The counts of one sampling or tool in addition to the report, and whether the report includes them.
    pub(super) beside: Tally,
    pub(super) is_reported: bool,
    /// The sum of these counts in the open document, and in the last document that had any.
    pub(super) open_extra: Tally,
    pub(super) extra: Tally,
    /// The results of a stream with several results.
    pub(super) results: Results,
    pub(super) calls: AgentCalls,
    pub(super) quoted: QuotedText,
    pub(super) media: MediaText,
    /// A count with its name and its value in separate members.
    pub(super) pair: (Option<Field>, Option<u64>),
    /// Whether the value's name says that it counts tokens, and whether there is a name for the count.
    pub(super) pair_counts_tokens: bool,
    pub(super) pair_has_name: bool,
}

impl Report {
    /// Ends a message of an agent, or a chunk of one.
    pub(super) fn end_message(&mut self, is_chunk: bool) {
        self.trace_effect();
        let Some(unusual) = &mut self.unusual else { return };
        let tells_output = unusual.calls.end_message(is_chunk);
        self.document.tells_output |= tells_output;
        self.document.reports |= tells_output;
    }

    /// Ends a document that reports a call of its own.
    pub(super) fn end_call(&mut self, is_partial: bool) {
        if let Some((_, tally)) = self.reported.take_if(|_| self.document.reports) {
            self.unusual().calls.end_call(tally.usage(), is_partial);
        }
    }

    pub(super) fn unusual(&mut self) -> &mut Unusual {
        self.trace_effect();
        self.unusual.get_or_insert_default()
    }

    /// Adds usage that the report does not include.
    pub(super) fn take_beside(&mut self) {
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

    pub(super) fn take_pair(&mut self, node: Node) {
        self.trace_effect();
        let Some(unusual) = &mut self.unusual else { return };
        let is_total = std::mem::take(&mut unusual.pair_counts_tokens) && !unusual.pair_has_name;
        unusual.pair_has_name = false;
        let (field, value) = std::mem::take(&mut unusual.pair);
        if let (Some(field), Some(value)) = (field.or(is_total.then_some(Field::Total)), value) {
            match node {
                Node::Metrics => self.found.set(&mut self.member, field, value),
                Node::ListedCounts => self.found.add(&mut self.member, field, value),
                _ => self.open.set(field, value),
            }
        }
    }

    /// Ends the open document, after one that had counts in unusual places.
    #[cold]
    pub(super) fn take_unusual(&mut self) {
        let Some(unusual) = &mut self.unusual else { return };
        unusual.open_extra = Tally::default();
        unusual.calls.end_document();
        self.end_member();
        if self.doubtful_usage.is_in_call {
            self.doubtful_calls = self.doubtful_calls.max(self.member.doubtful);
        }
        if self.doubtful_usage.is_in_messages {
            self.doubtful_messages = self.doubtful_messages.max(self.member.doubtful);
        }
    }

    /// Takes the counts in unlisted places of the open document.
    #[cold]
    pub(super) fn take_found(&mut self) {
        let (all, level, is_doubtful) = self.found.end_document();
        if all.is_empty() {
            return;
        }
        if let Some(index) = self.document.index.filter(|_| self.document.is_of_result) {
            self.unusual().results.note(index.into(), all.usage());
        }
        self.end_member();
        self.named_level = level;
        if self.doubtful_usage.is_in_part {
            self.member.doubtful = self.characters_so_far();
        }
        if self.doubtful_usage.is_in_metadata {
            self.doubtful_metadata = self.doubtful_metadata.max(self.doubtful_usage.metadata);
        }
        self.document.is_doubtful = is_doubtful;
        self.take(Source::Named, &all, Covers::Several);
        self.document.is_doubtful = false;
    }

    /// Parses a count of tokens, which may be a string.
    pub(super) fn count_at(&mut self, node: Node, token: Option<&[u8]>) {
        self.set_count(node, token.and_then(|token| count(token.trim_ascii())));
    }

    pub(super) fn set_count(&mut self, node: Node, value: Option<u64>) {
        self.trace_effect();
        match (node, value) {
            (Node::Count(field), Some(value)) => self.open.set(field, value),
            (Node::Own(field), Some(value)) => self.own.set(field, value),
            (Node::Tokens, Some(value)) => self.open.set(Field::Total, value),
            (Node::Count(_) | Node::Own(_), None) => self.misplaced(node),
            (Node::FoundInList(field), Some(value)) => self.found.add(&mut self.member, field, value),
            (Node::MetadataPart(field), Some(value)) => self.found.add(&mut self.member, field, value),
            (Node::Found(field) | Node::Series(field) | Node::MetadataCount(field), Some(value)) => {
                self.found.set(&mut self.member, field, value);
            }
            (Node::Iteration(field) | Node::ToolCount(field), Some(value)) => {
                self.unusual().beside.set(field, value);
            }
            (Node::PairValue | Node::CountValue | Node::CacheCount, Some(value)) => {
                self.unusual().pair.1 = Some(value);
            }
            (Node::TokenValue, Some(value)) => {
                let unusual = self.unusual();
                unusual.pair.1 = Some(value);
                unusual.pair_counts_tokens = true;
            }
            _ => {}
        }
    }
}
