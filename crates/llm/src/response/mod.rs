//! Reads usage from the bytes of a response, in any format and encoding, in chunks of any size, and in
//! bounded memory.
//!
//! The content type determines the format if it is specific. Otherwise, the first byte determines it. Bodies
//! are not buffered: each layer passes on its chunks. This module does not judge the status. It reports what
//! was read.

mod base64;
mod body;
mod calls;
mod cause;
mod data_stream;
pub(crate) mod decode;
mod document;
mod envelopes;
mod found;
mod frames;
mod media;
mod multipart;
mod names;
pub(crate) mod place;
mod pointed;
mod quoted;
mod raw;
mod report;
mod results;
mod search;
mod so_far;
mod sse;
mod stored;
mod tally;
mod template;

pub(crate) use base64::Base64;
pub use cause::Cause;
pub use pointed::{COUNTS, Found, PointedCount, Pointers, UsagePointers, mistake as pointer_mistake};
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
    /// Prompt tokens, including cached ones.
    pub input: u64,
    /// Completion tokens, including reasoning.
    pub output: u64,
    /// `input + output`, or the provider's own total if that is larger.
    pub total: u64,
    /// The part of `input` that was read from a cache.
    pub cached: u64,
    /// The part of `input` that was written to a cache.
    pub cache_write: u64,
    /// The part of `cache_write` with the longer of two lifetimes.
    pub cache_write_1h: u64,
    /// The part of `output` that is reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// Returns one of the counts, or `None` if usage has no such count.
    fn count(&self, field: Field) -> Option<u64> {
        match field {
            Field::Input | Field::FreshInput => Some(self.input),
            Field::Output => Some(self.output),
            Field::Total => Some(self.total),
            Field::Cached | Field::CacheRead => Some(self.cached),
            Field::CacheWrite => Some(self.cache_write),
            Field::Reasoning | Field::Thoughts => Some(self.reasoning),
            _ => None,
        }
    }

    /// Returns the larger value of each count.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            total: self.total.max(other.total),
            cached: self.cached.max(other.cached),
            cache_write: self.cache_write.max(other.cache_write),
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
            reasoning: self.reasoning.max(other.reasoning),
        }
    }

    /// Returns the sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
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

/// The response headers that the meter needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The value of `content-type`, unchanged.
    pub content_type: String,
    /// The value of `content-encoding`, unchanged.
    pub content_encoding: String,
    /// Other headers, with names in lower case: those with usage (`x-amzn-bedrock-*-token-count`), one that names a
    /// format, and those that a `cost` uses.
    pub usage_headers: Vec<(String, String)>,
}

static USAGE_HEADERS: &[UsageHeader] =
    all!(UsageHeader, headers, UsageHeader { name: "", field: Field::Total, is_first: false });

/// The longest content type or encoding that is kept, in bytes.
const MAX_TYPE: usize = 256;

impl ResponseHead {
    /// Reads the headers, each by its lower-case name. `further` lists additional headers to read.
    pub fn from_headers(
        status: u16,
        further: &[String],
        mut header: impl FnMut(&str) -> Option<String>,
    ) -> Self {
        let content_type = header("content-type").unwrap_or_default();
        let content_encoding = header("content-encoding").unwrap_or_default();
        let mut usage_headers = Vec::new();
        for UsageHeader { name, is_first, .. } in USAGE_HEADERS {
            // Nearly all responses have none of these headers, so no further look-ups are needed.
            if *is_first || !usage_headers.is_empty() {
                usage_headers.extend(header(name).map(|value| ((*name).to_owned(), value)));
            }
        }
        if content_type.starts_with("text/plain") {
            let marker = header(data_stream::HEADER);
            usage_headers.extend(marker.map(|value| (data_stream::HEADER.to_owned(), value)));
        }
        for name in further {
            usage_headers.extend(header(name).map(|value| (name.clone(), value)));
        }
        Self { status, content_type, content_encoding, usage_headers }
    }

    /// Returns its size in bytes, without the struct itself.
    pub fn size(&self) -> usize {
        let headers = self.usage_headers.iter().map(|(name, value)| {
            size_of::<(String, String)>().saturating_add(name.len()).saturating_add(value.len())
        });
        let types = [self.content_type.len(), self.content_encoding.len()];
        headers.chain(types).fold(0, usize::saturating_add)
    }

    /// Removes a content type or encoding that is too long.
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

    /// Returns whether the body is a stream of server-sent events.
    pub fn is_event_stream(&self) -> bool {
        Content::of(&self.content_type) == Content::ServerSentEvents
    }

    /// Returns whether the connection switches to a WebSocket or another protocol, in which case its bytes
    /// are not read and have no end.
    pub fn switches_protocols(&self) -> bool {
        self.status == 101
    }

    /// Returns whether the status is a success.
    pub fn is_success(&self) -> bool {
        self.switches_protocols() || (200..300).contains(&self.status)
    }

    /// Returns whether the body is compressed.
    pub fn is_encoded(&self) -> bool {
        self.content_encoding.split(',').any(Encoding::is_any)
    }
}

/// The result of reading a body so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterReading {
    /// The last reported usage. If all counts are zero, the call is metered in a unit other than tokens.
    pub usage: Option<Usage>,
    /// Whether only a total was reported.
    pub only_total: bool,
    /// Whether the call is metered in a unit other than tokens.
    pub other_unit: bool,
    /// Characters of generated text that were delivered, including reasoning and tool calls.
    pub delivered: u64,
    /// The part of `delivered` after the last report of output. If a stream is cut off, `usage` does not
    /// include this part.
    pub uncovered: u64,
    /// Whether the provider's body reports that the call failed, whatever the status is.
    pub ended_in_error: bool,
    /// The most serious problem with the body.
    pub broken: Option<Cause>,
    /// Whether a model may have written the whole document with the usage. Then the usage is not far below
    /// the estimate.
    pub quoted: bool,
    /// The part of `delivered` that a model may have written together with the usage. The output is not far
    /// below the estimate of this part.
    pub doubtful: u64,
    /// The characters next to the usage that a model may have read, or written together with the usage. The total
    /// is not far below the estimate of them.
    pub doubtful_total: u64,
}

/// The assumed number of characters per token.
pub const CHARACTERS_PER_TOKEN: u64 = 4;

/// The number of tokens that one reported token of output cannot account for.
const LEAST_TEXT: u64 = 16;

/// The number of characters of names, roles and the like that a document may contain beside its text.
const NAMES: u64 = 256;

impl MeterReading {
    /// Returns the usage of a body that was cut off, by either side or by an error. It is the reported usage
    /// plus an estimate for the text after the last report. Anthropic's streams begin with a report of one
    /// output token.
    pub fn usage_if_cut(&self) -> Option<Usage> {
        let more = self.uncovered.div_ceil(CHARACTERS_PER_TOKEN);
        let add = |usage: Usage| Usage {
            output: usage.output.saturating_add(more),
            total: usage.total.saturating_add(more),
            ..usage
        };
        self.usage.map(add)
    }

    /// Returns `usage` with estimates in place of zeros that cannot be correct: no input although a prompt of
    /// `prompt` tokens was sent, or no output although text was delivered.
    pub fn completed(&self, usage: Usage, prompt: u64) -> Usage {
        let completed = self.without_zeros(usage, prompt);
        let half = |tokens: u64| tokens.div_ceil(2);
        let doubtful =
            |characters: u64| half(characters.saturating_sub(NAMES).div_ceil(CHARACTERS_PER_TOKEN));
        let least_total = doubtful(self.doubtful_total);
        let (least_input, least_output) = if completed.total < least_total {
            (half(prompt), least_total)
        } else if self.quoted {
            (half(prompt), half(self.delivered.div_ceil(CHARACTERS_PER_TOKEN)))
        } else if self.doubtful > 0 {
            let least_output = doubtful(self.doubtful);
            let is_forged = completed.output < least_output;
            (if is_forged { half(prompt) } else { 0 }, least_output)
        } else {
            return completed;
        };
        let is_whole = self.only_total && usage.total >= least_input.saturating_add(least_output);
        if is_whole || completed.input >= least_input && completed.output >= least_output {
            return completed;
        }
        let (input, output) = (completed.input.max(least_input), completed.output.max(least_output));
        Usage { input, output, total: input.saturating_add(output), ..completed }
    }

    fn without_zeros(&self, usage: Usage, prompt: u64) -> Usage {
        let delivered = self.delivered.div_ceil(CHARACTERS_PER_TOKEN);
        // A report before all of the text may count only the first token (Anthropic's `message_start`).
        let is_early = self.uncovered == self.delivered && usage.output.saturating_mul(4) < delivered;
        // Some servers report one token of each, whatever was used (FastGPT).
        let is_certain = !self.quoted && self.doubtful == 0 && self.doubtful_total == 0;
        let is_constant = is_certain && usage.input == 1 && usage.output == 1 && delivered >= LEAST_TEXT;
        let has_output = usage.output > 0 && !is_early && !is_constant;
        let has_input = usage.input > 0 && !is_constant;
        if self.other_unit || has_output && has_input {
            return usage;
        }
        if self.only_total && usage.total > 0 {
            let output = if usage.output > 0 { usage.output } else { delivered.min(usage.total) };
            return Usage { output, input: usage.total.saturating_sub(output), ..usage };
        }
        let input = if has_input { usage.input } else { prompt.max(usage.input) };
        let output = if has_output { usage.output } else { delivered };
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
    /// The size of a meter in bytes, including the data that it keeps but not its decoder.
    pub const SIZE: usize = size_of::<Self>() + (12 << 10);

    /// Creates a meter for the response with this head. The memory for its decoder is unlimited.
    pub fn new(head: &ResponseHead) -> Self {
        Self::within(head, &MemoryBudget::default())
    }

    /// Creates a meter for the response with this head. Its decoder reserves memory before it allocates. If
    /// the budget refuses, the rest of the body is not decoded and counts by its length in bytes.
    pub fn within(head: &ResponseHead, memory: &MemoryBudget) -> Self {
        Self { layers: Layers::new(&head.content_encoding, memory), body: Body::new(head) }
    }

    /// Creates a meter that looks for single values instead of usage.
    pub fn looking_for(pointers: &Arc<Pointers>, head: &ResponseHead, memory: &MemoryBudget) -> Self {
        let mut meter = Self::within(head, memory);
        meter.body.look_for(Arc::clone(pointers));
        meter
    }

    /// Creates a meter that looks for references to a background result instead of usage.
    pub fn looking_for_stored(head: &ResponseHead, memory: &MemoryBudget) -> Self {
        let mut meter = Self::within(head, memory);
        meter.body.look_for_stored();
        meter
    }

    /// Returns what the response contains about a background result.
    pub fn stored(&mut self) -> StoredAnswer {
        self.finish();
        self.body.stored()
    }

    /// Returns the values at the pointers of the policies.
    pub fn found(&mut self) -> Found {
        self.finish();
        self.body.found()
    }

    /// Reads the next bytes of the body, as the upstream sent them.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.layers.feed(chunk, &mut self.body);
    }

    /// Ends the body. Returns the final result, including problems that only the end can show.
    pub fn finish(&mut self) -> MeterReading {
        self.layers.finish(&mut self.body);
        self.body.finish();
        self.body.reading()
    }

    /// Returns the result so far. A decoder may hold back bytes until the end.
    pub fn reading(&self) -> MeterReading {
        self.body.reading()
    }
}
