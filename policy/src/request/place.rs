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
            Place::Root => root(key),
            Place::Metadata if key == b"session_id" => Place::Session(SessionSource::Metadata),
            Place::Metadata if key == b"user_id" => Place::MetadataUser,
            Place::LitellmMetadata if key == b"session_id" => Place::Session(SessionSource::LitellmMetadata),
            Place::Settings(settings) => setting(settings, key),
            Place::Content => content(key),
            Place::Calls => call(key),
            Place::Tool => Place::Tool,
            Place::File => file(key),
            _ => Place::Nowhere,
        }
    }
}

fn root(key: &[u8]) -> Place {
    match key {
        b"model" | b"modelId" => Place::Model,
        b"user" => Place::User,
        b"stream" => Place::Stream,
        b"litellm_session_id" => Place::Session(SessionSource::LitellmSessionId),
        b"metadata" => Place::Metadata,
        b"litellm_metadata" => Place::LitellmMetadata,
        b"max_tokens" => Place::Maximum(Kind::MaxTokens),
        b"max_completion_tokens" => Place::Maximum(Kind::MaxCompletionTokens),
        b"max_output_tokens" => Place::Maximum(Kind::MaxOutputTokens),
        b"max_tokens_to_sample" => Place::Maximum(Kind::MaxTokensToSample),
        b"maxOutputTokens" | b"maxTokens" | b"max_new_tokens" | b"max_gen_len" | b"n_predict"
        | b"num_predict" => Place::Maximum(Kind::Other),
        b"n" | b"best_of" | b"candidateCount" | b"candidate_count" | b"num_generations" | b"numResults" => {
            Place::Completions
        }
        b"generationConfig" | b"generation_config" => Place::Settings(Settings::Generation),
        b"inferenceConfig" => Place::Settings(Settings::Inference),
        b"options" => Place::Settings(Settings::Options),
        b"textGenerationConfig" => Place::Settings(Settings::TextGeneration),
        b"parameters" => Place::Settings(Settings::Parameters),
        b"messages"
        | b"contents"
        | b"chat_history"
        | b"prompt"
        | b"suffix"
        | b"input"
        | b"inputs"
        | b"inputText"
        | b"texts"
        | b"message"
        | b"content"
        | b"text"
        | b"query"
        | b"documents"
        | b"instances"
        | b"requests"
        | b"input_prefix"
        | b"input_suffix"
        | b"system"
        | b"systemInstruction"
        | b"system_instruction"
        | b"instructions"
        | b"preamble" => Place::Content,
        b"images" | b"image" => Place::Image,
        b"anthropic_version" => Place::Sign(Sign::AnthropicVersion),
        b"previous_response_id" | b"reasoning" | b"store" | b"background" | b"truncation" => {
            Place::Sign(Sign::Response)
        }
        _ => Place::Nowhere,
    }
}

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

/// The members of a message, of a part of one, or of an element of an input.
fn content(key: &[u8]) -> Place {
    match key {
        b"text" | b"thinking" | b"reasoning_content" | b"refusal" | b"transcript" | b"query" | b"title"
        | b"prompt" | b"snippet" => Place::Text,
        b"content" | b"parts" | b"message" | b"output" | b"summary" | b"toolResult" | b"tool_results"
        | b"reasoningContent" | b"reasoningText" | b"instances" => Place::Content,
        b"tool_calls" | b"function_call" | b"toolUse" | b"functionCall" | b"functionResponse" => Place::Calls,
        b"arguments" | b"input" | b"json" | b"outputs" | b"data" => Place::Tool,
        b"type" => Place::PartType,
        b"image" | b"images" => Place::Image,
        b"inlineData" | b"inline_data" | b"fileData" | b"input_audio" | b"file" | b"source" | b"document"
        | b"video" | b"audio" => Place::File,
        b"file_data" => Place::FileData,
        b"file_id" | b"file_url" => Place::FileReference,
        _ => Place::Nowhere,
    }
}

fn call(key: &[u8]) -> Place {
    match key {
        b"function" => Place::Calls,
        b"name" | b"arguments" | b"args" | b"input" | b"response" | b"parameters" => Place::Tool,
        _ => Place::Nowhere,
    }
}

fn file(key: &[u8]) -> Place {
    match key {
        b"mimeType" | b"mime_type" | b"media_type" | b"format" | b"type" => Place::FileType,
        b"data" | b"file_data" | b"bytes" | b"text" => Place::FileData,
        b"fileUri" | b"file_uri" | b"url" | b"file_id" | b"uri" | b"s3Location" => Place::FileReference,
        b"source" => Place::File,
        b"content" => Place::Content,
        _ => Place::Nowhere,
    }
}
