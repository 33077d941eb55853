//! Determines the format of the decoded body and passes the bytes to the reader of that format.

use super::Scanner;
use super::cause::Cause;
use super::data_stream::{self, DataStream};
use super::decode::Sink;
use super::envelopes::Envelopes;
use super::frames::Frames;
use super::multipart::Multipart;
use super::pointed::{Found, Pointers};
use super::report::{Covers, Report, Source};
use super::search::ResponseSearch;
use super::sse::EventStream;
use super::stored::StoredAnswer;
use super::tally::{Tally, count};
use super::{MeterReading, ResponseHead, USAGE_HEADERS};
use crate::json::Reader;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Body {
    framing: Framing,
    content: Content,
    scanner: Scanner,
    report: Report,
}

/// The content types, and a header, that determine the format better than the first byte does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Content {
    #[default]
    Other,
    ServerSentEvents,
    Frames,
    Envelopes,
    DataStream,
    /// Each line is a document, and an event of a stream.
    Lines,
    Multipart,
}

/// How documents are arranged in the body.
#[derive(Debug, Default)]
enum Framing {
    /// Unknown, because only white space has arrived.
    #[default]
    Unknown,
    /// One document, several documents in a row, or an array of documents.
    Documents,
    ServerSentEvents(Box<EventStream>),
    Frames(Box<Frames>),
    Envelopes(Envelopes),
    DataStream(DataStream),
    Multipart(Multipart),
    /// A format that is not read.
    Foreign,
}

impl Body {
    pub(super) fn new(head: &ResponseHead) -> Self {
        let is_data_stream = head.usage_headers.iter().any(|(name, _)| name == data_stream::HEADER);
        let content = if is_data_stream { Content::DataStream } else { Content::of(&head.content_type) };
        let mut body = Self { content, ..Self::default() };
        body.report.failed = head.status >= 400;
        body.report.is_plain = content == Content::Other && is_plain_text(&head.content_type);
        body.report.raw.media_type = is_media(&head.content_type);
        body.headers(&head.usage_headers);
        body
    }

    pub(super) fn look_for(&mut self, pointers: Arc<Pointers>) {
        self.report.search = Some(ResponseSearch::values(pointers));
    }

    pub(super) fn look_for_stored(&mut self) {
        self.report.search = Some(ResponseSearch::of_stored());
    }

    pub(super) fn stored(&self) -> StoredAnswer {
        self.report.search.as_ref().map(ResponseSearch::stored).unwrap_or_default()
    }

    pub(super) fn found(&self) -> Found {
        self.report.search.as_ref().map(ResponseSearch::found).unwrap_or_default()
    }

    pub(super) fn broken(&mut self, cause: Cause) {
        self.report.broken(cause);
    }

    /// Handles bytes that cannot be decoded.
    pub(super) fn undecoded(&mut self, bytes: &[u8]) {
        self.report.raw.undecoded(bytes.len());
    }

    /// Handles the end of the body.
    pub(super) fn finish(&mut self) {
        let in_frame = match &self.framing {
            Framing::Frames(frames) => frames.is_open(),
            Framing::Envelopes(envelopes) => envelopes.is_open(),
            _ => false,
        };
        if in_frame || self.scanner.is_open() {
            self.report.broken(Cause::Truncated);
        }
    }

    /// Returns what has been read so far.
    pub(super) fn reading(&self) -> MeterReading {
        MeterReading {
            usage: self.report.usage(),
            only_total: self.report.tells_only_total(),
            other_unit: self.report.is_of_other_unit(),
            delivered: self.report.delivered(),
            uncovered: self.report.uncovered(),
            ended_in_error: self.report.ended_in_error,
            broken: self.report.cause,
            quoted: self.report.is_quoted(),
            doubtful: self.report.doubtful(),
            doubtful_total: self.report.doubtful_total(),
        }
    }

    /// Reads usage from the headers. Some providers report it there for calls that do not stream.
    fn headers(&mut self, headers: &[(String, String)]) {
        let mut tally = Tally::default();
        for (name, value) in headers {
            let Some(known) = USAGE_HEADERS.iter().find(|known| known.name == name) else { continue };
            match count(value.trim().as_bytes()) {
                Some(value) => tally.set(known.field, value),
                None => self.report.broken(Cause::Count),
            }
        }
        self.report.take(Source::Headers, &tally, Covers::One);
    }

    /// Examines the first byte after white space, a byte order mark, and the prefix `)]}',` of some servers. If
    /// it begins a JSON document, the body is read as JSON, whatever the content type is. Most such bodies are
    /// errors in place of a stream.
    fn detect<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let blank = |b: &u8| {
            matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf | b')' | b']' | b'}' | b'\'' | b',')
        };
        let at = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
        let (_, bytes) = bytes.split_at(at);
        self.framing = match (bytes.first(), self.content) {
            (None, _) => Framing::Unknown,
            (Some(b'{' | b'[' | b'"' | 0x1e), _) => Framing::Documents,
            (Some(_), Content::Envelopes) => Framing::Envelopes(Envelopes::default()),
            (Some(_), Content::DataStream) => Framing::DataStream(DataStream::default()),
            (Some(b'-'), Content::Multipart) => Framing::Multipart(Multipart::default()),
            // The first byte of a frame's length. It is zero for every frame below 16 MiB.
            (Some(0), _) | (_, Content::Frames) => Framing::Frames(Box::default()),
            (Some(b'd' | b'e' | b'i' | b'r' | b':'), _) | (_, Content::ServerSentEvents) => {
                Framing::ServerSentEvents(Box::default())
            }
            _ => Framing::Foreign,
        };
        // The parts of a multipart body may be separate responses.
        let is_of_documents = matches!(
            self.framing,
            Framing::Unknown | Framing::Documents | Framing::Multipart(_) | Framing::Foreign
        );
        self.report.events =
            !is_of_documents || self.content == Content::Lines && matches!(self.framing, Framing::Documents);
        bytes
    }
}

impl Sink for Body {
    fn take(&mut self, bytes: &[u8]) {
        let bytes = match self.framing {
            Framing::Unknown => self.detect(bytes),
            _ => bytes,
        };
        match &mut self.framing {
            Framing::Documents => self.scanner.feed(bytes, &mut self.report),
            Framing::ServerSentEvents(events) => events.feed(bytes, &mut self.scanner, &mut self.report),
            Framing::Frames(frames) => frames.feed(bytes, &mut self.scanner, &mut self.report),
            Framing::Envelopes(envelopes) => envelopes.feed(bytes, &mut self.scanner, &mut self.report),
            Framing::DataStream(lines) => lines.feed(bytes, &mut self.scanner, &mut self.report),
            Framing::Multipart(parts) => parts.feed(bytes, &mut self.scanner, &mut self.report),
            Framing::Foreign => self.report.unread(bytes),
            Framing::Unknown => {}
        }
    }
}

/// The content types of documents in lines.
const LINES: [&str; 7] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/stream+json",
];

fn is_media(content_type: &str) -> bool {
    let kind = content_type.split('/').next().unwrap_or_default().trim();
    ["audio", "image", "video"].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

fn is_plain_text(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("text/plain")
}

impl Content {
    pub(super) fn of(header: &str) -> Self {
        let media_type = header.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("text/event-stream") {
            Content::ServerSentEvents
        } else if media_type.eq_ignore_ascii_case("application/vnd.amazon.eventstream") {
            Content::Frames
        } else if media_type.eq_ignore_ascii_case("application/connect+json") {
            Content::Envelopes
        } else if LINES.iter().any(|lines| media_type.eq_ignore_ascii_case(lines)) {
            Content::Lines
        } else if media_type.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/")) {
            Content::Multipart
        } else {
            Content::Other
        }
    }
}
