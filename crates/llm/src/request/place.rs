//! The relevant places in requests. One table serves all dialects ([`NAMES`]), since their names do not
//! clash. Its rows are in [`crate::providers`]. [`crate::providers::DialectRules`] defines which maxima count
//! in which dialect.
//!
//! Everything counts as text unless it is excluded: an unknown place contains text that a model may read.
//! These are the exclusions and their bounds. Whatever exceeds a bound is text.
//!
//! | place | contents | bound |
//! |---|---|---|
//! | [`Place::Tag`] | roles, types, states, settings of the generation, `tool_choice` | 64 characters each |
//! | [`Place::Name`], [`Place::Model`], [`Place::User`], sessions | names, ids, stop sequences, signatures | 512 characters each |
//! | the keys that are named in the table | `messages`, `role`, `content`, ... | none |
//! | [`Place::Metadata`] | keys and strings in `metadata`, `litellm_metadata`, `labels`, `requestMetadata` | 512 characters each, 16 Ki in all |
//! | [`Place::Data`], [`Place::Reference`] | images and files (`media.rs` defines their costs) | base64, or 4096 characters of a URL |
//!
//! Tags, names and known keys are free only up to the amount of text, and for the first 4096 characters
//! ([`super::tally`]): thousands of roles or ids are text, too.

use super::maximum::{MaximumField, is_completions, is_maximum};
use super::names::{self, NAMES};
use crate::json;
use crate::json::Wants;
use crate::table::Member;

pub(crate) type RequestField = Member<Object, Place>;

/// An object of a request with known member names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Body,
    /// The body, or an object of settings. The model reads none of these members.
    Settings,
    Generation,
    Inference,
    Options,
    TextGeneration,
    Parameters,
    Additional,
    /// A message, a part of one, or an element of an input.
    Content,
    /// A prompt that OpenAI stores.
    Prompt,
    /// A tool call.
    Call,
    ToolConfig,
    /// A file or an image. The table has the places of a file, and `Place::of` converts them to other kinds
    /// of media.
    File,
    /// The body as servers read it that ignore the case of keys. It has only the members that must not be
    /// given twice.
    AnyCase,
}

/// A place in a request. An element of an array is at the place of its array, unless `gather.rs` decides
/// otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// The body.
    #[default]
    Root,
    /// The body inside an envelope.
    Envelope,
    /// In a document that no server reads.
    Nowhere,

    Model,
    /// `MODEL`, which servers that ignore case read as `model`.
    ModelVariant,
    /// `modelId`, which some servers read as the model.
    ModelId,
    /// Further models, which the server may use instead: OpenRouter's `models`, LiteLLM's `fallbacks`.
    Models,
    User,
    /// Anthropic's `metadata.user_id`.
    MetadataUser,
    Stream,
    StreamVariant,
    StreamOptionsVariant,
    /// The name of a session. The first of the three sources that is present counts.
    Session(SessionSource),
    Metadata,
    LitellmMetadata,
    /// Another member of a metadata object.
    Label,
    Maximum(MaximumField),
    MaximumVariant(MaximumField),
    /// A maximum that a server may honour. It can only increase a hold.
    PossibleMaximum,
    /// A maximum in an element of a list. Each element may be a separate request.
    ElementMaximum,
    /// The number of completions.
    Completions,
    /// An object with generation settings.
    Settings(Settings),

    /// All strings and keys in it are text.
    Text,
    /// An unknown place. It counts as text, but servers may honour a maximum in it.
    Unknown,
    /// An unknown place inside a list. Each number may be a token id.
    UnknownElement,
    /// What the model reads: text, token ids, or objects that contain them.
    Content,
    /// The conversation, and a message of it. A list in place of a message is one of several conversations.
    Messages,
    Message,
    /// Documents that the model reads as text, whatever their members are called.
    Documents,
    /// One or more prompts.
    Prompt,
    /// One of several prompts.
    PromptItem,
    /// The name of a tensor, and its values.
    TensorName,
    Tensor,
    /// Tool calls. Their names and arguments are read.
    Calls,
    /// The tool definitions.
    Tools,
    ToolConfig,
    /// The format of the response, which is a name or a schema.
    Format,
    /// A short value from a small set.
    Tag,
    /// A short value that names something.
    Name,
    /// The declared type of a part.
    PartType,
    /// An image or a file, in a place that contains nothing else.
    Media(Media),
    /// The object inside such a place that has the data or its location.
    Source(Media),
    /// The data of an image or a file, or its location.
    Data(Media),
    /// The location of an image or a file.
    Reference(Media),
    FileType,
    FileName,
    /// The name of content that the server stores and the model will read.
    Context,
    /// The name of a prompt that the server stores. It may name the model, too.
    StoredPrompt,

    /// Only its presence matters.
    Sign(Sign),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionSource {
    LitellmSessionId,
    Metadata,
    LitellmMetadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
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
    /// Bedrock Converse's `additionalModelRequestFields`, which has the vendors' own fields.
    Additional,
}

/// The kind of an image or a file, according to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Image,
    /// Audio or video.
    Audio,
    /// The declared type determines it.
    File,
}

/// A field that identifies the dialect if the path does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    AnthropicVersion,
    /// A field of OpenAI's Responses API that embeddings do not have.
    Response,
    /// A field of that API that requests a background response.
    Background,
    /// A field of that API that requests to keep the result in a list.
    Store,
}

/// How the key of a place counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyIs {
    /// A known name.
    Known,
    /// A metadata key.
    Label,
    /// Text, because it is unknown, or because the model also reads keys.
    Text,
}

impl json::JsonPlace for Place {
    fn wants(self) -> Wants {
        match self {
            Place::Nowhere => Wants::Nothing,
            Place::Text => Wants::Count,
            _ => Wants::Anything,
        }
    }

    fn only_counts(self) -> bool {
        match self {
            Place::Root
            | Place::Envelope
            | Place::Nowhere
            | Place::Metadata
            | Place::LitellmMetadata
            | Place::Label
            | Place::StreamOptionsVariant
            | Place::Text
            | Place::Unknown
            | Place::UnknownElement
            | Place::Content
            | Place::Messages
            | Place::Message
            | Place::Documents
            | Place::Prompt
            | Place::PromptItem
            | Place::Calls
            | Place::Tools
            | Place::ToolConfig
            | Place::Format
            | Place::Tag
            | Place::Name
            | Place::Reference(_)
            | Place::Context
            | Place::StoredPrompt
            | Place::Media(Media::File)
            | Place::Source(Media::File) => true,
            Place::Model
            | Place::ModelVariant
            | Place::ModelId
            | Place::Models
            | Place::User
            | Place::MetadataUser
            | Place::Stream
            | Place::StreamVariant
            | Place::Session(_)
            | Place::Maximum(_)
            | Place::MaximumVariant(_)
            | Place::PossibleMaximum
            | Place::ElementMaximum
            | Place::Completions
            | Place::Settings(_)
            | Place::TensorName
            | Place::Tensor
            | Place::PartType
            | Place::Media(Media::Image | Media::Audio)
            | Place::Source(Media::Image | Media::Audio)
            | Place::Data(_)
            | Place::FileType
            | Place::FileName
            | Place::Sign(_) => false,
        }
    }
}

impl Place {
    /// Returns the place of an element if an array replaces a single value here.
    pub(super) fn element(self) -> Place {
        self.child(b"").0
    }

    /// Returns the place of `key` inside this one, and how the key counts.
    pub(super) fn child(self, key: &[u8]) -> (Place, KeyIs) {
        let known = match self {
            Place::Root | Place::Envelope => NAMES
                .find(Object::Body, key)
                .or_else(|| NAMES.find(Object::Settings, key))
                .or_else(|| in_any_case(key)),
            Place::Metadata
            | Place::LitellmMetadata
            | Place::Label
            | Place::Session(_)
            | Place::MetadataUser => {
                return (self.label(key), KeyIs::Label);
            }
            Place::Settings(settings) => {
                NAMES.find(settings.object(), key).or_else(|| NAMES.find(Object::Settings, key))
            }
            Place::Content | Place::Messages | Place::Message => NAMES.find(Object::Content, key),
            Place::Documents => NAMES.find(Object::Content, key).and_then(Place::in_document),
            Place::Models => return (Place::Models, KeyIs::Text),
            Place::Prompt => NAMES.find(Object::Prompt, key).or_else(|| NAMES.find(Object::Content, key)),
            Place::PromptItem if key == b"name" => Some(Place::TensorName),
            Place::PromptItem if key == b"data" => Some(Place::Tensor),
            // Only a single prompt can be one that the server stores.
            Place::PromptItem => {
                let known = NAMES.find(Object::Prompt, key).filter(|place| *place != Place::StoredPrompt);
                known.or_else(|| NAMES.find(Object::Content, key))
            }

            Place::Calls => NAMES.find(Object::Call, key),
            Place::Tools => return (tool(key), KeyIs::Text),
            // `{"type": "int", "value": 100}`.
            Place::Maximum(_) | Place::PossibleMaximum if key == b"value" => Some(Place::PossibleMaximum),
            Place::Completions if key == b"value" => Some(Place::Completions),
            Place::ElementMaximum if key == b"value" => Some(Place::ElementMaximum),
            Place::ToolConfig => NAMES.find(Object::ToolConfig, key),
            Place::Format => format(key),
            // Thinking may have a maximum of its own.
            Place::Tag | Place::Sign(_) if key.ends_with(b"tokens") && is_maximum(key) => {
                Some(Place::PossibleMaximum)
            }
            Place::Tag
            | Place::StreamOptionsVariant
            | Place::Sign(_)
            | Place::Stream
            | Place::StreamVariant
            | Place::Maximum(_)
            | Place::MaximumVariant(_)
            | Place::PossibleMaximum
            | Place::ElementMaximum
            | Place::Completions
            | Place::PartType => Some(Place::Tag),
            Place::Name
            | Place::Model
            | Place::ModelVariant
            | Place::ModelId
            | Place::User
            | Place::FileType
            | Place::FileName => Some(Place::Name),
            Place::Media(media) | Place::Source(media) | Place::Data(media) => {
                NAMES.find(Object::File, key).map(|place| place.of(media))
            }
            Place::Reference(_) if key == b"uri" => Some(self),
            Place::Reference(_) => Some(Place::Name),
            Place::Context if is_context(key) => Some(Place::Context),
            Place::Context | Place::StoredPrompt => Some(Place::Tag),
            Place::Nowhere
            | Place::Text
            | Place::Unknown
            | Place::UnknownElement
            | Place::TensorName
            | Place::Tensor => None,
        };
        match known {
            Some(place) => (place, KeyIs::Known),
            None if self.may_hold_maximum() && is_maximum(key) => (self.maximum(), KeyIs::Known),
            None if self.may_hold_maximum() && is_completions(key) => (Place::Completions, KeyIs::Known),
            None if self == Place::UnknownElement => (self, KeyIs::Text),
            None if self.is_settings() => (Place::Unknown, KeyIs::Text),
            None => (Place::Text, KeyIs::Text),
        }
    }

    /// Returns whether each string here is text that a model may read.
    pub(super) fn is_text(self) -> bool {
        matches!(
            self,
            Place::Text
                | Place::Unknown
                | Place::UnknownElement
                | Place::Content
                | Place::Messages
                | Place::Message
                | Place::Documents
                | Place::Prompt
                | Place::PromptItem
        )
    }

    /// Returns the place of a known member in a document: text, unless it is a name or the like.
    fn in_document(self) -> Option<Place> {
        match self {
            Place::Media(_)
            | Place::Source(_)
            | Place::Data(_)
            | Place::Reference(_)
            | Place::Context
            | Place::StoredPrompt => None,
            Place::Content | Place::Calls => Some(Place::Documents),
            place => Some(place),
        }
    }

    /// Returns whether the members of this place configure generation, as far as is known.
    fn is_settings(self) -> bool {
        matches!(
            self,
            Place::Root | Place::Envelope | Place::Settings(_) | Place::Unknown | Place::UnknownElement
        )
    }

    /// Returns whether this place may contain a maximum. Replicate puts settings next to the prompt, in
    /// `input`, and Vertex puts them in each of its `instances`.
    fn may_hold_maximum(self) -> bool {
        self.is_settings() || matches!(self, Place::Content | Place::Prompt | Place::PromptItem)
    }

    /// Returns the place of a maximum that a server may honour.
    fn maximum(self) -> Place {
        if self == Place::UnknownElement { Place::ElementMaximum } else { Place::PossibleMaximum }
    }

    fn label(self, key: &[u8]) -> Place {
        match (self, key) {
            (Place::Metadata, b"session_id") => Place::Session(SessionSource::Metadata),
            (Place::Metadata, b"user_id") => Place::MetadataUser,
            (Place::LitellmMetadata, b"session_id") => Place::Session(SessionSource::LitellmMetadata),
            _ => Place::Label,
        }
    }

    /// Converts a place of a file in [`Object::File`] to this kind of media.
    fn of(self, media: Media) -> Place {
        match self {
            Place::Source(_) => Place::Source(media),
            Place::Data(_) => Place::Data(media),
            Place::Reference(_) => Place::Reference(media),
            other => other,
        }
    }
}

impl Settings {
    fn object(self) -> Object {
        match self {
            Settings::Generation => Object::Generation,
            Settings::Inference => Object::Inference,
            Settings::Options => Object::Options,
            Settings::TextGeneration => Object::TextGeneration,
            Settings::Parameters => Object::Parameters,
            Settings::Additional => Object::Additional,
        }
    }
}

/// Returns whether a key of the body is the name of settings, except for its case.
pub(super) fn is_settings_in_another_case(key: &[u8]) -> bool {
    let mut folded = [0; names::MAX_NAME];
    let place = names::folded(key, &mut folded).and_then(|key| NAMES.find(Object::Body, key));
    matches!(place, Some(Place::Settings(_)))
}

fn in_any_case(key: &[u8]) -> Option<Place> {
    NAMES.find(Object::AnyCase, names::folded(key, &mut [0; names::MAX_NAME])?)
}

fn tool(key: &[u8]) -> Place {
    match key {
        b"vector_store_ids" | b"container" => Place::Context,
        _ => Place::Text,
    }
}

fn format(key: &[u8]) -> Option<Place> {
    match key {
        b"type" | b"effort" | b"verbosity" => Some(Place::Tag),
        b"format" => Some(Place::Format),
        _ => None,
    }
}

fn is_context(key: &[u8]) -> bool {
    matches!(key, b"id" | b"file_ids" | b"skills" | b"skill_id")
}
