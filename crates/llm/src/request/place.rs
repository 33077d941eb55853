//! Where requests put what we look for: model, maxima, and everything that the model will read. One table for all
//! dialects; which maxima count in which dialect is decided in `maximum.rs`.

use super::maximum::Kind;
use crate::json;
use crate::json::Wants;

/// A place in a request. Arrays are transparent: an element is where its array is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// The body itself.
    #[default]
    Root,
    /// A place without a meaning to us.
    Nowhere,

    Model,
    User,
    /// Anthropic's `metadata.user_id`.
    MetadataUser,
    Stream,
    /// A session's name; the first of the three that is given counts.
    Session(SessionSource),
    Metadata,
    LitellmMetadata,
    Maximum(Kind),
    /// How many completions are asked for.
    Completions,
    /// An object with settings of the generation.
    Settings(Settings),

    /// What the model reads: text, token ids, or objects with them inside.
    Content,
    /// Calls of tools: their names and arguments are read.
    Calls,
    /// Any string inside is read: the arguments and results of tools.
    Tool,
    /// One text or token id of it.
    Text,
    /// What a part says it is.
    PartType,
    /// An image, in a place that holds nothing else.
    Image,
    /// A file, inline or by reference.
    File,
    FileType,
    FileData,
    FileReference,

    /// Told by its presence alone.
    Sign(Sign),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionSource {
    LitellmSessionId,
    Metadata,
    LitellmMetadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settings {
    /// Gemini's `generationConfig`.
    Generation,
    /// Bedrock Converse's and Nova's `inferenceConfig`.
    Inference,
    /// Ollama's `options`.
    Options,
    /// Titan's `textGenerationConfig`.
    TextGeneration,
    /// `parameters` of Vertex and TGI.
    Parameters,
}

/// A field that tells the dialect of a body whose path does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    AnthropicVersion,
    /// A field of OpenAI's Responses API that no embedding has.
    Response,
}

impl json::Place for Place {
    fn wants(self) -> Wants {
        match self {
            Place::Nowhere => Wants::Nothing,
            Place::Root
            | Place::Metadata
            | Place::LitellmMetadata
            | Place::Settings(_)
            | Place::Calls
            | Place::File => Wants::Object,
            Place::Model | Place::User | Place::MetadataUser | Place::Session(_) | Place::FileData => {
                Wants::Text
            }
            Place::Content | Place::Tool | Place::Text => Wants::Anything,
            Place::Image => Wants::TextOrObject,
            Place::Stream
            | Place::Maximum(_)
            | Place::Completions
            | Place::PartType
            | Place::FileType
            | Place::FileReference
            | Place::Sign(_) => Wants::Scalar,
        }
    }

    fn only_counts(self) -> bool {
        matches!(self, Place::Content | Place::Tool | Place::Text)
    }
}

impl Place {
    /// The place of `key` inside this one.
    pub(super) fn child(self, key: &[u8]) -> Place {
        match self {
            Place::Root => find(ROOT, key),
            Place::Metadata if key == b"session_id" => Place::Session(SessionSource::Metadata),
            Place::Metadata if key == b"user_id" => Place::MetadataUser,
            Place::LitellmMetadata if key == b"session_id" => Place::Session(SessionSource::LitellmMetadata),
            Place::Settings(settings) => setting(settings, key),
            Place::Content => find(CONTENT, key),
            Place::Calls => find(CALL, key),
            Place::Tool => Place::Tool,
            Place::File => find(FILE, key),
            _ => Place::Nowhere,
        }
    }
}

/// Names and the places they lead to: data, since the code for so many comparisons is many times as large.
type Names = &'static [(&'static [u8], Place)];

fn find(names: Names, key: &[u8]) -> Place {
    names.iter().find(|(name, _)| *name == key).map_or(Place::Nowhere, |(_, place)| *place)
}

/// The members of a body.
static ROOT: Names = &[
    (b"model", Place::Model),
    (b"modelId", Place::Model),
    (b"user", Place::User),
    (b"stream", Place::Stream),
    (b"litellm_session_id", Place::Session(SessionSource::LitellmSessionId)),
    (b"metadata", Place::Metadata),
    (b"litellm_metadata", Place::LitellmMetadata),
    (b"max_tokens", Place::Maximum(Kind::MaxTokens)),
    (b"max_completion_tokens", Place::Maximum(Kind::MaxCompletionTokens)),
    (b"max_output_tokens", Place::Maximum(Kind::MaxOutputTokens)),
    (b"max_tokens_to_sample", Place::Maximum(Kind::MaxTokensToSample)),
    (b"maxOutputTokens", Place::Maximum(Kind::Other)),
    (b"maxTokens", Place::Maximum(Kind::Other)),
    (b"max_new_tokens", Place::Maximum(Kind::Other)),
    (b"max_gen_len", Place::Maximum(Kind::Other)),
    (b"n_predict", Place::Maximum(Kind::Other)),
    (b"num_predict", Place::Maximum(Kind::Other)),
    (b"n", Place::Completions),
    (b"best_of", Place::Completions),
    (b"candidateCount", Place::Completions),
    (b"candidate_count", Place::Completions),
    (b"num_generations", Place::Completions),
    (b"numResults", Place::Completions),
    (b"generationConfig", Place::Settings(Settings::Generation)),
    (b"generation_config", Place::Settings(Settings::Generation)),
    (b"inferenceConfig", Place::Settings(Settings::Inference)),
    (b"options", Place::Settings(Settings::Options)),
    (b"textGenerationConfig", Place::Settings(Settings::TextGeneration)),
    (b"parameters", Place::Settings(Settings::Parameters)),
    (b"messages", Place::Content),
    (b"contents", Place::Content),
    (b"chat_history", Place::Content),
    (b"prompt", Place::Content),
    (b"suffix", Place::Content),
    (b"input", Place::Content),
    (b"inputs", Place::Content),
    (b"inputText", Place::Content),
    (b"texts", Place::Content),
    (b"message", Place::Content),
    (b"content", Place::Content),
    (b"text", Place::Content),
    (b"query", Place::Content),
    (b"documents", Place::Content),
    (b"instances", Place::Content),
    (b"requests", Place::Content),
    (b"input_prefix", Place::Content),
    (b"input_suffix", Place::Content),
    (b"system", Place::Content),
    (b"systemInstruction", Place::Content),
    (b"system_instruction", Place::Content),
    (b"instructions", Place::Content),
    (b"preamble", Place::Content),
    (b"images", Place::Image),
    (b"image", Place::Image),
    (b"anthropic_version", Place::Sign(Sign::AnthropicVersion)),
    (b"previous_response_id", Place::Sign(Sign::Response)),
    (b"reasoning", Place::Sign(Sign::Response)),
    (b"store", Place::Sign(Sign::Response)),
    (b"background", Place::Sign(Sign::Response)),
    (b"truncation", Place::Sign(Sign::Response)),
];

/// The members of a message, of a part of one, or of an element of an input.
static CONTENT: Names = &[
    (b"text", Place::Text),
    (b"thinking", Place::Text),
    (b"reasoning_content", Place::Text),
    (b"refusal", Place::Text),
    (b"transcript", Place::Text),
    (b"query", Place::Text),
    (b"title", Place::Text),
    (b"prompt", Place::Text),
    (b"snippet", Place::Text),
    (b"content", Place::Content),
    (b"parts", Place::Content),
    (b"message", Place::Content),
    (b"output", Place::Content),
    (b"summary", Place::Content),
    (b"toolResult", Place::Content),
    (b"tool_results", Place::Content),
    (b"reasoningContent", Place::Content),
    (b"reasoningText", Place::Content),
    (b"instances", Place::Content),
    (b"tool_calls", Place::Calls),
    (b"function_call", Place::Calls),
    (b"toolUse", Place::Calls),
    (b"functionCall", Place::Calls),
    (b"functionResponse", Place::Calls),
    (b"arguments", Place::Tool),
    (b"input", Place::Tool),
    (b"json", Place::Tool),
    (b"outputs", Place::Tool),
    (b"data", Place::Tool),
    (b"type", Place::PartType),
    (b"image", Place::Image),
    (b"images", Place::Image),
    (b"inlineData", Place::File),
    (b"inline_data", Place::File),
    (b"fileData", Place::File),
    (b"input_audio", Place::File),
    (b"file", Place::File),
    (b"source", Place::File),
    (b"document", Place::File),
    (b"video", Place::File),
    (b"audio", Place::File),
    (b"file_data", Place::FileData),
    (b"file_id", Place::FileReference),
    (b"file_url", Place::FileReference),
];

/// Of a call of a tool.
static CALL: Names = &[
    (b"function", Place::Calls),
    (b"name", Place::Tool),
    (b"arguments", Place::Tool),
    (b"args", Place::Tool),
    (b"input", Place::Tool),
    (b"response", Place::Tool),
    (b"parameters", Place::Tool),
];

/// Of a file.
static FILE: Names = &[
    (b"mimeType", Place::FileType),
    (b"mime_type", Place::FileType),
    (b"media_type", Place::FileType),
    (b"format", Place::FileType),
    (b"type", Place::FileType),
    (b"data", Place::FileData),
    (b"file_data", Place::FileData),
    (b"bytes", Place::FileData),
    (b"text", Place::FileData),
    (b"fileUri", Place::FileReference),
    (b"file_uri", Place::FileReference),
    (b"url", Place::FileReference),
    (b"file_id", Place::FileReference),
    (b"uri", Place::FileReference),
    (b"s3Location", Place::FileReference),
    (b"source", Place::File),
    (b"content", Place::Content),
];

fn setting(settings: Settings, key: &[u8]) -> Place {
    match (settings, key) {
        (Settings::Generation | Settings::Parameters, b"maxOutputTokens" | b"max_output_tokens")
        | (Settings::Inference, b"maxTokens" | b"max_new_tokens")
        | (Settings::Options, b"num_predict")
        | (Settings::TextGeneration, b"maxTokenCount")
        | (Settings::Parameters, b"max_new_tokens") => Place::Maximum(Kind::Setting(settings)),
        (Settings::Generation | Settings::Parameters, b"candidateCount" | b"candidate_count") => {
            Place::Completions
        }
        (Settings::Parameters, b"sampleCount" | b"best_of" | b"num_return_sequences") => Place::Completions,
        _ => Place::Nowhere,
    }
}
