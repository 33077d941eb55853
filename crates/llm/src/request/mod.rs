//! Request bytes → the facts that a body tells (`llm.*`), and the same bytes with what Weir adds to them.
//!
//! In: path, headers, and the body as it came, whole or cut ([`Wire`]). Out: [`Reading`]; for the way on, an
//! edited body that differs only where meant ([`edit`]); for the way back, [`UsageChunkFilter`]. Reading and editing take
//! what any server might take, so that none is asked for more than was held: the bytes decide what a body is, and its labels
//! (`content-type`, `content-encoding`) only where the bytes do not.
//!
//! It decides nothing: limits and refusals are elsewhere.

mod decode;
pub mod edit;
mod form;
mod gather;
mod lenient;
mod maximum;
mod members;
mod place;
mod pointer;
mod reading;
mod route;
mod unicode;
mod usage_chunk;

pub use decode::{Decoded, Label, decode};
pub use pointer::{Pointed, pointed};
pub use reading::{Reading, Wire, read};
pub use route::Route;
pub use usage_chunk::{ChunkEdit, UsageChunkFilter};

use crate::meter::CHARACTERS_PER_TOKEN;
use gather::{Gather, Seen};
use maximum::Shape;

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
    /// To its end, though a header says that it is something else.
    Mislabeled,
    /// It was longer than the filter's cap, and is known to the cap.
    Cut,
    /// It is no JSON that all servers take, and is known as far as a lenient one would take it.
    Malformed,
    /// It is neither JSON nor a form.
    Foreign,
    /// To its end, and it says nothing that a dialect names.
    Silent,
    /// Two servers would read two different requests in it; only what is the same in both is known.
    Ambiguous,
    /// It is in an encoding that is not known, or not the one that its header says.
    Undecoded,
    /// It has not come, or nobody waits for it.
    Unread,
}

impl Condition {
    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Mislabeled => "mislabeled",
            Self::Cut => "cut",
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::Silent => "silent",
            Self::Ambiguous => "ambiguous",
            Self::Undecoded => "encoding",
            Self::Unread => "unread",
        }
    }

    /// Whether a server may find something in the body that was not found here: a fact that is absent is then not known to
    /// be absent.
    pub fn hides_facts(self) -> bool {
        match self {
            Self::Read | Self::Mislabeled | Self::Silent => false,
            Self::Cut
            | Self::Malformed
            | Self::Foreign
            | Self::Ambiguous
            | Self::Undecoded
            | Self::Unread => true,
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
    /// The estimate of the input, in tokens: characters of text / 4, and images and files by constants.
    pub input: u64,
    /// How well it could be read.
    pub condition: Condition,
    shape: Shape,
    /// It is UTF-16 or UTF-32, which Python's servers read and nobody else.
    wide: bool,
}

/// The most of `metadata`, or of another value that is read by pointer, in bytes. OpenAI allows 16 pairs of 64 and 512
/// characters.
pub const METADATA: usize = 64 << 10;

impl RequestBody {
    /// The estimate of the output, in tokens; `floor` is that of the limits which apply.
    pub fn output(&self, floor: u64) -> u64 {
        match self.max_output {
            _ if !self.operation.generates() => 0,
            Some(max) => max.saturating_mul(self.completions),
            None if self.input == 0 && !self.condition.hides_facts() => 0,
            None => self.input.max(floor),
        }
    }

    /// Of so much output, what each completion gets: at least 1.
    pub fn share(&self, output: u64) -> u64 {
        output.checked_div(self.completions).unwrap_or(output).max(1)
    }
}

fn conclude(route: Route, gathered: Gather, mut condition: Condition, length: u64) -> RequestBody {
    let (dialect, operation) = by_shape(&route, gathered.seen);
    let mut characters = gathered.characters;
    let nothing = characters == 0 && gathered.tokens == 0 && gathered.images == 0;
    if nothing && operation == Operation::Other && length > 0 && !condition.hides_facts() {
        condition = Condition::Silent;
    }
    if condition.hides_facts() || condition == Condition::Silent {
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
        input: if operation.uses_tokens() { input } else { 0 },
        condition,
        shape: gathered.seen.shape(),
        wide: false,
        route,
        dialect,
        operation,
    }
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
