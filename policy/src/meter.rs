//! Response bytes → usage, whatever the format, the encoding and the chunking, in bounded memory.

/// What a provider reported, normalised: `input` and `output` include cached and reasoning tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Completion tokens, reasoning included.
    pub output: u64,
    /// `input + output`, or what the provider says the total is.
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
    /// The last usage that was reported.
    pub usage: Option<Usage>,
    /// Characters of generated text that were delivered.
    pub delivered: u64,
}

/// Reads one response.
#[derive(Debug, Default)]
pub struct Meter {}

impl Meter {
    /// A meter for the response with this head.
    pub fn new(_head: &ResponseHead) -> Self {
        Self::default()
    }

    /// The next bytes of the body, as the upstream sent them.
    pub fn feed(&mut self, _chunk: &[u8]) {}

    /// The body is over: what has been read, with what only the end can tell.
    pub fn finish(&mut self) -> Reading {
        Reading::default()
    }
}
