//! What the scanner tells of a request's body, kept: a few short values, and counts of everything the model reads.

use super::maximum::{Maxima, Shape};
use super::place::{Place, SessionSource, Sign};
use crate::json::{Reader, characters};
use crate::meter::count;

/// The longest model, user or session that counts as one, in bytes. No provider takes longer ones.
const KEPT: usize = 512;
/// The size of a file per token: audio at 128 kbit/s (16,000 bytes a second) and 32 tokens a second, which is what
/// Gemini counts; OpenAI counts 10. Pages of a PDF come out at about the same.
const BYTES_PER_TOKEN: u64 = 500;
/// A file that is only named: as much as one minute of audio.
const REFERENCE_TOKENS: u64 = 32 * 60;

/// A short string that may come in pieces, and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Kept {
    /// The whole of it at once.
    pub(super) fn set(&mut self, text: &[u8]) {
        self.clear();
        self.push(text);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
    }

    fn push(&mut self, piece: &[u8]) {
        if self.bytes.len().saturating_add(piece.len()) > KEPT {
            self.too_long = true;
        } else {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// `None` if it was absent, empty or too long.
    pub(super) fn text(&self) -> Option<String> {
        let there = !self.bytes.is_empty() && !self.too_long;
        there.then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }
}

/// Which of the fields that tell a dialect were there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) messages: bool,
    pub(super) contents: bool,
    pub(super) prompt: bool,
    pub(super) input: bool,
    pub(super) input_text: bool,
    pub(super) inputs: bool,
    pub(super) system: bool,
    pub(super) anthropic_version: bool,
    pub(super) inference_config: bool,
    pub(super) response: bool,
}

impl Seen {
    fn key(&mut self, key: &[u8]) {
        match key {
            b"messages" => self.messages = true,
            b"contents" => self.contents = true,
            b"prompt" => self.prompt = true,
            b"input" => self.input = true,
            b"inputText" => self.input_text = true,
            b"inputs" => self.inputs = true,
            b"system" => self.system = true,
            b"inferenceConfig" => self.inference_config = true,
            b"instructions" | b"max_output_tokens" => self.response = true,
            _ => {}
        }
    }

    pub(super) fn shape(self) -> Shape {
        match self {
            Seen { anthropic_version: true, .. } => Shape::Anthropic,
            Seen { input_text: true, .. } => Shape::Titan,
            Seen { inputs: true, .. } => Shape::TextGenerationInference,
            _ => Shape::Plain,
        }
    }
}

/// What a file is, as far as it decides what it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    Binary,
    Image,
    Text,
}

#[derive(Clone, Debug, Default)]
struct File {
    content: Content,
    /// Bytes, as they stand in the body: base64, mostly.
    data: u64,
    named: bool,
}

/// What has been read of a body.
#[derive(Clone, Debug, Default)]
pub(super) struct Gather {
    pub(super) model: Kept,
    pub(super) user: Kept,
    pub(super) metadata_user: Kept,
    /// In the order in which they count.
    pub(super) sessions: [Kept; 3],
    pub(super) stream: Option<bool>,
    pub(super) maxima: Maxima,
    pub(super) completions: Option<u64>,
    pub(super) seen: Seen,
    /// Characters of text that the model reads.
    pub(super) characters: u64,
    /// Tokens that the client has counted out itself, and those of files.
    pub(super) tokens: u64,
    pub(super) images: u64,
    pub(super) malformed: bool,
    /// The first document is over: what follows is not read by anybody.
    over: bool,
    part_is_image: bool,
    file: File,
}

impl Gather {
    fn kept(&mut self, place: Place) -> Option<&mut Kept> {
        let [first, second, third] = &mut self.sessions;
        Some(match place {
            Place::Model => &mut self.model,
            Place::User => &mut self.user,
            Place::MetadataUser => &mut self.metadata_user,
            Place::Session(SessionSource::LitellmSessionId) => first,
            Place::Session(SessionSource::Metadata) => second,
            Place::Session(SessionSource::LitellmMetadata) => third,
            _ => return None,
        })
    }

    /// Text that is read.
    pub(super) fn read(&mut self, text: &[u8]) {
        self.characters = self.characters.saturating_add(characters(text));
    }

    /// Adds a file of this many bytes.
    pub(super) fn add_file(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_add(bytes.div_ceil(BYTES_PER_TOKEN));
    }

    /// Adds to how many completions are asked for. `best_of` generates as many as it says, whatever `n` says.
    pub(super) fn add_completions(&mut self, token: &[u8]) {
        self.completions = self.completions.max(count(token).filter(|completions| *completions > 0));
    }

    /// The open file is over.
    fn end_file(&mut self) {
        let file = std::mem::take(&mut self.file);
        // An image in a part that says so has been counted there.
        if self.part_is_image {
            return;
        }
        match file.content {
            Content::Image if file.data > 0 || file.named => self.images = self.images.saturating_add(1),
            Content::Text => self.characters = self.characters.saturating_add(file.data),
            _ if file.named => self.tokens = self.tokens.saturating_add(REFERENCE_TOKENS),
            _ => self.add_file(file.data.saturating_mul(3) / 4),
        }
    }

    fn file_type(&mut self, word: &[u8]) {
        if word.starts_with(b"image/") {
            self.file.content = Content::Image;
        } else if word.starts_with(b"text") || matches!(word, b"txt" | b"md" | b"csv" | b"html") {
            self.file.content = Content::Text;
        }
    }

    fn part_type(&mut self, word: &[u8]) {
        self.part_is_image = matches!(word, b"image" | b"image_url" | b"input_image");
        if self.part_is_image {
            self.images = self.images.saturating_add(1);
        }
    }
}

impl Reader for Gather {
    type Place = Place;

    fn child(&mut self, parent: Place, key: &[u8]) -> Place {
        if self.over {
            return Place::Nowhere;
        }
        if parent == Place::Root {
            self.seen.key(key);
        }
        parent.child(key)
    }

    fn open_document(&mut self) {
        // Some servers read the first of several documents, and nobody reads more than one.
        self.malformed |= self.over;
    }

    fn close(&mut self, place: Place) {
        match place {
            Place::Root => self.over = true,
            Place::File => self.end_file(),
            Place::Content => {
                if self.file.data > 0 || self.file.named {
                    self.end_file();
                }
                self.part_is_image = false;
            }
            Place::Image => self.images = self.images.saturating_add(1),
            _ => {}
        }
    }

    fn open_text(&mut self, place: Place) {
        if place == Place::Image {
            self.images = self.images.saturating_add(1);
        }
        if let Some(kept) = self.kept(place) {
            kept.clear();
        }
    }

    fn characters(&mut self, _place: Place, characters: u64) {
        self.characters = self.characters.saturating_add(characters);
    }

    fn text(&mut self, place: Place, piece: &[u8]) {
        match place {
            Place::Content | Place::Tool | Place::Text => self.read(piece),
            Place::FileData => {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                self.file.data = self.file.data.saturating_add(length);
            }
            _ => {
                if let Some(kept) = self.kept(place) {
                    kept.push(piece);
                }
            }
        }
    }

    fn scalar(&mut self, place: Place, token: Option<&[u8]>) {
        let token = token.unwrap_or_default();
        match place {
            Place::Maximum(kind) => {
                if let Some(value) = count(token).filter(|value| *value > 0) {
                    self.maxima.add(kind, value);
                }
            }
            Place::Completions => self.add_completions(token),
            Place::Stream => self.stream = Some(is_true(token)),
            Place::Tool if token != b"null" => self.read(token),
            // A prompt may be given as the ids of its tokens.
            Place::Content | Place::Text if token.first().is_some_and(u8::is_ascii_digit) => {
                self.tokens = self.tokens.saturating_add(1);
            }
            _ => {}
        }
    }

    fn word(&mut self, place: Place, word: Option<&[u8]>) {
        match place {
            Place::Stream => self.stream = Some(is_true(word.unwrap_or_default())),
            // Lenient servers take a number in quotes.
            Place::Completions => self.add_completions(word.unwrap_or_default().trim_ascii()),
            Place::PartType => self.part_type(word.unwrap_or_default()),
            Place::FileType => self.file_type(word.unwrap_or_default()),
            Place::FileReference => self.file.named = true,
            Place::Sign(Sign::AnthropicVersion) => self.seen.anthropic_version = true,
            Place::Sign(Sign::Response) => self.seen.response = true,
            _ => {}
        }
    }

    fn misplaced(&mut self, place: Place) {
        match place {
            Place::FileReference => self.file.named = true,
            Place::Sign(Sign::Response) => self.seen.response = true,
            _ => {}
        }
    }

    fn malformed(&mut self) {
        self.malformed = true;
    }
}

/// What the common servers take for true, in a field that should be a bool.
pub(super) fn is_true(token: &[u8]) -> bool {
    [&b"true"[..], b"1", b"1.0", b"t", b"yes", b"y", b"on"]
        .iter()
        .any(|word| token.eq_ignore_ascii_case(word))
}
