//! Response bytes → usage, whatever the format, the encoding and the chunking, in bounded memory.
//!
//! What arrives decides the format: the content type where it says something, else the first byte. Nothing is
//! buffered; each layer hands its pieces on. It judges no status and estimates nothing: it tells what was read.

mod base64;
mod body;
pub(crate) mod decode;
mod document;
mod frames;
mod names;
pub(crate) mod place;
mod pointed;
mod raw;
mod report;
mod results;
mod sse;
mod stored;
mod tally;

pub(crate) use base64::Base64;
pub use pointed::{COUNTS, mistake as pointer_mistake};
pub use pointed::{Found, Pointers, UsagePointers};
pub use report::Cause;
pub use stored::StoredAnswer;
pub(crate) use tally::Field;
pub use tally::count;

use crate::memory::MemoryBudget;
use crate::providers::{UsageHeader, all};
use body::{Body, Content};
use decode::{Encoding, Layers};
use std::sync::Arc;

type Scanner = crate::json::Scanner<place::Node>;

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
    /// Of `input`: written to a cache.
    pub cache_write: u64,
    /// Of `cache_write`: with the longer of two lifetimes.
    pub cache_write_1h: u64,
    /// Of `output`: reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// What both used.
    fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            total: self.total.saturating_add(other.total),
            cached: self.cached.saturating_add(other.cached),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }
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

static USAGE_HEADERS: &[UsageHeader] =
    all!(UsageHeader, headers, UsageHeader { name: "", field: Field::Total, is_first: false });

/// The longest content type or encoding that is kept, in bytes.
const MAX_TYPE: usize = 256;

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
        for UsageHeader { name, is_first, .. } in USAGE_HEADERS {
            // Nearly all responses have none, and are not asked further.
            if *is_first || !usage_headers.is_empty() {
                usage_headers.extend(header(name).map(|value| ((*name).to_owned(), value)));
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
            if text.len() <= MAX_TYPE {
                continue;
            }
            let end = (0..=MAX_TYPE).rev().find(|at| text.is_char_boundary(*at));
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
        self.content_encoding.split(',').any(Encoding::is_any)
    }
}

/// What was read, at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterReading {
    /// The last usage that was reported. All zero: the call is metered in a unit that is not tokens.
    pub usage: Option<Usage>,
    /// Nobody told input and output apart.
    pub only_total: bool,
    /// The call is metered in a unit that is not tokens.
    pub other_unit: bool,
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

impl MeterReading {
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

    /// `usage` with estimates in the place of zeros that cannot be right: no input, though a prompt of so many tokens was
    /// sent, and no output beside delivered text.
    pub fn completed(&self, usage: Usage, prompt: u64) -> Usage {
        let delivered = self.delivered.div_ceil(CHARACTERS_PER_TOKEN);
        if self.other_unit || usage.output > 0 && usage.input > 0 {
            return usage;
        }
        if self.only_total && usage.total > 0 {
            let output = if usage.output > 0 { usage.output } else { delivered.min(usage.total) };
            return Usage { output, input: usage.total.saturating_sub(output), ..usage };
        }
        let input = if usage.input > 0 { usage.input } else { prompt };
        let output = if usage.output > 0 { usage.output } else { delivered };
        Usage { input, output, total: input.saturating_add(output), ..usage }
    }
}

/// Reads one response.
#[derive(Debug)]
pub struct Meter {
    layers: Layers,
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
        Self { layers: Layers::new(&head.content_encoding, memory), body: Body::new(head) }
    }

    /// One that looks for single values instead.
    pub fn looking_for(pointers: &Arc<Pointers>, head: &ResponseHead, memory: &MemoryBudget) -> Self {
        let mut meter = Self::within(head, memory);
        meter.body.look_for(Arc::clone(pointers));
        meter
    }

    /// One that looks for what is said of a result that the provider makes in the background.
    pub fn looking_for_stored(head: &ResponseHead, memory: &MemoryBudget) -> Self {
        let mut meter = Self::within(head, memory);
        meter.body.look_for_stored();
        meter
    }

    /// What it has found of that.
    pub fn stored(&mut self) -> StoredAnswer {
        self.finish();
        self.body.stored()
    }

    /// The values that the policy's pointers have led to.
    pub fn found(&mut self) -> Found {
        self.finish();
        self.body.found()
    }

    /// The next bytes of the body, as the upstream sent them.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.layers.feed(chunk, &mut self.body);
    }

    /// The body is over: what has been read, with what only the end can tell.
    pub fn finish(&mut self) -> MeterReading {
        self.layers.finish(&mut self.body);
        self.body.finish();
        self.body.reading()
    }

    /// What has been read so far. A decoder may hold something back until the end.
    pub fn reading(&self) -> MeterReading {
        self.body.reading()
    }
}
