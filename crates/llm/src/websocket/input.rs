//! The input in a client's message that starts no call: its text, and audio and images in the places where
//! only these APIs have them.
//!
//! Such media counts like media in a request (see `request/media.rs`), and not as the text of its base64.

use super::SocketApi;
use crate::request::{Dialect, Extent, ForeignBytes, Wire, tokens_of_recording};
use crate::response::CHARACTERS_PER_TOKEN;
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Shorter strings may be free as text, so they must not be subtracted from it.
const MIN_MEDIA: u64 = 65;

impl SocketApi {
    /// Estimates the input in a client's message, in tokens. `path` is that of the upgrade.
    pub fn input(self, path: &str, text: &[u8]) -> u64 {
        let wire = Wire {
            method: "POST",
            path,
            content_type: "",
            content_encoding: "",
            body: text,
            extent: Extent::Whole,
            most: text.len(),
        };
        let input = wire.read().body.input;
        let media = self.media(text);
        input.saturating_sub(media.characters / CHARACTERS_PER_TOKEN).saturating_add(media.tokens)
    }

    /// Finds the media in a client's message. An unreadable message has none, so all of it is text.
    fn media(self, text: &[u8]) -> InlineMedia {
        let scope = match self {
            Self::Responses => return InlineMedia::default(),
            Self::Realtime => MediaScope::Realtime,
            Self::GeminiLive => MediaScope::Gemini,
        };
        let mut media = InlineMedia::default();
        let mut json = serde_json::Deserializer::from_slice(text);
        let read = MediaIn { scope, media: &mut media }.deserialize(&mut json);
        if read.is_ok() && json.end().is_ok() { media } else { InlineMedia::default() }
    }
}

#[derive(Debug, Default)]
struct InlineMedia {
    /// The length of its base64.
    characters: u64,
    tokens: u64,
}

/// A place in a message. A list has the place of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MediaScope {
    /// A message of OpenAI's Realtime API.
    Realtime,
    RealtimeResponse,
    RealtimeItem,
    RealtimePart,
    Recording,
    /// An image by its URL, possibly a `data:` URL.
    ImageUrl,
    /// A message of Gemini Live.
    Gemini,
    GeminiInput,
    GeminiContent,
    GeminiTurn,
    GeminiPart,
    /// Data with its media type.
    GeminiBlob,
    Other,
}

impl MediaScope {
    fn child(self, key: &str) -> Self {
        match (self, key) {
            (Self::Realtime | Self::RealtimePart, "audio") => Self::Recording,
            (Self::RealtimePart, "image_url") => Self::ImageUrl,
            (Self::Realtime, "item") | (Self::RealtimeResponse, "input") => Self::RealtimeItem,
            (Self::Realtime, "response") => Self::RealtimeResponse,
            (Self::RealtimeItem, "content") => Self::RealtimePart,
            (Self::Gemini, "realtimeInput" | "realtime_input") => Self::GeminiInput,
            (Self::GeminiInput, "audio" | "video" | "mediaChunks" | "media_chunks") => Self::GeminiBlob,
            (Self::Gemini, "clientContent" | "client_content") => Self::GeminiContent,
            (Self::GeminiContent, "turns") => Self::GeminiTurn,
            (Self::GeminiTurn, "parts") => Self::GeminiPart,
            (Self::GeminiPart, "inlineData" | "inline_data") => Self::GeminiBlob,
            _ => Self::Other,
        }
    }
}

impl InlineMedia {
    fn add(&mut self, characters: u64, tokens: u64) {
        self.characters = self.characters.saturating_add(characters);
        self.tokens = self.tokens.saturating_add(tokens);
    }

    fn add_blob(&mut self, mime: &str, data: u64) {
        let (kind, _) = mime.split_once('/').unwrap_or_default();
        let recording = tokens_of_base64(data);
        match kind.to_ascii_lowercase().as_str() {
            "audio" => self.add(data, recording),
            // A video arrives as a series of images.
            "image" | "video" => self.add(data, recording.max(Dialect::Gemini.rules().tokens_per_image)),
            _ => {}
        }
    }
}

fn tokens_of_base64(characters: u64) -> u64 {
    tokens_of_recording(characters.saturating_mul(3) / 4)
}

/// Reads a value at a place.
struct MediaIn<'m> {
    scope: MediaScope,
    media: &'m mut InlineMedia,
}

/// A key or another string.
#[derive(Deserialize)]
struct BorrowedText<'t>(#[serde(borrow)] Cow<'t, str>);

/// The length of a string if it is base64 and long enough, or else 0.
struct Base64Length(u64);

impl<'de> Deserialize<'de> for Base64Length {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let BorrowedText(text) = BorrowedText::deserialize(deserializer)?;
        Ok(Self(base64_length(&text)))
    }
}

fn base64_length(text: &str) -> u64 {
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    if length < MIN_MEDIA {
        return 0;
    }
    let mut foreign = ForeignBytes::default();
    foreign.add(text.as_bytes());
    if foreign.is_base64() { length } else { 0 }
}

impl<'de> DeserializeSeed<'de> for MediaIn<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MediaIn<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { scope, media } = self;
        let (mut mime, mut data): (Option<Cow<'de, str>>, u64) = (None, 0);
        let mut is_typed_twice = false;
        while let Some(BorrowedText(key)) = map.next_key()? {
            match (scope, key.as_ref()) {
                (MediaScope::GeminiBlob, "data") => {
                    let Base64Length(length) = map.next_value()?;
                    data = data.saturating_add(length);
                }
                (MediaScope::GeminiBlob, "mimeType" | "mime_type") => {
                    let BorrowedText(name) = map.next_value()?;
                    is_typed_twice |= mime.replace(name).is_some();
                }
                (scope, key) => match scope.child(key) {
                    MediaScope::Other => drop(map.next_value::<IgnoredAny>()?),
                    scope => map.next_value_seed(MediaIn { scope, media: &mut *media })?,
                },
            }
        }
        if let Some(mime) = mime.filter(|_| data > 0 && !is_typed_twice) {
            media.add_blob(&mime, data);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { scope, media } = self;
        while seq.next_element_seed(MediaIn { scope, media: &mut *media })?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let length = base64_length(text);
        let tokens = match self.scope {
            MediaScope::Recording => tokens_of_base64(length),
            MediaScope::ImageUrl if text.starts_with("data:image/") => {
                Dialect::OpenAi.rules().tokens_per_image
            }
            _ => return Ok(()),
        };
        if length > 0 {
            self.media.add(length, tokens);
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SocketApi::{GeminiLive, Realtime};
    use serde_json::{Value, json};

    const GEMINI: &str = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";

    fn input(api: SocketApi, message: &Value) -> u64 {
        let path = if api == Realtime { "/v1/realtime?model=m" } else { GEMINI };
        api.input(path, message.to_string().as_bytes())
    }

    fn item(content: &Value) -> Value {
        let item = json!({"type": "message", "role": "user", "content": [content]});
        json!({"type": "conversation.item.create", "item": item})
    }

    /// 6,000 bytes of audio are 12 tokens, and 8,000 characters of text are 2,000.
    fn audio() -> String {
        "AbCd".repeat(2000)
    }

    #[test]
    fn media_counts_as_in_requests() {
        let blob = |mime: &str| json!({"data": audio(), "mimeType": mime});
        let turn = json!({"role": "user", "parts": [{"inlineData": blob("image/png")}]});
        let image = format!("data:image/png;base64,{}", audio());
        let table = [
            (Realtime, json!({"type": "input_audio_buffer.append", "audio": audio()}), 12),
            (Realtime, item(&json!({"type": "input_audio", "audio": audio()})), 12),
            (Realtime, item(&json!({"type": "input_image", "image_url": image})), 765),
            (GeminiLive, json!({"realtimeInput": {"audio": blob("audio/pcm;rate=16000")}}), 12),
            (GeminiLive, json!({"realtime_input": {"media_chunks": [blob("audio/pcm")]}}), 12),
            (GeminiLive, json!({"realtimeInput": {"video": blob("image/jpeg")}}), 258),
            (GeminiLive, json!({"clientContent": {"turns": [turn]}}), 258),
        ];
        for (api, message, tokens) in table {
            let input = input(api, &message);
            assert!((tokens..tokens + 40).contains(&input), "{input}, not {tokens}: {message}");
        }
    }

    #[test]
    fn media_does_not_hide_text() {
        let text = "word ".repeat(1600);
        let mut with_audio = item(&json!({"type": "input_audio", "audio": audio(), "transcript": text}));
        let members: String = (0..2000).map(|_| format!(r#""audio": "{}", "#, "A".repeat(64))).collect();
        let short = with_audio.to_string().replacen('{', &format!("{{{members}"), 1);
        let table = [
            with_audio.to_string(),
            short,
            item(&json!({"type": "input_text", "text": text})).to_string(),
            // The server refuses it, or reads the text.
            json!({"type": "input_audio_buffer.append", "audio": text}).to_string(),
            json!({"type": "session.update", "session": {"instructions": audio()}}).to_string(),
            json!({"type": "session.update", "session": {"audio": audio()}}).to_string(),
            json!({"type": "session.update", "session": {"tools": [{"content": [{"audio": audio()}]}]}})
                .to_string(),
        ];
        for message in table {
            let input = Realtime.input("/v1/realtime", message.as_bytes());
            assert!(input >= 2000, "{input}: {}", message.get(..200).unwrap_or(&message));
        }
        with_audio["item"]["content"][0]["audio"] = json!({"x": text});
        assert!(input(Realtime, &with_audio) >= 4000);
        for mime in ["text/plain", "application/json", ""] {
            let blob = json!({"data": audio(), "mimeType": mime});
            assert!(input(GeminiLive, &json!({"realtimeInput": {"audio": blob}})) >= 2000, "{mime}");
        }
        // Two servers may read two different types.
        let blob = format!(r#"{{"mimeType": "text/plain", "mimeType": "audio/pcm", "data": "{}"}}"#, audio());
        let message = format!(r#"{{"realtimeInput": {{"audio": {blob}}}}}"#);
        assert!(GeminiLive.input(GEMINI, message.as_bytes()) >= 2000);
    }
}
