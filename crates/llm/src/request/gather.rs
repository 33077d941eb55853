//! Collects what the scanner reports about a request's body: a few short values, and counts of everything
//! that a model may read.

mod files;
mod settings;
mod tensor;

use super::given::{GivenBool, GivenText, Kept};
use super::image::SizedImages;
use super::maximum::Maxima;
use super::media::{Files, MAX_REFERENCE, Type, tokens_of_recording};
use super::open::Open;
use super::place::{KeyIs, Media, Place, SessionSource, Sign, is_settings_in_another_case};
use super::route::Route;
use super::seen::Seen;
use super::tally::CharacterTally;
use crate::json::{Counted, Reader, characters};
use crate::response::count;
use files::MessagePart;
use settings::SettingsText;
use tensor::OpenTensor;

/// The longest tag, in characters. Some types are longer than 40 characters.
const TAG: u64 = 64;
/// The longest name, in characters.
const NAME: u64 = 512;
/// The cost in tokens of context that the server adds and the body only references: an earlier conversation,
/// cached content, a stored prompt or a file store. This is the smallest context that Gemini caches.
const CONTEXT_TOKENS: u64 = 4096;
/// A number or literal of at most this many bytes counts as one token, like a token id. Longer ones count as
/// text.
const SCALAR: u64 = 8;

/// The contents of a body.
#[derive(Clone, Debug, Default)]
pub(super) struct Gather {
    pub(super) model: GivenText,
    pub(super) model_variant: GivenText,
    pub(super) model_id: GivenText,
    pub(super) other_models: GivenText,
    pub(super) user: Kept,
    pub(super) metadata_user: Kept,
    /// The sessions in order of precedence.
    pub(super) sessions: [Kept; 3],
    pub(super) stream: GivenBool,
    pub(super) stream_variant: GivenBool,
    /// Whether `stream_options` appears under a key in another case.
    pub(super) stream_options_variant: bool,
    pub(super) background: bool,
    pub(super) store: bool,
    pub(super) maxima: Maxima,
    pub(super) completions: Option<u64>,
    /// The number of prompts, if they are a list.
    pub(super) prompts: u64,
    /// The number of conversations, if there are several.
    pub(super) conversations: u64,
    /// The number of documents in the body, if it is a list.
    pub(super) documents: u64,
    pub(super) seen: Seen,
    /// The counts of characters.
    pub(super) tally: CharacterTally,
    /// Tokens given as ids, and the tokens of files and contexts.
    pub(super) tokens: u64,
    /// The number of images of unknown size, and the images of known size.
    pub(super) images: u64,
    pub(super) sized: SizedImages,
    /// Bytes of the body that were counted as images or files.
    pub(super) media: u64,
    pub(super) malformed: bool,
    /// Whether the body has something for a model to read, even if there is no text.
    pub(super) has_parts: bool,
    /// Whether the first document has ended. No server reads what follows.
    over: bool,
    /// Whether the API has a body inside an envelope.
    reads_envelope: bool,
    open: Open,
    part: MessagePart,
    file: Files,
    tensor: OpenTensor,
    settings: SettingsText,
}

impl Gather {
    pub(super) fn of_route(route: &Route) -> Self {
        // Perplexity's asynchronous API has an envelope.
        Self { reads_envelope: route.background, ..Self::default() }
    }

    fn kept(&mut self, place: Place) -> Option<&mut Kept> {
        let [first, second, third] = &mut self.sessions;
        Some(match place {
            Place::User => &mut self.user,
            Place::MetadataUser => &mut self.metadata_user,
            Place::Session(SessionSource::LitellmSessionId) => first,
            Place::Session(SessionSource::Metadata) => second,
            Place::Session(SessionSource::LitellmMetadata) => third,
            _ => return None,
        })
    }

    fn model_at(&mut self, place: Place) -> Option<&mut GivenText> {
        match place {
            Place::Model => Some(&mut self.model),
            Place::ModelVariant => Some(&mut self.model_variant),
            Place::ModelId => Some(&mut self.model_id),
            Place::Models => Some(&mut self.other_models),
            _ => None,
        }
    }

    /// Adds text.
    pub(super) fn read(&mut self, text: &[u8]) {
        self.seen.content = true;
        self.tally.add_text(characters(text));
    }

    /// Adds a file of this many bytes.
    pub(super) fn add_file(&mut self, bytes: u64) {
        self.add_tokens(tokens_of_recording(bytes));
    }

    /// Adds numbers and literals that may be token ids.
    fn add_scalars(&mut self, scalars: u64, bytes: u64) {
        self.tally.add_text(bytes.saturating_sub(scalars.saturating_mul(SCALAR)));
        self.add_tokens(scalars);
    }

    fn add_tokens(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Adds an image, with its size if that is known.
    fn add_image(&mut self, sized: Option<SizedImages>) {
        match sized {
            Some(sized) => self.sized.add(sized),
            None => self.images = self.images.saturating_add(1),
        }
        self.part.has_image = true;
    }

    /// Records a number of completions. The largest one counts, because `best_of` may be larger than `n`.
    pub(super) fn add_completions(&mut self, token: &[u8]) {
        self.set_completions(count(token).unwrap_or_default());
    }

    fn set_completions(&mut self, completions: u64) {
        self.completions = self.completions.max(Some(completions).filter(|completions| *completions > 0));
    }

    /// Records a value of an unexpected type.
    fn set_other(&mut self, place: Place) {
        if let Some(model) = self.model_at(place) {
            model.set_other();
        }
        match place {
            Place::Maximum(kind) => self.maxima.add(kind, None),
            Place::MaximumVariant(kind) => self.maxima.add_variant(kind, None),
            Place::StreamOptionsVariant => self.stream_options_variant = true,
            Place::Sign(sign) => self.seen.sign(sign),
            _ => {}
        }
    }

    /// Records a number, or a word that may be one.
    fn set_number(&mut self, place: Place, token: &[u8], quoted: bool) {
        let value = count(token).filter(|value| *value > 0);
        if token.starts_with(b"-") {
            self.maxima.add_unlimited(place);
        }
        match place {
            // Only lenient servers accept a number in quotes.
            Place::Maximum(kind) if quoted => {
                self.maxima.add(kind, None);
                self.maxima.add_possible(value);
            }
            Place::Maximum(kind) => self.maxima.add(kind, value),
            Place::MaximumVariant(kind) => self.maxima.add_variant(kind, value),
            Place::PossibleMaximum => self.maxima.add_possible(value),
            Place::ElementMaximum => self.maxima.add_element(value),
            Place::Completions => self.add_completions(token),
            Place::Stream => self.stream.set(is_true(token)),
            Place::StreamVariant => self.stream_variant.set(is_true(token)),
            _ => {}
        }
    }
}

impl Reader for Gather {
    type Place = Place;

    fn child(&mut self, parent: Place, key: &[u8]) -> Place {
        if self.over {
            return Place::Nowhere;
        }
        let is_body = matches!(parent, Place::Root | Place::Envelope);
        if is_body {
            self.seen.key(key);
        }
        match parent {
            Place::PromptItem => self.tensor.add_member(key),
            // LiteLLM's names of models and their fallbacks.
            Place::Models => self.other_models.set_other(),
            _ => {}
        }
        let (place, key_is) = match parent.child(key) {
            (Place::Envelope, _) if !self.reads_envelope => (Place::Unknown, KeyIs::Text),
            found => found,
        };
        match place {
            Place::Settings(settings) => self.maxima.open_settings(settings),
            // A server that ignores case may use these settings instead.
            Place::Unknown if is_body && is_settings_in_another_case(key) => self.maxima.set_unsure(),
            _ => {}
        }
        if is_body && matches!(place, Place::Content | Place::Messages | Place::Documents | Place::Prompt) {
            self.seen.content = true;
        }
        match key_is {
            KeyIs::Known => self.tally.add_key(u64::try_from(key.len()).unwrap_or(u64::MAX)),
            KeyIs::Label => self.tally.add_label(characters(key), NAME),
            KeyIs::Text => self.tally.add_text(characters(key)),
        }
        place
    }

    fn long_key(&mut self, parent: Place, length: u64) {
        match parent {
            _ if self.over => {}
            Place::Metadata | Place::LitellmMetadata | Place::Label => self.tally.add_label(length, NAME),
            _ => {
                self.seen.asks = true;
                self.tally.add_text(length);
                if parent == Place::PromptItem {
                    self.tensor.add_member(b"");
                }
            }
        }
    }

    fn element(&mut self, array: Place, index: u32) -> Place {
        match array {
            Place::Root => {
                self.documents = self.documents.max(u64::from(index).saturating_add(1));
                Place::Root
            }
            Place::Prompt => Place::PromptItem,
            Place::Messages => Place::Message,
            Place::Message => {
                if index == 0 {
                    self.conversations = self.conversations.saturating_add(1);
                }
                Place::Content
            }
            Place::Unknown => Place::UnknownElement,
            Place::PromptItem => {
                if index == 0 {
                    self.prompts = self.prompts.saturating_add(1);
                }
                Place::Content
            }
            Place::Sign(_)
            | Place::StreamOptionsVariant
            | Place::Model
            | Place::ModelVariant
            | Place::ModelId
            | Place::User
            | Place::MetadataUser
            | Place::Session(_)
            | Place::Stream
            | Place::StreamVariant
            | Place::Maximum(_)
            | Place::MaximumVariant(_)
            | Place::PossibleMaximum
            | Place::ElementMaximum
            | Place::Completions
            | Place::PartType
            | Place::FileType
            | Place::FileName => {
                if index == 0 {
                    self.set_other(array);
                }
                array.element()
            }
            other => other,
        }
    }

    fn open_document(&mut self) {
        // Some servers read the first of several documents. No server reads more.
        self.malformed |= self.over;
    }

    fn close(&mut self, place: Place) {
        match place {
            Place::Root => self.over = self.documents == 0,
            Place::Media(_) => self.end_file(),
            Place::Content
            | Place::Messages
            | Place::Message
            | Place::Documents
            | Place::Prompt
            | Place::PromptItem => {
                if place == Place::PromptItem && !self.end_tensor() {
                    self.prompts = self.prompts.saturating_add(1);
                }
                self.has_parts = true;
                self.end_file();
                self.end_part();
            }
            other => self.set_other(other),
        }
    }

    fn open_text(&mut self, place: Place) {
        self.open.begin(place);
        if let Some(kept) = self.kept(place) {
            kept.clear();
        }
        if let Some(model) = self.model_at(place) {
            model.open();
        }
        if matches!(place, Place::Tensor | Place::Settings(_)) {
            self.open_settings();
        }
    }

    fn characters(&mut self, place: Place, characters: u64) {
        if place.is_text() {
            self.tally.add_text(characters);
        }
        self.open.characters = self.open.characters.saturating_add(characters);
    }

    fn text(&mut self, place: Place, piece: &[u8]) {
        let characters = characters(piece);
        if matches!(place, Place::Tensor | Place::Settings(_)) {
            self.settings_piece(piece);
        }
        if place.is_text() {
            self.tally.add_text(characters);
            return;
        }
        if matches!(place, Place::Data(_) | Place::Media(_) | Place::Source(_)) {
            self.open.foreign.add(piece);
            self.open.image.feed(piece);
        }
        self.open.add(piece, characters);
        if let Some(kept) = self.kept(place) {
            kept.push(piece);
        }
        if let Some(model) = self.model_at(place) {
            model.push(piece);
        }
    }

    fn close_text(&mut self, place: Place) {
        self.open.place = None;
        let characters = self.open.characters;
        match place {
            Place::Text
            | Place::Unknown
            | Place::UnknownElement
            | Place::Content
            | Place::Messages
            | Place::Message
            | Place::Documents
            | Place::Prompt => {}
            Place::PromptItem => self.prompts = self.prompts.saturating_add(1),
            Place::Nowhere => {}
            Place::TensorName | Place::Tensor => self.tensor_text(place),
            Place::Settings(_) => {
                self.end_settings();
                self.tally.add_name(characters, TAG);
            }
            Place::Tag | Place::StreamOptionsVariant | Place::Format => {
                self.tally.add_name(characters, TAG);
            }
            Place::Name
            | Place::Model
            | Place::ModelVariant
            | Place::ModelId
            | Place::Models
            | Place::User => self.tally.add_name(characters, NAME),
            Place::Session(SessionSource::LitellmSessionId) => self.tally.add_name(characters, NAME),
            Place::Session(_)
            | Place::MetadataUser
            | Place::Metadata
            | Place::LitellmMetadata
            | Place::Label => self.tally.add_label(characters, NAME),
            Place::Stream
            | Place::StreamVariant
            | Place::Maximum(_)
            | Place::MaximumVariant(_)
            | Place::PossibleMaximum
            | Place::ElementMaximum
            | Place::Completions => {
                let open = std::mem::take(&mut self.open);
                self.set_number(place, open.word().trim_ascii(), true);
                self.tally.add_name(characters, TAG);
            }
            Place::PartType => self.part_type(),
            Place::FileType => {
                let of = Type::of(self.open.beginning());
                self.file.say(of);
                self.tally.add_name(characters, NAME);
            }
            Place::FileName => {
                let of = Type::of_name(self.open.beginning());
                // A name that suggests text is the weakest evidence, so it is not recorded.
                if of != Some(Type::Text) {
                    self.part.files.say(of);
                }
                self.tally.add_name(characters, NAME);
            }
            Place::Media(media @ (Media::Image | Media::Audio))
            | Place::Source(media @ (Media::Image | Media::Audio))
            | Place::Data(media) => self.media(media),
            Place::Reference(media) => {
                if characters > MAX_REFERENCE {
                    self.tally.add_text(characters);
                }
                if characters > 0 {
                    self.reference(media);
                }
            }
            Place::Context | Place::StoredPrompt => {
                self.seen.setup |= place == Place::StoredPrompt;
                self.tally.add_name(characters, NAME);
                if characters > 0 {
                    self.add_tokens(CONTEXT_TOKENS);
                }
            }
            Place::Sign(sign) => {
                self.seen.sign(sign);
                self.tally.add_name(characters, TAG);
            }
            // A string in place of an object.
            Place::Root
            | Place::Envelope
            | Place::Calls
            | Place::Tools
            | Place::ToolConfig
            | Place::Media(Media::File)
            | Place::Source(Media::File) => self.tally.add_text(characters),
        }
    }

    fn counted(&mut self, _place: Place, found: Counted) {
        let Counted { characters, scalars, scalar_bytes } = found;
        self.tally.add_text(characters);
        self.add_scalars(scalars, scalar_bytes);
    }

    fn long_scalar(&mut self, place: Place, length: u64) {
        let is_unknown = matches!(place, Place::Unknown | Place::UnknownElement);
        let most = if is_unknown { SCALAR } else { NAME };
        self.tally.add_name(length, most);
    }

    fn scalar(&mut self, place: Place, token: Option<&[u8]>) {
        let token = token.unwrap_or_default();
        match place {
            // A prompt may consist of token ids.
            Place::Content
            | Place::Messages
            | Place::Message
            | Place::Documents
            | Place::Prompt
            | Place::PromptItem
                if token.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-') =>
            {
                self.add_tokens(1);
            }
            Place::Tensor => self.tensor_number(token),
            Place::UnknownElement => {
                let bytes = u64::try_from(token.len()).unwrap_or(u64::MAX);
                self.add_scalars(1, bytes);
            }
            Place::Models if token == b"null" => {}
            Place::Model | Place::ModelVariant | Place::ModelId | Place::Models => {
                if let Some(model) = self.model_at(place) {
                    if token == b"null" { model.set_null() } else { model.set_other() }
                }
            }
            Place::StreamOptionsVariant => self.stream_options_variant = true,
            Place::Sign(Sign::Background) => self.background |= is_true(token),
            Place::Sign(Sign::Store) => self.store |= is_true(token),
            _ => self.set_number(place, token, false),
        }
    }

    fn word(&mut self, _place: Place, _word: Option<&[u8]>) {
        // No place in a request requests only numbers.
    }

    fn malformed(&mut self) {
        self.malformed = true;
    }
}

/// Returns whether common servers accept this value as true in a boolean field.
pub(super) fn is_true(token: &[u8]) -> bool {
    [&b"true"[..], b"1", b"1.0", b"t", b"yes", b"y", b"on"]
        .iter()
        .any(|word| token.eq_ignore_ascii_case(word))
}
