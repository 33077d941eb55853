//! Reads server-sent events. It finds the data of each event and passes it on in chunks without buffering it.
//! Events may have any size, lines may end in CR, LF or CRLF, and the last line may have no end.

use super::report::Report;
use super::template::Template;
use super::{Scanner, calls, names};
use crate::json::{LABEL, Reader};
use memchr::memchr2;

/// The maximum length of a relevant field name, and of an event name.
const NAME: usize = 8;
const EVENT: usize = 24;

#[derive(Clone, Debug, Default)]
pub(super) struct EventStream {
    state: LineState,
    name: [u8; EVENT],
    length: usize,
    /// Whether the last line ended in CR. A following LF then belongs to it.
    after_cr: bool,
    /// Whether the open event has data already.
    has_data: bool,
    /// The number of bytes of the current line's value that were skipped.
    passed: usize,
    /// Whether anything but comments and blank lines has arrived.
    has_content: bool,
    /// An event to compare others with.
    template: Template,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LineState {
    /// At the beginning of a line, or in its field name.
    #[default]
    Name,
    /// After the colon. One space does not belong to the value.
    Data,
    Event,
    /// In a value.
    InData,
    InEvent,
    /// In a comment. Clients skip comments, so nothing in one was delivered, however long it is.
    Comment,
    /// In the value of an irrelevant field.
    Ignored,
    /// In a line that is not a field.
    Stray,
    /// In a document that follows comments. Some gateways send them to keep a connection open.
    Documents,
}

impl EventStream {
    pub(super) fn feed(&mut self, mut bytes: &[u8], scanner: &mut Scanner, to: &mut Report) {
        if self.after_cr
            && let Some((first, rest)) = bytes.split_first()
        {
            self.after_cr = false;
            if *first == b'\n' {
                bytes = rest;
            }
        }
        while !bytes.is_empty() {
            if self.is_between_events() && to.repeats_effects() {
                bytes = self.template.read(bytes, to);
                if bytes.is_empty() {
                    return;
                }
                if self.template.may_learn() {
                    to.begin_trace();
                }
            }
            let rest = self.event(bytes, scanner, to);
            if let Some(trace) = to.end_trace().filter(|_| self.is_between_events()) {
                let length = bytes.len().saturating_sub(rest.len());
                self.template.learn(bytes.get(..length).unwrap_or_default(), trace);
            }
            bytes = rest;
        }
    }

    /// Returns whether the next byte begins a line outside of all events.
    fn is_between_events(&self) -> bool {
        self.state == LineState::Name && self.length == 0 && !self.has_data && !self.after_cr
    }

    /// Reads up to the next blank line. Returns the bytes after it.
    fn event<'a>(&mut self, mut bytes: &'a [u8], scanner: &mut Scanner, to: &mut Report) -> &'a [u8] {
        let mut is_blank = false;
        while !bytes.is_empty() && !is_blank {
            if self.state == LineState::Documents {
                scanner.feed(bytes, to);
                return &[];
            }
            if let [b'\n', rest @ ..] = bytes {
                is_blank = self.end_of_line(scanner, to);
                bytes = rest;
                continue;
            }
            if !self.has_content && self.begins_document(bytes) {
                to.events = false;
                self.state = LineState::Documents;
                continue;
            }
            let end = memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
            let (line, rest) = bytes.split_at(end);
            self.line(line, scanner, to);
            bytes = match rest {
                [] => return rest,
                [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
                [_, rest @ ..] => {
                    self.after_cr = rest.is_empty();
                    rest
                }
            };
            is_blank = self.end_of_line(scanner, to);
        }
        bytes
    }

    fn begins_document(&self, bytes: &[u8]) -> bool {
        self.state == LineState::Name && self.length == 0 && matches!(bytes.first(), Some(b'{' | b'['))
    }

    /// Reads a part of a line.
    fn line(&mut self, mut piece: &[u8], scanner: &mut Scanner, to: &mut Report) {
        if self.state == LineState::Name {
            match piece {
                [b'd', b'a', b't', b'a', b':', rest @ ..] if self.length == 0 => {
                    self.begin_data(scanner, to);
                    piece = rest;
                }
                _ => piece = self.name(piece, scanner, to),
            }
        }
        if piece.is_empty() {
            return;
        }
        match self.state {
            LineState::Data | LineState::Event => {
                self.state =
                    if self.state == LineState::Data { LineState::InData } else { LineState::InEvent };
                let piece = piece.strip_prefix(b" ").unwrap_or(piece);
                self.value(piece, scanner, to);
            }
            _ => self.value(piece, scanner, to),
        }
    }

    /// Reads the field name. Returns the rest after its colon.
    fn name<'a>(&mut self, piece: &'a [u8], scanner: &mut Scanner, to: &mut Report) -> &'a [u8] {
        let end = piece.iter().position(|b| *b == b':').unwrap_or(piece.len());
        let (name, rest) = piece.split_at(end);
        if self.length.saturating_add(name.len()) > NAME {
            self.stray(to);
            return piece;
        }
        self.push(name);
        let Some((_, value)) = rest.split_first() else { return rest };
        match self.name.get(..self.length) {
            Some(b"data") => self.begin_data(scanner, to),
            Some(b"event") => {
                self.has_content = true;
                self.state = LineState::Event;
            }
            Some(b"") => self.state = LineState::Comment,
            Some(b"id" | b"retry") => self.state = LineState::Ignored,
            _ => {
                self.stray(to);
                return rest;
            }
        }
        self.length = 0;
        value
    }

    /// Handles a line that is not a field and may be text.
    fn stray(&mut self, to: &mut Report) {
        to.unread(self.name.get(..self.length).unwrap_or_default());
        self.length = 0;
        self.has_content = true;
        self.state = LineState::Stray;
    }

    fn push(&mut self, piece: &[u8]) {
        let end = self.length.saturating_add(piece.len());
        match self.name.get_mut(self.length..end) {
            Some(room) => {
                room.copy_from_slice(piece);
                self.length = end;
            }
            None => self.length = EVENT + 1,
        }
    }

    fn begin_data(&mut self, scanner: &mut Scanner, to: &mut Report) {
        self.state = LineState::Data;
        self.has_content = true;
        if self.has_data {
            scanner.feed(b"\n", to);
        }
        self.has_data = true;
    }

    fn value(&mut self, piece: &[u8], scanner: &mut Scanner, to: &mut Report) {
        match self.state {
            LineState::InData => scanner.feed(piece, to),
            LineState::Stray => to.unread(piece),
            LineState::Comment => {}
            LineState::InEvent => {
                self.push(piece);
                self.pass(piece, to);
            }
            _ => self.pass(piece, to),
        }
    }

    /// Skips a piece of a value. Bytes beyond the length of a label are reported as unread, because they may
    /// be text.
    fn pass(&mut self, piece: &[u8], to: &mut Report) {
        to.unread(piece.get(LABEL.saturating_sub(self.passed)..).unwrap_or_default());
        self.passed = self.passed.saturating_add(piece.len());
    }

    /// Ends the line. Returns whether it was blank.
    fn end_of_line(&mut self, scanner: &mut Scanner, to: &mut Report) -> bool {
        let blank = self.state == LineState::Name && self.length == 0;
        if blank && self.has_data {
            self.has_data = false;
            scanner.end(to);
            to.end_event();
        }
        if self.state == LineState::InEvent {
            let name = self.name.get(..self.length).unwrap_or_default();
            if name == b"error" {
                to.trace_effect();
                to.ended_in_error = true;
                to.error_event = true;
            }
            to.usage_event = names::is_named_usage(name) || names::is_statistics(name);
            to.has_whole_messages = calls::has_whole_messages(name);
        }
        if self.state == LineState::Name
            && !matches!(self.name.get(..self.length), Some(b"" | b"data" | b"event" | b"id"))
        {
            self.stray(to);
        }
        self.state = LineState::Name;
        self.length = 0;
        self.passed = 0;
        blank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the first event, and returns how many bytes of the second one are compared with it instead of parsed.
    fn compared(first: &str, second: &str) -> usize {
        let mut report = Report::default();
        report.events = true;
        let mut stream = EventStream::default();
        stream.feed(first.as_bytes(), &mut Scanner::default(), &mut report);
        second.len() - stream.template.read(second.as_bytes(), &mut report).len()
    }

    #[test]
    fn a_document_may_follow_comments_but_not_text() {
        let document = "{\"usage\": {\"prompt_tokens\": 5, \"completion_tokens\": 6}}";
        let total = |body: &str| {
            let (mut report, mut stream) = (Report::default(), EventStream::default());
            report.events = true;
            let mut scanner = Scanner::default();
            body.as_bytes().chunks(1).for_each(|byte| stream.feed(byte, &mut scanner, &mut report));
            report.usage().map(|usage| usage.total)
        };
        assert_eq!(total(&format!(": wait\n\n: wait\r\n\r\n{document}")), Some(11));
        for before in ["it is:\n", "data: it is\n\n", "event: answer\n", "retried\n\n"] {
            assert_eq!(total(&format!("{before}{document}")), None, "{before}");
        }
    }

    #[test]
    fn an_event_that_differs_in_its_text_is_not_parsed() {
        let event = |number: u32, id: &str, text: &str| {
            format!(
                "event: e\ndata: {{\"n\":{number},\"id\":\"{id}\",\"delta\":{{\"text\":\"{text}\"}},\"index\":0}}\n\n"
            )
        };
        let first = event(9, "a", "weir");
        for same in [
            event(9, "a", ""),
            event(9, "a", "\\\"a\\\" text of more than thirty-two bytes, naïve \\u6c34"),
            event(10, "bc", "x"),
        ] {
            assert_eq!(compared(&first, &same), same.len(), "{same}");
            assert_eq!(compared(&first, &same.repeat(3)), 3 * same.len(), "{same}");
        }
        for other in [
            event(9, "a", "\\u00"),
            event(9, "a", "a\nb"),
            event(9, "a\rb", "x"),
            event(9, &"i".repeat(LABEL + 1), "x"),
            first.replace("\"index\":0", "\"index\":1"),
            first.replace("event: e", "event: error"),
            first.replace("{\"text\"", "{\"usage\""),
            first.trim_end().to_owned(),
            first.replace("9", "9.5"),
        ] {
            assert_eq!(compared(&first, &other), 0, "{other}");
        }
    }

    #[test]
    fn an_event_that_does_more_than_add_text_is_parsed() {
        for event in [
            "data: {\"text\":\"weir\",\"usage\":{\"prompt_tokens\":5}}\n\n",
            "data: {\"text\":\"weir\",\"stats\":{\"prompt_tokens\":5}}\n\n",
            "data: {\"text\":\"weir\",\"prompt_eval_count\":5}\n\n",
            "data: {\"text\":\"weir\",\"error\":\"No.\"}\n\n",
            "data: {\"text\":\"weir\"} {\"text\":\"weir\"}\n\n",
            "event: error\ndata: {\"text\":\"weir\"}\n\n",
            "data: [{\"text\":\"weir\"}]\n\n",
            "data: {\"text\":\"weir\n\n",
            "data: \"weir\"\n\n",
            "data: {\"type\":\"ping\"}\n\n",
            "weir\n\n",
        ] {
            assert_eq!(compared(event, event), 0, "{event}");
        }
    }
}
