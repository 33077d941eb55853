//! Images and files: how to recognise them, and what they cost.
//!
//! | content | tokens |
//! |---|---|
//! | an inline image with its size in the header | by the provider's formula ([`super::image`]) |
//! | another image, inline or by a URL | 765, in Anthropic's and Bedrock's dialects 1600, in Gemini's 258 |
//! | audio or video, inline | 1 for each 500 bytes |
//! | a document such as a PDF, inline | 1 for each 32 bytes |
//! | a recording or a document, by a URL or an id | 1920, as many as one minute of audio |
//! | a text file | its characters / 4 |
//!
//! Only a string in a place for media counts as media, and only if it is base64 or a short URL. Any other
//! string is text, whatever it begins with. A file of an unknown type is text.

use super::image::SizedImages;
use super::place::Media;

/// The bytes of a recording per token: audio at 128 kbit/s (16,000 bytes a second) and 32 tokens a second,
/// which is Gemini's rate. OpenAI's rate is 10.
const BYTES_PER_TOKEN: u64 = 500;
/// The bytes of a document per token. At Anthropic, a scanned page of 100 kB has up to 3000 tokens.
/// Compressed text has more tokens per byte, photographs have fewer.
const DOCUMENT_BYTES_PER_TOKEN: u64 = 32;
/// The number of tokens that a file counts as if it is only referenced: as many as a minute of audio has.
pub(super) const REFERENCE_TOKENS: u64 = 32 * 60;
/// The longest URL or id, in characters.
pub(super) const MAX_REFERENCE: u64 = 4096;
/// The number of bytes in a base64 string that need not be base64: the prefix `data:image/png;base64,` and a
/// few line ends.
const MAX_FOREIGN: u64 = 16;

/// Returns the tokens of audio or video of this many bytes.
pub(crate) fn tokens_of_recording(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// Returns the tokens of a document of this many bytes.
pub(super) fn tokens_of_document(bytes: u64) -> u64 {
    bytes.div_ceil(DOCUMENT_BYTES_PER_TOKEN)
}

/// Counts the bytes of a string that base64 does not have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ForeignBytes {
    bytes: u64,
    foreign: u64,
    line_ends: u64,
}

impl ForeignBytes {
    /// Adds a piece of the string.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        // The sums of this few bytes cannot overflow.
        for some in piece.chunks(128) {
            let foreign = some.iter().map(|byte| u8::from(is_foreign(*byte))).sum::<u8>();
            let line_ends = some.iter().map(|byte| u8::from(is_line_end(*byte))).sum::<u8>();
            self.foreign = self.foreign.saturating_add(foreign.into());
            self.line_ends = self.line_ends.saturating_add(line_ends.into());
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
    }

    /// Returns whether the string is base64. A line of base64 has at least 64 characters.
    pub(crate) fn is_base64(&self) -> bool {
        let line_ends = self.line_ends.saturating_sub(self.bytes / 32);
        self.foreign.saturating_add(line_ends) <= MAX_FOREIGN
    }
}

fn is_foreign(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let digit_or_slash = byte.wrapping_sub(b'/') < 11;
    let other = (byte == b'+') | (byte == b'-') | (byte == b'_') | (byte == b'=');
    !(letter | digit_or_slash | other | is_line_end(byte))
}

fn is_line_end(byte: u8) -> bool {
    (byte == b'\r') | (byte == b'\n')
}

/// The kind of a string in a place for media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// The data itself, with a declared type or without one.
    Inline(Option<Type>),
    /// The location of the data.
    Reference,
    Text,
}

/// The type of a file, as far as it determines the cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Image,
    Recording,
    Document,
    Text,
}

/// Classifies a string by its beginning, its length, and whether it is base64.
pub(super) fn judge(beginning: &[u8], characters: u64, is_base64: bool) -> Found {
    if characters == 0 {
        return Found::Nothing;
    }
    if let Some(data) = strip_prefix(beginning, b"data:") {
        let base64 = is_base64 && memchr::memmem::find(data, b";base64,").is_some();
        let mime = data.split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default();
        return if base64 { Found::Inline(Type::of(mime)) } else { Found::Text };
    }
    let scheme = beginning.get(..16).unwrap_or(beginning);
    if memchr::memmem::find(scheme, b"://").is_some() {
        return if characters <= MAX_REFERENCE { Found::Reference } else { Found::Text };
    }
    if is_base64 { Found::Inline(sniffed(beginning)) } else { Found::Text }
}

fn strip_prefix<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Recognises the first bytes of a PDF or of audio, in base64.
fn sniffed(beginning: &[u8]) -> Option<Type> {
    let begins = |with: &[u8]| beginning.starts_with(with);
    if begins(b"iVBORw0KGgo") || begins(b"/9j/") || begins(b"R0lGOD") {
        return Some(Type::Image);
    }
    if begins(b"JVBERi0") {
        return Some(Type::Document);
    }
    (begins(b"SUQz") || begins(b"UklGR")).then_some(Type::Recording)
}

impl Type {
    /// Classifies a media type, or the name of a format. Returns `None` for a word that names no type.
    pub(super) fn of(word: &[u8]) -> Option<Type> {
        let word = word.trim_ascii().to_ascii_lowercase();
        let begins = |with: &[u8]| word.starts_with(with);
        match word.as_slice() {
            // The source of the data, in Anthropic's `source.type`.
            b"" | b"base64" | b"url" | b"file" | b"content" => None,
            b"png" | b"jpeg" | b"jpg" | b"gif" | b"webp" | b"bmp" | b"tiff" | b"heic" | b"heif" | b"avif" => {
                Some(Type::Image)
            }
            b"application/pdf" | b"pdf" | b"doc" | b"docx" | b"xls" | b"xlsx" | b"application/msword" => {
                Some(Type::Document)
            }
            b"wav" | b"mp3" | b"flac" | b"opus" | b"ogg" | b"pcm16" | b"m4a" | b"aac" | b"aiff" | b"mp4"
            | b"mov" | b"mkv" | b"webm" | b"flv" | b"mpeg" | b"mpg" | b"mpga" | b"wmv" | b"avi"
            | b"three_gp" | b"3gpp" | b"g711_ulaw" | b"g711_alaw" => Some(Type::Recording),
            _ if begins(b"image/") && !begins(b"image/svg") => Some(Type::Image),
            _ if begins(b"audio/") || begins(b"video/") => Some(Type::Recording),
            _ if begins(b"application/vnd.openxmlformats") || begins(b"application/vnd.ms-") => {
                Some(Type::Document)
            }
            _ => Some(Type::Text),
        }
    }

    /// Classifies the name of a file.
    pub(super) fn of_name(name: &[u8]) -> Option<Type> {
        let dot = memchr::memrchr(b'.', name)?;
        Type::of(name.get(dot.checked_add(1)?..)?)
    }
}

/// The current file, or a part with files. It collects everything that is found until the type is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Files {
    image: bool,
    recording: bool,
    document: bool,
    text: bool,
    /// The number of inline files, and the length of their base64.
    inline: u64,
    bytes: u64,
    references: u64,
    /// The inline files of known size, in case they are images.
    sized: SizedImages,
}

/// The cost of files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Images of unknown size.
    pub(super) images: u64,
    pub(super) sized: SizedImages,
    pub(super) tokens: u64,
    pub(super) characters: u64,
}

impl Files {
    /// Declares a type.
    pub(super) fn say(&mut self, of: Option<Type>) {
        match of {
            Some(Type::Image) => self.image = true,
            Some(Type::Recording) => self.recording = true,
            Some(Type::Document) => self.document = true,
            Some(Type::Text) => self.text = true,
            None => {}
        }
    }

    pub(super) fn add_inline(&mut self, bytes: u64, sized: Option<SizedImages>) {
        self.sized.add(sized.unwrap_or_default());
        self.inline = self.inline.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn add_reference(&mut self) {
        self.references = self.references.saturating_add(1);
    }

    pub(super) fn is_typed(&self) -> bool {
        self.image || self.recording || self.document || self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inline == 0 && self.references == 0
    }

    /// Adds files without a known type.
    pub(super) fn add(&mut self, other: Files) {
        self.inline = self.inline.saturating_add(other.inline);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.references = self.references.saturating_add(other.references);
        self.sized.add(other.sized);
    }

    /// Returns the cost. If several types are declared, all of them count, because a server may use any of
    /// them.
    pub(super) fn cost(&self) -> Cost {
        let bytes = self.bytes.saturating_mul(3) / 4;
        let mut cost = Cost::default();
        if self.image {
            let all = self.inline.saturating_add(self.references);
            cost.images = all.saturating_sub(self.sized.count);
            cost.sized = self.sized;
        }
        if self.text || !self.is_typed() {
            cost.characters = self.bytes;
        }
        if self.document {
            cost.tokens = tokens_of_document(bytes);
        } else if self.recording {
            cost.tokens = tokens_of_recording(bytes);
        }
        if !self.image {
            cost.tokens = cost.tokens.saturating_add(self.references.saturating_mul(REFERENCE_TOKENS));
        }
        cost
    }
}

impl Media {
    /// Returns the type that the place implies.
    pub(super) fn kind(self) -> Option<Type> {
        match self {
            Media::Image => Some(Type::Image),
            Media::Audio => Some(Type::Recording),
            Media::File => None,
        }
    }
}
