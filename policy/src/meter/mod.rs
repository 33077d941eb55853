//! Response bytes → usage, whatever the format, the encoding and the chunking, in bounded memory.
//!
//! What arrives decides the format: the content type where it says something, else the first byte. Nothing is
//! buffered; each layer hands its pieces on. It judges no status and estimates nothing: it tells what was read.

mod dialect;
mod json;
mod report;
mod sse;
mod tally;

pub use report::Cause;

use json::Scanner;
use report::Report;
use sse::EventStream;

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

/// Reads one response.
#[derive(Debug, Default)]
pub struct Meter {
    framing: Framing,
    /// The content type says server-sent events.
    says_events: bool,
    scanner: Scanner,
    report: Report,
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
    /// Nothing that we read.
    Foreign,
}

impl Meter {
    /// A meter for the response with this head.
    pub fn new(head: &ResponseHead) -> Self {
        let media_type = head.content_type.split(';').next().unwrap_or_default().trim();
        Self { says_events: media_type.eq_ignore_ascii_case("text/event-stream"), ..Self::default() }
    }

    /// The next bytes of the body, as the upstream sent them.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.decoded(chunk);
    }

    /// The body is over: what has been read, with what only the end can tell.
    pub fn finish(&mut self) -> Reading {
        if self.scanner.is_open() {
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

    fn decoded(&mut self, bytes: &[u8]) {
        let bytes = match self.framing {
            Framing::Unknown => self.detect(bytes),
            _ => bytes,
        };
        match &mut self.framing {
            Framing::Documents => self.scanner.feed(bytes, &mut self.report),
            Framing::ServerSentEvents(events) => events.feed(bytes, &mut self.scanner, &mut self.report),
            Framing::Unknown | Framing::Foreign => {}
        }
    }

    /// Looks at the first byte that is no white space and no part of a byte order mark.
    fn detect<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf);
        let at = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
        let (_, bytes) = bytes.split_at(at);
        self.framing = match bytes.first() {
            None => Framing::Unknown,
            Some(b'{' | b'[') => Framing::Documents,
            Some(b'd' | b'e' | b'i' | b'r' | b':') => self.begin_events(),
            Some(_) if self.says_events => self.begin_events(),
            Some(_) => Framing::Foreign,
        };
        bytes
    }

    fn begin_events(&mut self) -> Framing {
        self.report.events = true;
        Framing::ServerSentEvents(EventStream::default())
    }
}
