//! Where the providers put what we look for: usage, generated text, errors. One table for all dialects, since their
//! names do not clash; what the names mean together is decided in `tally.rs`. Every string that is delivered counts as
//! generated text, unless `labels.rs` knows that its place holds something else. Counts of tokens are found in places
//! that nobody listed, too, by their names ([`super::names`]); but never in what a model generated.

use super::labels::{known, whole};
use super::names;
use super::tally::Field;
use crate::json::{JsonPlace, Wants};

/// A place in a document. Arrays are transparent: an element is where its array is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Node {
    /// The document itself.
    #[default]
    Root,
    /// A place whose text nobody generated, however long it is.
    Other,
    /// A name, id or the like. What is too long for one counts as text.
    Label,
    /// A place in what was generated, or that may be: all strings in it count as text, and counts in it mean nothing.
    Unknown,
    /// A place beside what was generated that we do not know: all strings in it count as text, and counts by their names.
    Aside,
    /// The same in a list of results, which add up.
    Listed,
    /// An object that is known to hold counts, in a place that nobody listed.
    Counts,
    ListedCounts,
    /// Anthropic's several samplings of one message.
    Iterations,
    /// The request's own metadata, in which a provider may put an object with counts.
    Metadata,
    /// Counts, each with its name in a member of its own.
    Metrics,
    PairName,
    PairValue,

    // Objects with counts.
    Usage,
    UsageMetadata,
    InvocationMetrics,
    Timings,
    Meta,
    /// Cohere's `tokens`.
    Tokens,
    /// Cohere's `billed_units`.
    BilledUnits,
    InputDetails,
    OutputDetails,
    Groq,
    Predictions,
    Embeddings,
    Statistics,
    Results,
    /// Anthropic's cache writes by their lifetime.
    CacheCreation,
    /// Bedrock's, as a list.
    CacheDetails,
    CacheTtl,
    CacheCount,
    IterationType,
    Iteration(Field),
    /// What the tools of OpenAI's Responses used, by tool.
    ToolUsage,
    Tool,
    ToolCount(Field),
    /// A count of tokens, in an object that holds counts.
    Count(Field),
    /// A count of tokens in a place that nobody listed.
    Found(Field),
    /// The same in a list of results.
    FoundInList(Field),
    /// A count of tokens that is a member of the document itself, or of one of its parts.
    Own(Field),
    /// A count in a unit that is not tokens.
    OtherUnit,

    // Where a policy's own pointers lead ([`super::pointed`]).
    /// On the way, by the number of the step.
    Way(u16),
    /// A value, by its pointer.
    Pointed(u16),

    // Objects with text in them.
    Choices,
    ChoiceMessage,
    Message,
    Delta,
    Response,
    Output,
    Outputs,
    Candidates,
    CandidateContent,
    Content,
    /// Anthropic's `content_block`, Nova's `contentBlockDelta`: an object around text.
    Block,
    ToolCalls,
    Function,
    Audio,
    /// The list in which OpenAI's form packs images and embeddings.
    Data,
    /// TGI's piece of a stream, and the details of a whole text.
    Token,
    Details,
    /// Generated text, or an object around it.
    Text,
    /// All of the text, after its pieces if it was streamed.
    Whole,
    /// What a tool is called with: text, or an object.
    Arguments,
    /// Generated reasoning, under its two names that some servers send side by side.
    Reasoning,
    ReasoningContent,
    /// The same again, in parts.
    ReasoningDetails,
    /// How the Responses API was to think; what was thought, where somebody puts it there.
    Thinking,

    // What a document says about itself.
    Type,
    Error,
    /// A list of errors, which may be empty.
    Errors,
    /// The code or text of an error, which may say that there is none.
    ErrorCode,
    /// Whether the call succeeded.
    Success,
    /// SGLang's counts, beside all of the text so far.
    Cumulative,
}

impl JsonPlace for Node {
    fn wants(self) -> Wants {
        match self {
            Node::Other | Node::Label => Wants::Nothing,
            Node::Count(_)
            | Node::Own(_)
            | Node::Found(_)
            | Node::FoundInList(_)
            | Node::Iteration(_)
            | Node::ToolCount(_)
            | Node::OtherUnit
            | Node::Pointed(_)
            | Node::Type
            | Node::Error
            | Node::ErrorCode
            | Node::Success
            | Node::IterationType
            | Node::PairName
            | Node::PairValue
            | Node::CacheTtl
            | Node::CacheCount => Wants::Scalar,
            Node::Arguments => Wants::TextOrLength,
            Node::Usage
            | Node::UsageMetadata
            | Node::InvocationMetrics
            | Node::Timings
            | Node::Meta
            | Node::Tokens
            | Node::BilledUnits
            | Node::InputDetails
            | Node::OutputDetails
            | Node::Groq
            | Node::Embeddings
            | Node::Statistics
            | Node::CacheCreation
            | Node::CacheDetails
            | Node::Iterations
            | Node::ToolUsage
            | Node::Tool
            | Node::Metadata
            | Node::Metrics
            | Node::Errors
            | Node::Cumulative
            | Node::Counts
            | Node::ListedCounts
            | Node::Way(_) => Wants::Object,
            _ => Wants::Strings,
        }
    }

    fn only_counts(self) -> bool {
        true
    }
}

impl Node {
    /// The place of `key` inside this one, if it is none of [`Node::everyday`]. `events`: the document is one of a stream of named events, where usage
    /// may stand inside what the event is about.
    #[inline(never)]
    pub(super) fn child(self, key: &[u8], events: bool) -> Node {
        match self {
            Node::Root => root(key),
            Node::Usage | Node::UsageMetadata | Node::InvocationMetrics | Node::Timings | Node::Meta => {
                counts(self, key)
            }
            Node::Tokens
            | Node::BilledUnits
            | Node::InputDetails
            | Node::OutputDetails
            | Node::CacheCreation => part(self, key),
            Node::CacheDetails => match key {
                b"ttl" => Node::CacheTtl,
                b"inputTokens" => Node::CacheCount,
                _ => Node::Other,
            },
            Node::Iterations if key == b"type" => Node::IterationType,
            Node::Iterations => match counts(Node::Usage, key) {
                Node::Count(field) => Node::Iteration(field),
                _ => Node::Other,
            },
            Node::ToolUsage => Node::Tool,
            Node::Tool => match counts(Node::Usage, key) {
                Node::Count(field) => Node::ToolCount(field),
                _ => Node::Other,
            },
            Node::Aside | Node::Listed | Node::Counts | Node::ListedCounts => aside(key, self),
            Node::Errors => Node::Error,
            Node::Cumulative => match aside(key, Node::Aside) {
                found @ (Node::Found(_) | Node::Counts) => found,
                _ => Node::Other,
            },
            Node::Metadata if names::is_usage(key) => Node::Counts,
            Node::Metadata => Node::Other,
            Node::Metrics => match key {
                b"metric" | b"name" | b"key" => Node::PairName,
                b"value" | b"count" => Node::PairValue,
                _ => match aside(key, Node::Aside) {
                    found @ Node::Found(_) => found,
                    _ => Node::Other,
                },
            },
            Node::Groq => one(key, b"usage", Node::Usage),
            Node::Embeddings => one(key, b"statistics", Node::Statistics),
            Node::Statistics => one(key, b"token_count", Node::Own(Field::Predicted)),
            Node::Message | Node::Delta | Node::Response if events && key == b"usage" => Node::Usage,
            Node::Response if events && key == b"error" => Node::Error,
            // The end of Cohere's first kind of stream.
            Node::Response if key == b"meta" => Node::Meta,
            Node::Response if events && key == b"tool_usage" => Node::ToolUsage,
            Node::Response => match root(key) {
                Node::Usage | Node::UsageMetadata => Node::Counts,
                Node::Own(field) => Node::Found(field),
                // Only the document itself has these.
                Node::Type | Node::Error | Node::Errors | Node::ErrorCode | Node::Success => Node::Other,
                node => node,
            },
            Node::Unknown => Node::Unknown,
            _ => text(self, key),
        }
    }

    /// Members that nearly every event repeats, before all others are looked through: they are half of a stream's keys.
    #[inline(always)]
    pub(super) fn everyday(self, key: &[u8]) -> Option<Node> {
        let label = match key.len() {
            2 => key == b"id",
            4 if self == Node::Delta && key == b"text" => return Some(Node::Text),
            4 if self == Node::Root && key == b"type" => return Some(Node::Type),
            4 => key == b"role" || key == b"type",
            5 if self == Node::Root && key == b"delta" => return Some(Node::Delta),
            5 if self == Node::Choices && key == b"delta" => return Some(Node::ChoiceMessage),
            5 => key == b"index" || key == b"model",
            6 => key == b"object",
            7 if self == Node::Root && key == b"choices" => return Some(Node::Choices),
            7 if self == Node::ChoiceMessage && key == b"content" => return Some(Node::Content),
            7 => key == b"created",
            8 if key == b"logprobs" && self.has_labels() => return Some(Node::Other),
            12 => key == b"service_tier",
            13 => key == b"finish_reason",
            18 => key == b"system_fingerprint",
            _ => false,
        };
        (label && self.has_labels()).then_some(Node::Label)
    }

    /// Whether a member that is called like a label is one.
    fn has_labels(self) -> bool {
        !matches!(
            self,
            Node::Unknown | Node::Aside | Node::Listed | Node::Counts | Node::ListedCounts | Node::Iterations
        )
    }

    /// The place of an element of an array.
    pub(super) fn element(self) -> Node {
        match self {
            Node::Aside => Node::Listed,
            Node::Counts => Node::ListedCounts,
            Node::Errors => Node::Error,
            node => node,
        }
    }

    /// Whether something has to be done when an object here begins.
    pub(super) fn is_marked(self) -> bool {
        matches!(
            self,
            Node::Usage
                | Node::UsageMetadata
                | Node::InvocationMetrics
                | Node::Timings
                | Node::Meta
                | Node::Cumulative
        )
    }
}

fn one(key: &[u8], name: &[u8], node: Node) -> Node {
    if key == name { node } else { Node::Other }
}

fn root(key: &[u8]) -> Node {
    match key {
        b"usage" | b"usage_info" => Node::Usage,
        b"usageMetadata" => Node::UsageMetadata,
        b"meta_info" => Node::Cumulative,
        b"metadata" => Node::Metadata,
        b"metrics" => Node::Metrics,
        b"tool_usage" => Node::ToolUsage,
        b"interaction" => Node::Response,
        b"steps" | b"step" => Node::Unknown,
        b"x_groq" => Node::Groq,
        b"amazon-bedrock-invocationMetrics" => Node::InvocationMetrics,
        b"timings" => Node::Timings,
        b"meta" => Node::Meta,
        b"predictions" => Node::Predictions,
        b"results" => Node::Results,
        b"tokens_evaluated" | b"prompt_eval_count" | b"prompt_token_count" | b"inputTextTokenCount" => {
            Node::Own(Field::Input)
        }
        b"tokens_predicted" | b"eval_count" | b"generation_token_count" | b"totalOutputTextTokenCount" => {
            Node::Own(Field::Output)
        }
        b"choices" => Node::Choices,
        b"message" => Node::Message,
        b"delta" => Node::Delta,
        b"response" => Node::Response,
        b"output" => Node::Output,
        b"outputs" | b"generations" => Node::Outputs,
        b"candidates" => Node::Candidates,
        b"content" => Node::Content,
        b"content_block" | b"contentBlockDelta" | b"contentBlockStart" | b"start" | b"messageStart"
        | b"messageStop" => Node::Block,
        b"text" | b"completion" | b"generation" | b"outputText" | b"thinking" => Node::Text,
        b"tool_calls" => Node::ToolCalls,
        b"item" | b"part" => Node::Output,
        b"data" => Node::Data,
        b"token" => Node::Token,
        b"generated_text" | b"segments" => Node::Whole,
        b"reasoning" => Node::Thinking,
        b"details" => Node::Details,
        b"type" | b"event_type" => Node::Type,
        b"error" => Node::Error,
        b"errors" => Node::Errors,
        b"error_code" | b"errorCode" | b"error_msg" | b"error_message" | b"errorMessage" => Node::ErrorCode,
        b"success" => Node::Success,
        _ => match whole(key) {
            Node::Unknown => aside(key, Node::Aside),
            known => known,
        },
    }
}

/// A member of an object beside what was generated, where nobody knows it: a count by its name, an object of counts,
/// something that was generated after all, or more of the same.
#[cold]
fn aside(key: &[u8], place: Node) -> Node {
    let is_listed = matches!(place, Node::Listed | Node::ListedCounts);
    let is_named = matches!(place, Node::Counts | Node::ListedCounts);
    if let Some(field) = names::field(key, is_named) {
        return if is_listed { Node::FoundInList(field) } else { Node::Found(field) };
    }
    if names::is_usage(key) {
        return if is_listed { Node::ListedCounts } else { Node::Counts };
    }
    let is = |names: &[&[u8]]| names.iter().any(|name| key.eq_ignore_ascii_case(name));
    match () {
        () if is(COUNTED_ELSEWHERE) => Node::Other,
        () if is_named => place,
        () if is(GENERATED) => Node::Unknown,
        () => place,
    }
}

/// Members that hold what was generated, or what the request said: a count in them may be anybody's.
const GENERATED: &[&[u8]] = &[
    b"answer",
    b"args",
    b"arguments",
    b"artifacts",
    b"completion",
    b"content",
    b"contents",
    b"delta",
    b"function",
    b"function_call",
    b"functioncall",
    b"generated_text",
    b"input",
    b"inputs",
    b"json",
    b"message",
    b"messages",
    b"object",
    b"outputs",
    b"parameters",
    b"parsed",
    b"part",
    b"parts",
    b"reply",
    b"schema",
    b"structured_output",
    b"text",
    b"tool_calls",
    b"toolcalls",
    b"tool_use",
    b"tooluse",
    b"tools",
    b"value",
    b"values",
    // What may be used, and not what was.
    b"limit",
    b"limits",
    b"rate_limit",
    b"rate_limits",
    b"ratelimit",
    b"quota",
    b"budget",
    b"config",
    b"pricing",
];

/// Members of an object of counts that count money, or a part of what is counted already.
const COUNTED_ELSEWHERE: &[&[u8]] = &[b"cost", b"costs", b"cost_details", b"price", b"server_tool_use"];

/// The members of an object that holds counts.
fn counts(node: Node, key: &[u8]) -> Node {
    let field = match (node, key) {
        (Node::Usage, b"prompt_tokens") => Field::Input,
        (Node::Usage, b"input_tokens" | b"inputTokens") => Field::FreshInput,
        (Node::Usage, b"completion_tokens" | b"output_tokens" | b"outputTokens") => Field::Output,
        (Node::Usage, b"total_tokens" | b"totalTokens") => Field::Total,
        (Node::Usage, b"cache_read_input_tokens" | b"cacheReadInputTokens") => Field::CacheRead,
        (Node::Usage, b"cache_creation_input_tokens" | b"cacheWriteInputTokens") => Field::CacheWrite,
        (Node::Usage, b"prompt_cache_hit_tokens" | b"cached_tokens") => Field::Cached,
        (Node::Usage, b"seconds" | b"pages_processed") => return Node::OtherUnit,
        (Node::Usage, b"cache_creation") => return Node::CacheCreation,
        (Node::Usage, b"cacheDetails") => return Node::CacheDetails,
        (Node::Usage, b"iterations") => return Node::Iterations,
        (Node::Usage, b"prompt_tokens_details" | b"input_tokens_details" | b"input_token_details") => {
            return Node::InputDetails;
        }
        (Node::Usage, b"completion_tokens_details" | b"output_tokens_details" | b"output_token_details") => {
            return Node::OutputDetails;
        }
        (Node::Usage | Node::Meta, b"tokens") => return Node::Tokens,
        (Node::Usage | Node::Meta, b"billed_units") => return Node::BilledUnits,
        (Node::UsageMetadata, b"promptTokenCount") => Field::Input,
        (Node::UsageMetadata, b"candidatesTokenCount" | b"responseTokenCount") => Field::Output,
        (Node::UsageMetadata, b"thoughtsTokenCount") => Field::Thoughts,
        (Node::UsageMetadata, b"toolUsePromptTokenCount") => Field::ToolUse,
        (Node::UsageMetadata, b"cachedContentTokenCount") => Field::Cached,
        (Node::UsageMetadata, b"totalTokenCount") => Field::Total,
        (Node::InvocationMetrics, b"inputTokenCount") => Field::FreshInput,
        (Node::InvocationMetrics, b"outputTokenCount") => Field::Output,
        (Node::InvocationMetrics, b"cacheReadInputTokenCount") => Field::CacheRead,
        (Node::InvocationMetrics, b"cacheWriteInputTokenCount") => Field::CacheWrite,
        (Node::Timings, b"prompt_n") => Field::FreshInput,
        (Node::Timings, b"cache_n") => Field::CacheRead,
        (Node::Timings, b"predicted_n") => Field::Output,
        (Node::Usage | Node::Meta, _) => return by_name(key),
        _ => return Node::Other,
    };
    Node::Count(field)
}

/// A member of an object that holds counts, where nobody listed it.
#[cold]
fn by_name(key: &[u8]) -> Node {
    let is_detail = key.ends_with(b"etails");
    match names::field(key, true) {
        Some(field) => Node::Count(field),
        None if is_detail && key.to_ascii_lowercase().starts_with(b"prompt") => Node::InputDetails,
        None if is_detail && key.to_ascii_lowercase().starts_with(b"input") => Node::InputDetails,
        None if is_detail => Node::OutputDetails,
        None => Node::Other,
    }
}

/// The members of an object inside one that holds counts.
fn part(node: Node, key: &[u8]) -> Node {
    let field = match (node, key) {
        (Node::InputDetails, b"cached_tokens") => Field::Cached,
        (Node::InputDetails, b"cache_write_tokens") => Field::Written,
        (Node::OutputDetails, b"reasoning_tokens" | b"thinking_tokens") => Field::Reasoning,
        (Node::CacheCreation, b"ephemeral_5m_input_tokens") => Field::CacheWrite5m,
        (Node::CacheCreation, b"ephemeral_1h_input_tokens") => Field::CacheWrite1h,
        (Node::Tokens, b"input_tokens") => Field::Input,
        (Node::Tokens, b"output_tokens") => Field::Output,
        (Node::BilledUnits, b"input_tokens") => Field::BilledInput,
        (Node::BilledUnits, b"image_tokens") => Field::BilledImages,
        (Node::BilledUnits, b"output_tokens") => Field::BilledOutput,
        (Node::BilledUnits, b"search_units" | b"classifications" | b"images") => return Node::OtherUnit,
        (
            Node::InputDetails | Node::OutputDetails,
            b"audio_tokens"
            | b"text_tokens"
            | b"image_tokens"
            | b"accepted_prediction_tokens"
            | b"rejected_prediction_tokens",
        ) => return Node::Other,
        (Node::InputDetails | Node::OutputDetails, _) => return detail(key),
        _ => return Node::Other,
    };
    Node::Count(field)
}

/// What details say of the parts that have a price of their own; all others are parts of what is counted already.
#[cold]
fn detail(key: &[u8]) -> Node {
    match names::field(key, false) {
        Some(Field::Cached | Field::CacheRead) => Node::Count(Field::Cached),
        Some(Field::CacheWrite) => Node::Count(Field::Written),
        Some(Field::Reasoning | Field::Thoughts) => Node::Count(Field::Reasoning),
        _ => Node::Other,
    }
}

/// The members of an object with generated text somewhere inside.
fn text(node: Node, key: &[u8]) -> Node {
    match (node, key) {
        (Node::Choices, b"message" | b"delta") => Node::ChoiceMessage,
        (Node::Choices | Node::Output, b"usage") => Node::Counts,
        (Node::Details, b"input_length") => Node::Found(Field::Input),
        (Node::Choices | Node::Outputs, b"text") => Node::Text,
        (Node::ChoiceMessage | Node::Message, b"content") => Node::Content,
        (Node::ChoiceMessage | Node::Message, b"tool_calls") => Node::ToolCalls,
        (Node::ChoiceMessage, b"reasoning_content") => Node::ReasoningContent,
        (Node::ChoiceMessage, b"reasoning") => Node::Reasoning,
        (Node::ChoiceMessage, b"reasoning_details" | b"thinking_blocks") => Node::ReasoningDetails,
        (Node::ChoiceMessage, b"refusal") => Node::Text,
        (Node::ChoiceMessage, b"audio") => Node::Audio,
        (Node::Audio, b"transcript") => Node::Text,
        (Node::ChoiceMessage, b"function_call") | (Node::ToolCalls, b"function") => Node::Function,
        (Node::Function, b"name") => Node::Text,
        (Node::Function, b"arguments" | b"args" | b"input") | (Node::Block | Node::Content, b"input") => {
            Node::Arguments
        }
        (Node::ToolCalls, b"custom") => Node::Function,
        (Node::ToolCalls, b"parameters" | b"arguments" | b"args" | b"input") => Node::Arguments,
        (Node::Message, b"thinking" | b"tool_plan") => Node::Text,
        (Node::Delta, b"text" | b"thinking" | b"partial_json") => Node::Text,
        (Node::Delta | Node::Output, b"message") => Node::Message,
        (Node::Delta, b"reasoningContent" | b"toolUse") => Node::Block,
        (Node::Content, b"text" | b"refusal") => Node::Text,
        (Node::Content, b"thinking" | b"reasoningContent" | b"reasoningText" | b"content") => Node::Content,
        (Node::Block, b"delta") => Node::Delta,
        (Node::Block, b"start" | b"toolUse") => Node::Block,
        (Node::Block, b"text" | b"thinking") => Node::Text,
        (Node::Block, b"content") => Node::Content,
        (Node::Content, b"functionCall") => Node::Function,
        (Node::Content, b"toolUse") => Node::Block,
        (Node::Output, b"content" | b"summary") => Node::Content,
        (Node::Output, b"text" | b"arguments") => Node::Text,
        (Node::Output, b"choices") => Node::Choices,
        (Node::Results, b"outputText") => Node::Text,
        (Node::Results, b"tokenCount") => Node::Own(Field::Generated),
        (Node::Candidates, b"content") => Node::CandidateContent,
        (Node::CandidateContent, b"parts") => Node::Content,
        (Node::Predictions, b"embeddings") => Node::Embeddings,
        (Node::Text | Node::Whole | Node::Reasoning | Node::ReasoningContent | Node::ReasoningDetails, _) => {
            match known(node, key) {
                // Where text is an object, its members are of the same kind.
                Node::Unknown => node,
                known => known,
            }
        }
        (Node::Results, _) => match known(node, key) {
            Node::Unknown => aside(key, Node::Listed),
            known => known,
        },
        (Node::Data | Node::Details, _) => match known(node, key) {
            Node::Unknown if matches!(key, b"choices") => Node::Choices,
            Node::Unknown => aside(key, Node::Aside),
            known => known,
        },
        _ => known(node, key),
    }
}
