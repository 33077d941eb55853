//! Response bytes → usage, whatever the format, the encoding and the chunking, in bounded memory.
//!
//! What arrives decides the format: the content type where it says something, else the first byte. Nothing is
//! buffered; each layer hands its pieces on. It judges no status and estimates nothing: it tells what was read.

mod base64;
mod body;
pub(crate) mod decode;
mod dialect;
mod frames;
mod labels;
mod pointed;
mod raw;
mod report;
mod sse;
mod tally;

pub use pointed::{COUNTS, mistake as pointer_mistake};
pub use pointed::{Found, Pointers, UsagePointers};
pub use report::Cause;
pub use tally::count;

use crate::memory::MemoryBudget;
use body::{Body, Content};
use decode::{Budget, Decoder, Encoding, sniff};
use std::sync::Arc;

type Scanner = crate::json::Scanner<dialect::Node>;

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
    /// Other headers that carry usage (`x-amzn-bedrock-*-token-count`) or that a `cost` names, lower-case names.
    pub usage_headers: Vec<(String, String)>,
}

/// The headers that carry usage: Bedrock's `InvokeModel` tells it there. All four come together, or the first two.
pub const USAGE_HEADERS: [&str; 4] = [
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-output-token-count",
    "x-amzn-bedrock-cache-read-input-token-count",
    "x-amzn-bedrock-cache-write-input-token-count",
];

/// The longest content type or encoding that is kept, in bytes.
const LONGEST_TYPE: usize = 256;

impl ResponseHead {
    /// From the headers, each looked up by its lower-case name. `further`: those that are wanted beside ours.
    pub fn from_headers(
        status: u16,
        further: &[String],
        mut header: impl FnMut(&str) -> Option<String>,
    ) -> Self {
        let content_type = header("content-type").unwrap_or_default();
        let content_encoding = header("content-encoding").unwrap_or_default();
        let mut usage_headers = Vec::new();
        for (index, name) in USAGE_HEADERS.into_iter().enumerate() {
            // Nearly all responses have none, and are not asked further.
            if index < 2 || !usage_headers.is_empty() {
                usage_headers.extend(header(name).map(|value| (name.to_owned(), value)));
            }
        }
        for name in further {
            usage_headers.extend(header(name).map(|value| (name.clone(), value)));
        }
        Self { status, content_type, content_encoding, usage_headers }
    }

    /// How many bytes it takes, beside its own place.
    pub fn size(&self) -> usize {
        let headers = self.usage_headers.iter().map(|(name, value)| {
            size_of::<(String, String)>().saturating_add(name.len()).saturating_add(value.len())
        });
        let types = [self.content_type.len(), self.content_encoding.len()];
        headers.chain(types).fold(0, usize::saturating_add)
    }

    /// Forgets what is too long to be a content type or an encoding.
    pub fn shorten(&mut self) {
        for text in [&mut self.content_type, &mut self.content_encoding] {
            if text.len() <= LONGEST_TYPE {
                continue;
            }
            let end = (0..=LONGEST_TYPE).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or_default());
            text.shrink_to_fit();
        }
    }

    /// Whether the body is a stream of server-sent events.
    pub fn is_event_stream(&self) -> bool {
        Content::of(&self.content_type) == Content::ServerSentEvents
    }

    /// Whether a WebSocket or another protocol goes on from here: what follows is not read, and has no end of its own.
    pub fn switches_protocols(&self) -> bool {
        self.status == 101
    }

    /// Whether it tells of success.
    pub fn is_success(&self) -> bool {
        self.switches_protocols() || (200..300).contains(&self.status)
    }

    /// Whether the body is compressed.
    pub fn is_encoded(&self) -> bool {
        Encoding::of(&self.content_encoding) != Ok(Encoding::Identity)
    }
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
    /// The worst thing that was wrong with the body.
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
#[derive(Debug)]
pub struct Meter {
    /// What `content-encoding` says.
    label: Result<Encoding, Cause>,
    /// The first bytes, as long as they are too few to judge it.
    head: [u8; sniff::HEAD],
    length: usize,
    decoder: Option<Decoder>,
    memory: MemoryBudget,
    budget: Budget,
    body: Body,
}

impl Meter {
    /// What one takes, in bytes, without its decoder: its own place and the little that it keeps.
    pub const SIZE: usize = size_of::<Self>() + (4 << 10);

    /// A meter for the response with this head, with as much memory as its decoder may ever want.
    pub fn new(head: &ResponseHead) -> Self {
        Self::within(head, &MemoryBudget::default())
    }

    /// A meter for the response with this head. Its decoder asks for memory before it allocates any; if it is refused,
    /// the rest of the body goes unread, and counts by its bytes.
    pub fn within(head: &ResponseHead, memory: &MemoryBudget) -> Self {
        Self {
            label: Encoding::of(&head.content_encoding),
            head: [0; sniff::HEAD],
            length: 0,
            decoder: None,
            memory: memory.clone(),
            budget: Budget::default(),
            body: Body::new(head),
        }
    }

    /// One that looks for single values instead.
    pub fn looking_for(pointers: &Arc<Pointers>, head: &ResponseHead, memory: &MemoryBudget) -> Self {
        let mut meter = Self::within(head, memory);
        meter.body.look_for(Arc::clone(pointers));
        meter
    }

    /// What it has found of them.
    pub fn found(&mut self) -> Found {
        self.finish();
        self.body.found()
    }

    /// The next bytes of the body, as the upstream sent them.
    pub fn feed(&mut self, chunk: &[u8]) {
        if self.decoder.is_some() {
            return self.decode(chunk);
        }
        let begun = chunk.get(..sniff::HEAD).unwrap_or(chunk);
        if self.length == 0 && sniff::is_enough(self.label, begun) {
            self.begin(begun);
            return self.decode(chunk);
        }
        let free = self.head.get_mut(self.length..).unwrap_or_default();
        let (first, rest) = chunk.split_at(chunk.len().min(free.len()));
        free.iter_mut().zip(first).for_each(|(place, byte)| *place = *byte);
        self.length = self.length.saturating_add(first.len());
        if self.length == sniff::HEAD {
            self.begin_with_head();
            self.decode(rest);
        }
    }

    /// The body is over: what has been read, with what only the end can tell.
    pub fn finish(&mut self) -> Reading {
        if self.decoder.is_none() {
            self.begin_with_head();
        }
        if let Some(Err(cause)) = self.decoder.as_mut().map(|decoder| decoder.finish(&self.budget)) {
            self.body.broken(cause);
        }
        self.body.finish();
        self.body.reading()
    }

    /// What has been read so far. A decoder may hold something back until the end.
    pub fn reading(&self) -> Reading {
        self.body.reading()
    }

    /// Decides how the body is encoded that begins like this.
    fn begin(&mut self, begun: &[u8]) {
        let encoding =
            if begun.is_empty() { Ok(Encoding::Identity) } else { sniff::encoding(self.label, begun) };
        if !begun.is_empty() && encoding != self.label {
            self.body.broken(Cause::Mislabeled);
        }
        let decoder = encoding.and_then(|encoding| Decoder::of(encoding, &self.memory));
        self.decoder = Some(decoder.unwrap_or_else(|cause| {
            self.body.broken(cause);
            Decoder::Over
        }));
    }

    fn begin_with_head(&mut self) {
        let head = self.head;
        let begun = head.get(..self.length).unwrap_or_default();
        self.begin(begun);
        self.decode(begun);
    }

    fn decode(&mut self, bytes: &[u8]) {
        let Some(decoder) = &mut self.decoder else { return };
        if matches!(decoder, Decoder::Over) {
            return self.body.undecoded(bytes);
        }
        if let Err(cause) = decoder.feed(bytes, &mut self.budget, &mut self.body) {
            self.body.broken(cause);
            // How much of it was read before cannot be told.
            self.body.undecoded(bytes);
        }
    }
}
