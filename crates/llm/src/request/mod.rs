//! Reads facts from a request's body (`llm.*`), and edits the body.
//!
//! The input is the path, the headers and the body, complete or not ([`Wire`]). The output is a
//! [`ParsedBody`], an edited body for the upstream ([`edit`]), and a [`UsageChunkFilter`] for the response.
//! Reading and editing accept whatever any server might accept, so that no server is asked for more than was
//! held. The bytes determine the format of a body. Its headers (`content-type`, `content-encoding`) decide
//! only if the bytes do not.
//!
//! This module makes no decisions about limits or refusals.

mod decode;
pub mod edit;
mod form;
mod gather;
mod given;
pub mod hiding;
pub(crate) mod image;
mod lenient;
pub(crate) mod maximum;
mod media;
mod members;
mod names;
mod open;
pub(crate) mod place;
mod pointer;
mod reading;
pub(crate) mod route;
mod seen;
mod stored;
mod tally;
pub(crate) mod tokenless;
mod unicode;
mod usage_chunk;

pub use decode::{Decoded, Label, decode};
pub use given::Conflicts;
pub use maximum::MaximumFields;
pub(crate) use media::{ForeignBytes, tokens_of_recording};
pub use pointer::{Pointed, pointed};
pub use reading::{ParsedBody, Wire, read};
pub use route::{Route, uses_no_tokens};
pub use stored::{is_always_later, read_result};
pub use usage_chunk::{ChunkEdit, UsageChunkFilter};

use crate::response::CHARACTERS_PER_TOKEN;
use gather::Gather;
use maximum::Shape;
use seen::Seen;

/// The API of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI and the many compatible servers.
    OpenAi,
    /// Anthropic, also on Vertex.
    Anthropic,
    /// Gemini, also on Vertex.
    Gemini,
    /// AWS Bedrock: Converse, and InvokeModel with the vendors' own bodies.
    Bedrock,
    /// Cohere.
    Cohere,
    /// Ollama's own API.
    Ollama,
    /// An unknown API.
    #[default]
    Unknown,
}

impl Dialect {
    /// Returns the name in usage records, if the API is known.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("openai"),
            Self::Anthropic => Some("anthropic"),
            Self::Gemini => Some("gemini"),
            Self::Bedrock => Some("bedrock"),
            Self::Cohere => Some("cohere"),
            Self::Ollama => Some("ollama"),
            Self::Unknown => None,
        }
    }
}

/// The kind of call.
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
    /// Embeddings of texts.
    Embedding,
    /// Texts ranked by relevance.
    Rerank,
    /// Generating or editing images.
    Image,
    /// Speech to text or text to speech.
    Audio,
    /// Moderation: a text is checked for harmful content.
    Moderation,
    /// A count of tokens.
    CountTokens,
    /// A list of models.
    Models,
    /// Listing, reading, creating or deleting what the provider stores (files, batches, results).
    Manage,
    /// Anything else.
    #[default]
    Other,
}

impl Operation {
    /// Returns the value of the fact `llm.operation`.
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
            Self::Manage => "manage",
            Self::Other => "other",
        }
    }

    /// Returns whether a call of this kind may cost tokens.
    pub fn uses_tokens(self) -> bool {
        !matches!(self, Self::Moderation | Self::CountTokens | Self::Models | Self::Manage)
    }

    /// Returns whether a list of prompts counts as that many requests.
    fn is_of_prompts(self) -> bool {
        matches!(self, Self::Completion | Self::Other)
    }

    /// Returns whether a call of this kind generates text, so that a maximum output applies.
    fn generates(self) -> bool {
        !matches!(self, Self::Embedding | Self::Rerank) && self.uses_tokens()
    }
}

/// How much of a body could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Condition {
    /// All of it.
    #[default]
    Read,
    /// All of it, although a header describes it wrongly.
    Mislabeled,
    /// The part up to the filter's maximum.
    Cut,
    /// As much as a lenient parser accepts; strict parsers reject it.
    Malformed,
    /// It is neither JSON nor a form.
    Foreign,
    /// All of it, but it contains no field that any dialect knows.
    Silent,
    /// Two servers would read two different requests. Only the facts on which both agree are known.
    Ambiguous,
    /// Its encoding is unknown, or differs from its header.
    Undecoded,
    /// It has not arrived, or the filter does not wait for it.
    Unread,
}

impl Condition {
    /// Returns the name in metrics.
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

    /// Returns whether a server may find something in the body that was not found here. A fact that was not
    /// found may then be present.
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

/// How much of the body is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The beginning, and the total length in bytes if `content-length` gives it.
    Cut(Option<u64>),
}

/// The facts of a request's body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestBody {
    /// The facts of its path.
    pub route: Route,
    /// The API, by the path or else by the body's form.
    pub dialect: Dialect,
    /// The kind of call.
    pub operation: Operation,
    /// The model, from the path if it contains one.
    pub model: Option<String>,
    /// Whether the model is not a string, is too long for a name, is one of several, or is stored by the server.
    pub model_is_unreadable: bool,
    /// Whether the response should be a stream.
    pub stream: bool,
    /// The client's maximum output per completion in tokens, at least 1. If there are several, this is the
    /// largest one that the server honours.
    pub max_output: Option<u64>,
    /// The fields that contain [`RequestBody::max_output`].
    pub max_output_fields: MaximumFields,
    /// The number of completions for all prompts, at least 1.
    pub completions: u64,
    /// The end user, as the client names it.
    pub user: Option<String>,
    /// The session, as the client names it.
    pub session: Option<String>,
    /// The estimated input in tokens: characters of text / 4, and constants for images and files.
    pub input: u64,
    /// How much of the body could be read.
    pub condition: Condition,
    /// Whether the response comes later: OpenAI's `background`.
    pub background: bool,
    /// Whether the client can find the result without its id: in a conversation, or in the list of stored chats.
    pub is_kept: bool,
    /// The fields that are given twice with different values.
    pub conflicts: Conflicts,
    shape: Shape,
    /// Whether the body is UTF-16 or UTF-32, which only Python servers read.
    wide: bool,
    /// A maximum that the server may honour. It can only increase the estimate.
    possible_max_output: u64,
    /// The sum of the maxima in elements of lists, times the number of completions.
    elements_max_output: u64,
    /// Whether the server may ignore [`RequestBody::max_output`].
    unsure_max_output: bool,
}

/// The maximum size of `metadata`, or of another value that is read by pointer, in bytes. OpenAI allows 16
/// pairs of 64 and 512 characters.
pub const METADATA: usize = 64 << 10;

impl RequestBody {
    /// Returns the estimated output in tokens. `floor` is the minimum estimate that follows from the
    /// applicable limits.
    pub fn output(&self, floor: u64) -> u64 {
        if !self.may_generate() {
            return 0;
        }
        let without = self.output_without_maximum(floor);
        let own = match self.max_output {
            Some(max) if self.unsure_max_output => max.saturating_mul(self.completions).max(without),
            Some(max) => max.saturating_mul(self.completions),
            None => without,
        };
        own.max(self.possible_max_output.saturating_mul(self.completions)).max(self.elements_max_output)
    }

    /// Returns the estimated output in tokens as if the server ignored the client's maximum.
    pub fn output_without_maximum(&self, floor: u64) -> u64 {
        if self.asks_nothing() { 0 } else { self.input.max(floor) }
    }

    /// Returns whether nothing in the request limits its output, so that [`RequestBody::output`] is a guess.
    pub fn has_open_output(&self) -> bool {
        let is_open =
            self.max_output.is_none() && self.possible_max_output == 0 && self.elements_max_output == 0;
        is_open && self.may_generate() && !self.asks_nothing() && !self.condition.hides_facts()
    }

    fn may_generate(&self) -> bool {
        // An unknown server may generate text, whatever the body looks like.
        (self.operation.generates() || self.route.operation.is_none()) && self.operation.uses_tokens()
    }

    /// Returns whether the request has nothing to answer. A text completion continues even an empty text.
    fn asks_nothing(&self) -> bool {
        let is_conversation =
            matches!(self.route.operation, Some(Operation::Chat | Operation::Message | Operation::Response));
        let is_refused = is_conversation || self.dialect.rules().loads_without_prompt;
        self.input == 0 && !self.condition.hides_facts() && is_refused
    }

    /// Returns each completion's share of an output, at least 1.
    pub fn share(&self, output: u64) -> u64 {
        output.checked_div(self.completions).unwrap_or(output).max(1)
    }
}

fn conclude(route: Route, gathered: &Gather, mut condition: Condition, length: u64) -> RequestBody {
    let (dialect, operation) = by_shape(&route, gathered.seen, condition);
    let mut characters = gathered.tally.characters();
    let text = gathered.seen.content && gathered.tally.text > 0;
    let nothing = !text && gathered.tokens == 0 && gathered.images == 0 && gathered.sized.count == 0;
    if nothing && operation == Operation::Other && length > 0 && !condition.hides_facts() {
        condition = Condition::Silent;
    }
    if condition.hides_facts() || condition == Condition::Silent {
        // Each byte of an unread body may be a character, except in the images and files that were read.
        characters = characters.max(length.saturating_sub(gathered.media));
    }
    let rules = dialect.rules();
    let sized = gathered.sized.tokens(rules.images);
    let images = gathered.images.saturating_mul(rules.tokens_per_image).saturating_add(sized);
    let counted = images.saturating_add(gathered.tokens);
    let nothing = characters == 0 && (counted > 0 || !gathered.has_parts);
    let text = if nothing { 0 } else { (characters / CHARACTERS_PER_TOKEN).max(1) };
    let metadata_user = || gathered.metadata_user.text().filter(|_| dialect.rules().names_user_in_metadata);
    let input = text.saturating_add(counted);
    let completions = gathered.completions.unwrap_or(1).max(1);
    let prompts = if operation.is_of_prompts() { gathered.prompts.max(1) } else { 1 };
    let (model, model_is_unreadable) = model(&route, gathered);
    // LiteLLM sends the request to each model of a list in one string.
    let models = gathered.model.text().map_or(1, |model| model.split(',').count());
    let results = [
        completions,
        prompts,
        gathered.conversations.max(1),
        gathered.documents.max(1),
        u64::try_from(models).unwrap_or(u64::MAX),
    ];
    RequestBody {
        model,
        model_is_unreadable,
        stream: route
            .stream
            .or(gathered.stream.value())
            .or(gathered.stream_variant.value())
            .unwrap_or(dialect.rules().streams && operation.generates()),
        max_output: gathered.maxima.largest(&route),
        max_output_fields: gathered.maxima.fields(&route),
        possible_max_output: gathered.maxima.possible(),
        elements_max_output: gathered.maxima.of_elements().saturating_mul(completions),
        unsure_max_output: gathered.maxima.is_unsure(&route),
        completions: results.into_iter().fold(1, u64::saturating_mul),
        user: gathered.user.text().or_else(metadata_user),
        session: gathered.sessions.iter().find_map(given::Kept::text),
        input: if operation.uses_tokens() { input } else { 0 },
        condition,
        background: gathered.background || route.background,
        is_kept: gathered.store || gathered.seen.conversation,
        conflicts: conflicts(&route, gathered),
        shape: gathered.seen.shape(),
        wide: false,
        route,
        dialect,
        operation,
    }
}

/// Returns the model, and whether there is one that cannot be read. If the path names the model, the model in the
/// body is ignored. If the server may use several models, none of them is known.
fn model(route: &Route, gathered: &Gather) -> (Option<String>, bool) {
    if route.model.is_some() || route.model_is_unsure {
        return (route.model.clone(), route.model_is_unsure);
    }
    match (&route.query_model, model_of_body(route, gathered)) {
        (Some(query), (model, _)) if model.as_ref() != Some(query) => (None, true),
        (_, of_body) => of_body,
    }
}

fn model_of_body(route: &Route, gathered: &Gather) -> (Option<String>, bool) {
    let alias = &gathered.model_id;
    let given = [
        Some(&gathered.model),
        Some(&gathered.model_variant),
        route.dialect.rules().reads_model_id.then_some(alias),
    ];
    let given = || given.iter().copied().flatten();
    let model = given().find_map(given::GivenText::text);
    let is_unreadable = model.is_none() && given().any(given::GivenText::is_unreadable);
    let others = &gathered.other_models;
    let is_one = |model: &String| !model.contains(',') && others.text().is_none_or(|other| other == *model);
    match model.or_else(|| others.text()) {
        Some(_) if others.differs() || others.is_unreadable() => (None, true),
        Some(model) if is_one(&model) => (Some(model), false),
        Some(_) => (None, true),
        None => (None, is_unreadable || others.is_unreadable() || gathered.seen.setup),
    }
}

fn conflicts(route: &Route, gathered: &Gather) -> Conflicts {
    let (model, variant) = (&gathered.model, &gathered.model_variant);
    let model = model.differs() || variant.differs() || model.contradicts(variant);
    // `modelId` matters only to servers that read it.
    let alias = route.dialect.rules().reads_model_id
        && (gathered.model_id.differs()
            || !gathered.seen.messages && gathered.model.contradicts(&gathered.model_id));
    let (stream, variant) = (gathered.stream, gathered.stream_variant);
    let streams = [stream, variant].iter().any(|stream| stream.value() == Some(true));
    let options = streams && gathered.stream_options_variant;
    let stream = stream.differs() || variant.differs() || stream.contradicts(variant);
    Conflicts {
        model: route.model.is_none() && (model || alias),
        stream: route.stream.is_none() && stream || options,
        max_output: gathered.maxima.conflict(route),
        max_output_case: gathered.maxima.only_in_another_case(route),
    }
}

/// Determines the dialect and the operation from the body, as far as the path leaves them open.
fn by_shape(route: &Route, seen: Seen, condition: Condition) -> (Dialect, Operation) {
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
        (path, Some(Operation::Manage)) if seen.inputs => (path, Operation::Chat),
        // A body that was not read may contain a prompt, so it counts as if it did.
        (path, Some(_)) if route.body_decides && (seen.asks || condition.hides_facts()) => {
            (path, Operation::Chat)
        }
        // In the vendors' own bodies, it only matters whether they are a conversation.
        (path, None) => {
            let operation = if operation == Operation::Message { Operation::Chat } else { operation };
            (path, operation)
        }
        (path, Some(operation)) => (path, operation),
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
