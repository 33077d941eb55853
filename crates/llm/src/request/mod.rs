//! Request bytes → the facts that a body tells (`llm.*`), and the same bytes with what Weir adds to them.
//!
//! In: path, content type, and the body, decoded ([`decode()`]), whole or cut. Out: [`RequestBody`]; for the way on, an
//! edited body that differs only where meant ([`edit`]); for the way back, [`UsageChunkFilter`]. Reading takes what
//! any server might take, so that none is asked for more than was held; editing takes only valid JSON.
//!
//! It decides nothing: limits and refusals are elsewhere.

mod decode;
pub mod edit;
mod form;
mod gather;
mod maximum;
mod members;
mod place;
mod pointer;
mod route;
mod unicode;
mod usage_chunk;

pub use decode::{Decoded, decode};
pub use pointer::pointed;
pub use route::Route;
pub use usage_chunk::{ChunkEdit, UsageChunkFilter};

use crate::json::Scanner;
use crate::meter::CHARACTERS_PER_TOKEN;
use gather::{Gather, Seen};
use maximum::Shape;
use std::borrow::Cow;

/// Whose API a request speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI and the many servers that speak alike.
    OpenAi,
    /// Anthropic, also on Vertex.
    Anthropic,
    /// Gemini, also on Vertex.
    Gemini,
    /// AWS Bedrock: Converse, and the vendors' own bodies in InvokeModel.
    Bedrock,
    /// Cohere.
    Cohere,
    /// Ollama's own API.
    Ollama,
    /// None that we know.
    #[default]
    Unknown,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The next turn of a conversation.
    Chat,
    /// The continuation of a text.
    Completion,
    /// OpenAI's Responses API.
    Response,
    /// Anthropic's Messages API.
    Message,
    /// Vectors of texts.
    Embedding,
    /// Texts in order of their relevance.
    Rerank,
    /// Images made or changed.
    Image,
    /// Speech to text or text to speech.
    Audio,
    /// A judgement of a text.
    Moderation,
    /// A count of tokens.
    CountTokens,
    /// Which models there are.
    Models,
    /// Anything else.
    #[default]
    Other,
}

impl Operation {
    /// The fact `llm.operation`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "completion",
            Self::Response => "response",
            Self::Message => "message",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Moderation => "moderation",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Other => "other",
        }
    }

    /// Whether a call of this kind may cost tokens at all.
    pub fn uses_tokens(self) -> bool {
        !matches!(self, Self::Moderation | Self::CountTokens | Self::Models)
    }

    /// Whether text is generated, so that a maximum of output means something.
    fn generates(self) -> bool {
        !matches!(self, Self::Embedding | Self::Rerank) && self.uses_tokens()
    }
}

/// How well a body could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Condition {
    /// To its end.
    #[default]
    Read,
    /// It was longer than the filter's cap, and is known to the cap.
    Cut,
    /// It is no JSON, and is known up to where that shows.
    Malformed,
    /// It is neither JSON nor a form, or says nothing that a dialect names.
    Foreign,
}

impl Condition {
    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Cut => "cut",
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
        }
    }
}

/// How much of the body is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All.
    Whole,
    /// The beginning; the length of all of it in bytes, if `content-length` tells.
    Cut(Option<u64>),
}

/// What a request's body tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestBody {
    /// What its path told.
    pub route: Route,
    /// Whose API it speaks, by its path or else by its shape.
    pub dialect: Dialect,
    /// What is asked for.
    pub operation: Operation,
    /// The model, from the path if that names it.
    pub model: Option<String>,
    /// Whether the answer is to come as a stream.
    pub stream: bool,
    /// The client's own maximum of output per completion, in tokens, at least 1: the largest of those that the
    /// server heeds.
    pub max_output: Option<u64>,
    /// How many completions are asked for, at least 1.
    pub completions: u64,
    /// The end user, as the client names it.
    pub user: Option<String>,
    /// The session, as the client names it.
    pub session: Option<String>,
    /// `metadata`, if it is an object of at most [`METADATA`] bytes.
    pub metadata: Option<serde_json::Value>,
    /// The estimate of the input, in tokens: characters of text / 4, and images and files by constants.
    pub input: u64,
    /// How well it could be read.
    pub condition: Condition,
    shape: Shape,
}

/// The most of `metadata` that is read, in bytes. OpenAI allows 16 pairs of 64 and 512 characters.
pub const METADATA: usize = 64 << 10;

impl RequestBody {
    /// The estimate of the output, in tokens; `floor` is that of the limits which apply.
    pub fn output(&self, floor: u64) -> u64 {
        match self.max_output {
            _ if !self.operation.generates() => 0,
            Some(max) => max.saturating_mul(self.completions),
            None if self.input == 0 => 0,
            None => self.input.max(floor),
        }
    }

    /// Of so much output, what each completion gets: at least 1.
    pub fn share(&self, output: u64) -> u64 {
        output.checked_div(self.completions).unwrap_or(output).max(1)
    }
}

/// Reads a body that is not compressed, or no longer.
pub fn read(path: &str, content_type: &str, body: &[u8], extent: Extent) -> RequestBody {
    let mut route = Route::of(path);
    if route.operation == Some(Operation::Models) && !body.is_empty() {
        // Nobody posts a body to a list of models: it is some server's way of naming the model.
        route = Route::default();
    }
    let mut gathered = Gather::default();
    let mut condition = Condition::Read;
    let mut utf8 = Cow::Borrowed(body);
    if !form::read(content_type, body, &mut gathered) {
        utf8 = unicode::to_utf8(body);
        condition = scan(&utf8, &mut gathered);
    }
    let length = match extent {
        Extent::Whole => length(body),
        Extent::Cut(length_of_all) => {
            condition = Condition::Cut;
            length_of_all.unwrap_or_default().max(length(body))
        }
    };
    conclude(route, gathered, condition, length, &utf8)
}

/// Walks through a JSON body.
fn scan(body: &[u8], gathered: &mut Gather) -> Condition {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Condition::Read,
        Some(b'{' | b'[') => {}
        Some(_) => return Condition::Foreign,
    }
    let mut scanner = Scanner::default();
    scanner.feed(body, gathered);
    if gathered.malformed || scanner.is_open() { Condition::Malformed } else { Condition::Read }
}

fn conclude(
    route: Route,
    gathered: Gather,
    mut condition: Condition,
    length: u64,
    body: &[u8],
) -> RequestBody {
    let (dialect, operation) = by_shape(&route, gathered.seen);
    let mut characters = gathered.characters;
    let nothing = characters == 0 && gathered.tokens == 0 && gathered.images == 0;
    if nothing && operation == Operation::Other && length > 0 && condition == Condition::Read {
        condition = Condition::Foreign;
    }
    if condition != Condition::Read {
        // As without the body: each byte may be a character of text.
        characters = characters.max(length);
    }
    let images = gathered.images.saturating_mul(tokens_per_image(dialect));
    let text = if characters == 0 { 0 } else { (characters / CHARACTERS_PER_TOKEN).max(1) };
    let metadata_user = || gathered.metadata_user.text().filter(|_| dialect == Dialect::Anthropic);
    let input = text.saturating_add(images).saturating_add(gathered.tokens);
    RequestBody {
        model: route.model.clone().or_else(|| gathered.model.text()),
        stream: route
            .stream
            .or(gathered.stream)
            .unwrap_or(dialect == Dialect::Ollama && operation.generates()),
        max_output: gathered.maxima.largest(&route),
        completions: gathered.completions.unwrap_or(1),
        user: gathered.user.text().or_else(metadata_user),
        session: gathered.sessions.iter().find_map(gather::Kept::text),
        metadata: gathered.seen.metadata.then(|| metadata(body)).flatten(),
        input: if operation.uses_tokens() { input } else { 0 },
        condition,
        shape: gathered.seen.shape(),
        route,
        dialect,
        operation,
    }
}

/// The last `metadata`, as any parser that takes a repeated key would have it.
fn metadata(body: &[u8]) -> Option<serde_json::Value> {
    let members = members::members(std::str::from_utf8(body).ok()?, &["metadata"])?;
    let (_, raw) = members.found.last()?;
    let short = raw.len() <= METADATA;
    let value = short.then(|| serde_json::from_str::<serde_json::Value>(raw).ok()).flatten();
    value.filter(serde_json::Value::is_object)
}

/// What the path did not tell.
fn by_shape(route: &Route, seen: Seen) -> (Dialect, Operation) {
    let (dialect, operation) = match seen {
        Seen { contents: true, .. } => (Dialect::Gemini, Operation::Chat),
        Seen { messages: true, anthropic_version: true, .. } => (Dialect::Anthropic, Operation::Message),
        Seen { messages: true, inference_config: true, .. } => (Dialect::Bedrock, Operation::Chat),
        Seen { messages: true, system: true, .. } => (Dialect::Anthropic, Operation::Message),
        Seen { messages: true, .. } => (Dialect::OpenAi, Operation::Chat),
        Seen { prompt: true, .. } => (Dialect::OpenAi, Operation::Completion),
        Seen { input: true, response: true, .. } => (Dialect::OpenAi, Operation::Response),
        Seen { input: true, .. } => (Dialect::OpenAi, Operation::Embedding),
        Seen { inputs: true, .. } => (Dialect::Unknown, Operation::Completion),
        Seen { input_text: true, .. } => (Dialect::Unknown, Operation::Completion),
        _ => (Dialect::Unknown, Operation::Other),
    };
    match (route.dialect, route.operation) {
        (Dialect::Unknown, None) => (dialect, operation),
        // The vendors' own bodies: all that matters of them is whether they are a conversation.
        (path, None) => {
            let operation = if operation == Operation::Message { Operation::Chat } else { operation };
            (path, operation)
        }
        (path, Some(operation)) => (path, operation),
    }
}

/// What an image costs where its size is not known: OpenAI for 1024 x 1024 at high detail, Anthropic's and Bedrock's
/// most, one tile of Gemini.
fn tokens_per_image(dialect: Dialect) -> u64 {
    match dialect {
        Dialect::Anthropic | Dialect::Bedrock => 1600,
        Dialect::Gemini => 258,
        Dialect::OpenAi | Dialect::Cohere | Dialect::Ollama | Dialect::Unknown => 765,
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
