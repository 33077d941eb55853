//! Recognises events that equal an earlier one in all but their text. Most events of a stream do. Reading one of
//! them takes a few comparisons instead of a walk through the document.
//!
//! While an event is read, a [`Trace`] records where its values are. If the event has only added text, it becomes
//! the template. An event that has the same bytes around its text has the same effect, apart from the amount of
//! text. Skipped values, such as an id or a number of the event, may differ as well.

use super::document::Document;
use super::place::Node;
use super::report::Report;
use crate::json::{LABEL, counted_string, skipped_string};
use crate::words::is_same;
use memchr::memchr2;

/// The longest event that is kept, in bytes.
const MAX_EVENT: usize = 1024;
/// The largest number of values in it that may differ.
const MAX_VALUES: usize = 24;
/// The largest number of values that do differ.
const MAX_HOLES: usize = 6;
/// After so many useless attempts to find a template, the pauses between the attempts do not become longer.
const MAX_FAILURES: u8 = 9;

#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    /// The event, from its first line to its blank line.
    event: Vec<u8>,
    /// The values that differ between events, in their order.
    holes: Vec<EventValue>,
    /// The values that may differ and have not done so yet.
    skipped: Vec<EventValue>,
    /// The document at the end of the event, without its text.
    document: Document,
    /// The number of attempts to find a template since an event has matched.
    failures: u8,
    /// The number of events until the next attempt.
    pause: u16,
}

/// A value and its position in the event.
#[derive(Clone, Copy, Debug)]
struct EventValue {
    begin: usize,
    end: usize,
    kind: ValueKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueKind {
    /// Text that only counts by its length.
    Text(Node),
    /// A string or a number without a meaning.
    String,
    Number,
}

impl Template {
    /// Reads events that match the template. Returns the bytes after them.
    pub(super) fn read<'a>(&mut self, mut bytes: &'a [u8], to: &mut Report) -> &'a [u8] {
        while !self.holes.is_empty() {
            let mut weights = [0; MAX_HOLES];
            match self.matching(bytes, &mut weights) {
                Ok(rest) => {
                    if to.text_so_far.is_open() {
                        self.compare(bytes, to);
                    }
                    let texts = self.holes.iter().zip(weights).filter_map(|(hole, weight)| match hole.kind {
                        ValueKind::Text(node) => Some((node, weight)),
                        ValueKind::String | ValueKind::Number => None,
                    });
                    to.repeat_document(self.document, texts);
                    self.failures = 0;
                    bytes = rest;
                }
                Err(at) if self.open_hole(at) => {}
                Err(_) => break,
            }
        }
        bytes
    }

    /// Compares the beginning of `bytes` with the event, and determines the weight of each hole's text. Returns the
    /// bytes after the event, or the position of the first difference in the template.
    fn matching<'a>(
        &self,
        bytes: &'a [u8],
        weights: &mut [u64; MAX_HOLES],
    ) -> Result<&'a [u8], Option<usize>> {
        let (mut rest, mut position) = (bytes, 0);
        for (hole, weight) in self.holes.iter().zip(weights) {
            rest = self.after_literal(rest, position, hole.begin)?;
            let (added, end) = hole.kind.measure(rest).ok_or(None)?;
            *weight = added;
            rest = rest.get(end..).unwrap_or_default();
            position = hole.end;
        }
        self.after_literal(rest, position, self.event.len())
    }

    /// Compares the texts of an event that matches with those of the event before it.
    #[cold]
    fn compare(&self, bytes: &[u8], to: &mut Report) {
        let (mut rest, mut position) = (bytes, 0);
        for hole in &self.holes {
            rest = rest.get(hole.begin.saturating_sub(position)..).unwrap_or_default();
            let Some((weight, end)) = hole.kind.measure(rest) else { return };
            let (text, after) = rest.split_at(end.min(rest.len()));
            if let ValueKind::Text(node) = hole.kind {
                to.compare_escaped(node, text, weight);
            }
            (rest, position) = (after, hole.end);
        }
    }

    /// Returns the bytes after a part of the event, or the position of the first difference.
    #[inline]
    fn after_literal<'a>(
        &self,
        bytes: &'a [u8],
        begin: usize,
        end: usize,
    ) -> Result<&'a [u8], Option<usize>> {
        let literal = self.event.get(begin..end).unwrap_or_default();
        match bytes.split_at_checked(literal.len()) {
            Some((same, rest)) if is_same(same, literal) => Ok(rest),
            _ => {
                let same = literal.iter().zip(bytes).take_while(|(one, other)| one == other).count();
                Err((same < bytes.len()).then(|| begin.saturating_add(same)))
            }
        }
    }

    /// Makes the skipped value at this position a hole. Returns whether there is one.
    #[cold]
    fn open_hole(&mut self, at: Option<usize>) -> bool {
        let Some(at) = at.filter(|_| self.holes.len() < MAX_HOLES) else { return false };
        let Some(index) = self.skipped.iter().position(|value| (value.begin..=value.end).contains(&at))
        else {
            return false;
        };
        let value = self.skipped.remove(index);
        let place = self.holes.partition_point(|hole| hole.begin < value.begin);
        self.holes.insert(place, value);
        true
    }

    /// Returns whether the next event may become the template. Every event may at first. If no event matches, the
    /// attempts become rarer, up to one in 65 events.
    pub(super) fn may_learn(&mut self) -> bool {
        let may_learn = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        may_learn
    }

    /// Makes an event the template if it has only added text.
    pub(super) fn learn(&mut self, event: &[u8], trace: Trace) {
        self.pause = (1 << self.failures) >> 3;
        self.failures = self.failures.saturating_add(1).min(MAX_FAILURES);
        let (Some(document), false) = (trace.document, trace.has_effects) else { return };
        let Some(values) = trace.values_in(event) else { return };
        let (holes, skipped): (Vec<_>, Vec<_>) =
            values.into_iter().partition(|value| matches!(value.kind, ValueKind::Text(_)));
        if event.len() <= MAX_EVENT && (1..=MAX_HOLES).contains(&holes.len()) {
            self.event = event.to_vec();
            (self.holes, self.skipped) = (holes, skipped);
            self.document = document.without_text();
        }
    }
}

impl ValueKind {
    /// Returns the weight and length of the value at the beginning of `bytes`, unless it is incomplete or the line
    /// ends in it.
    #[inline]
    fn measure(self, bytes: &[u8]) -> Option<(u64, usize)> {
        let (weight, end) = match self {
            ValueKind::Text(_) => counted_string(bytes)?,
            ValueKind::String => (0, skipped_string(bytes).filter(|end| *end <= LABEL)?),
            ValueKind::Number => return digits(bytes).map(|end| (0, end)),
        };
        memchr2(b'\n', b'\r', bytes.get(..end)?).is_none().then_some((weight, end))
    }
}

/// Returns the number of digits at the beginning.
fn digits(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    (end > 0).then_some(end)
}

/// What happens while an event is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// The address, length and kind of each value that may differ.
    values: Vec<(usize, usize, ValueKind)>,
    /// The document at its end.
    document: Option<Document>,
    /// Whether anything else than text was found.
    has_effects: bool,
}

impl Trace {
    pub(super) fn text(&mut self, node: Node, text: &[u8]) {
        self.value(text, ValueKind::Text(node));
    }

    /// Records a string or another value that was skipped.
    pub(super) fn skipped(&mut self, value: &[u8], is_string: bool) {
        if is_string {
            self.value(value, ValueKind::String);
        } else if value.iter().all(u8::is_ascii_digit) {
            self.value(value, ValueKind::Number);
        }
    }

    fn value(&mut self, value: &[u8], kind: ValueKind) {
        if self.values.len() < MAX_VALUES {
            self.values.push((value.as_ptr().addr(), value.len(), kind));
        } else {
            self.has_effects = true;
        }
    }

    /// Returns the positions of the values, if all of them are in this event.
    fn values_in(&self, event: &[u8]) -> Option<Vec<EventValue>> {
        let position = |(address, length, kind): &(usize, usize, ValueKind)| {
            let begin = address.checked_sub(event.as_ptr().addr())?;
            let end = begin.checked_add(*length).filter(|end| *end < event.len())?;
            Some(EventValue { begin, end, kind: *kind })
        };
        self.values.iter().map(position).collect()
    }

    /// Records that more than text was found.
    pub(super) fn effect(&mut self) {
        self.has_effects = true;
    }

    /// Records the only document of the event.
    pub(super) fn end_document(&mut self, document: &Document) {
        self.has_effects |= self.document.is_some() || document.has_effects();
        self.document = Some(*document);
    }
}
