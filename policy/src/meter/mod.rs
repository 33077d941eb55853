//! Response bytes → usage, whatever the format, the encoding and the chunking, in bounded memory.
//!
//! What arrives decides the format: the content type where it says something, else the first byte. Nothing is
//! buffered; each layer hands its pieces on. It judges no status and estimates nothing: it tells what was read.

mod base64;
mod dialect;
mod frames;
mod json;
mod report;
mod sse;
mod tally;

pub use report::Cause;

use frames::Frames;
use json::Scanner;
use report::{Report, Source};
use sse::EventStream;
use tally::{Field, Tally, count};

/// What a provider reported, normalised: `input` and `output` include cached and reasoning tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Completion tokens, reasoning included.
    pub output: u64,
    /// `input + output`, or what the provider says the total is, if that is more.
    pub total: u64,
    /// Of `input`: read from a cache.
    pub cached: u64,
    /// Of `output`: reasoning.
    pub reasoning: u64,
}

/// What the meter needs to know of the response before its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// `content-type`, as it came.
    pub content_type: String,
    /// `content-encoding`, as it came.
    pub content_encoding: String,
    /// Other headers that carry usage (`x-amzn-bedrock-*-token-count`), lower-case names.
    pub usage_headers: Vec<(String, String)>,
}

/// What was read, at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The last usage that was reported. All zero: the call is metered in a unit that is not tokens.
    pub usage: Option<Usage>,
    /// Characters of generated text that were delivered, reasoning and tool calls included.
    pub delivered: u64,
    /// Of `delivered`: what came after the last report of output. Where a stream is cut, this is not in `usage`.
    pub uncovered: u64,
    /// The provider said in the body that the call failed, whatever the status.
    pub ended_in_error: bool,
    /// The first thing that was wrong with the body.
    pub broken: Option<Cause>,
}

/// How many characters of text make a token, where nobody counted.
pub const CHARACTERS_PER_TOKEN: u64 = 4;

impl Reading {
    /// What was used if the body was cut, by either side or by an error: what was reported until then, and for the
    /// text after it an estimate. Anthropic's streams begin with a report that knows one token of output.
    pub fn usage_if_cut(&self) -> Option<Usage> {
        let more = self.uncovered.div_ceil(CHARACTERS_PER_TOKEN);
        let add = |usage: Usage| Usage {
            output: usage.output.saturating_add(more),
            total: usage.total.saturating_add(more),
            ..usage
        };
        self.usage.map(add)
    }
}

/// Reads one response.
#[derive(Debug, Default)]
pub struct Meter {
    framing: Framing,
    content: Content,
    scanner: Scanner,
    report: Report,
}

/// What the content type says, where that decides more than the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    Other,
    ServerSentEvents,
    Frames,
}

/// How documents are packed into the body.
#[derive(Debug, Default)]
enum Framing {
    /// Not known yet: nothing but white space has come.
    #[default]
    Unknown,
    /// One document, or several in a row or in an array.
    Documents,
    ServerSentEvents(EventStream),
    Frames(Frames),
    /// Nothing that we read.
    Foreign,
}

impl Meter {
    /// A meter for the response with this head.
    pub fn new(head: &ResponseHead) -> Self {
        let mut meter = Self { content: Content::of(&head.content_type), ..Self::default() };
        meter.headers(&head.usage_headers);
        meter
    }

    /// The next bytes of the body, as the upstream sent them.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.decoded(chunk);
    }

    /// The body is over: what has been read, with what only the end can tell.
    pub fn finish(&mut self) -> Reading {
        let in_frame = matches!(&self.framing, Framing::Frames(frames) if frames.is_open());
        if in_frame || self.scanner.is_open() {
            self.report.broken(Cause::Truncated);
        }
        self.reading()
    }

    /// What has been read so far.
    pub fn reading(&self) -> Reading {
        Reading {
            usage: self.report.usage(),
            delivered: self.report.delivered(),
            uncovered: self.report.uncovered(),
            ended_in_error: self.report.ended_in_error,
            broken: self.report.cause,
        }
    }

    /// Bedrock tells the usage of a call that does not stream in headers; its input excludes caches.
    fn headers(&mut self, headers: &[(String, String)]) {
        let mut tally = Tally::default();
        for (name, value) in headers {
            let field =
                match name.strip_prefix("x-amzn-bedrock-").and_then(|n| n.strip_suffix("-token-count")) {
                    Some("input") => Field::FreshInput,
                    Some("output") => Field::Output,
                    Some("cache-read-input") => Field::CacheRead,
                    Some("cache-write-input") => Field::CacheWrite,
                    _ => continue,
                };
            match count(value.trim().as_bytes()) {
                Some(value) => tally.set(field, value),
                None => self.report.broken(Cause::Count),
            }
        }
        self.report.take(Source::Headers, &tally);
    }

    fn decoded(&mut self, bytes: &[u8]) {
        let bytes = match self.framing {
            Framing::Unknown => self.detect(bytes),
            _ => bytes,
        };
        match &mut self.framing {
            Framing::Documents => self.scanner.feed(bytes, &mut self.report),
            Framing::ServerSentEvents(events) => events.feed(bytes, &mut self.scanner, &mut self.report),
            Framing::Frames(frames) => frames.feed(bytes, &mut self.scanner, &mut self.report),
            Framing::Unknown | Framing::Foreign => {}
        }
    }

    /// Looks at the first byte that is no white space and no part of a byte order mark. Where it begins a JSON
    /// document that is what follows, whatever the content type: an error on a stream, mostly.
    fn detect<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf);
        let at = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
        let (_, bytes) = bytes.split_at(at);
        self.framing = match (bytes.first(), self.content) {
            (None, _) => Framing::Unknown,
            (Some(b'{' | b'['), _) => Framing::Documents,
            // The first byte of a frame's length, which would have to be 16 MB to be anything else.
            (Some(0), _) | (_, Content::Frames) => Framing::Frames(Frames::default()),
            (Some(b'd' | b'e' | b'i' | b'r' | b':'), _) | (_, Content::ServerSentEvents) => {
                Framing::ServerSentEvents(EventStream::default())
            }
            _ => Framing::Foreign,
        };
        self.report.events = matches!(self.framing, Framing::ServerSentEvents(_) | Framing::Frames(_));
        self.report.unpacks = matches!(self.framing, Framing::Frames(_));
        bytes
    }
}

impl Content {
    fn of(header: &str) -> Self {
        let media_type = header.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("text/event-stream") {
            Content::ServerSentEvents
        } else if media_type.eq_ignore_ascii_case("application/vnd.amazon.eventstream") {
            Content::Frames
        } else {
            Content::Other
        }
    }
}
