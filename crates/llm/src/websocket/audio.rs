//! The audio buffer of OpenAI's Realtime API. Its audio is no input until it is committed, by the client or by
//! the server, which detects speech and drops the silence around it.

use super::SocketApi;
use serde::Deserialize;
use std::borrow::Cow;

/// The tokens of a second of speech: Gemini's rate. OpenAI's rate is 10.
const TOKENS_PER_SECOND: u64 = 32;

/// What a client's message does to the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioRequest {
    Append,
    Commit,
    Clear,
}

/// What a server's message says about the buffer. The times count the audio that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioEvent {
    SpeechBegins {
        millisecond: u64,
    },
    SpeechEnds {
        millisecond: u64,
    },
    /// The server waited this long for speech, and goes on without.
    Silence {
        begin: u64,
        end: u64,
    },
    Committed,
}

/// The members that matter here.
#[derive(Deserialize)]
struct BufferMessage<'t> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'t, str>,
    audio_start_ms: Option<u64>,
    audio_end_ms: Option<u64>,
}

impl AudioRequest {
    pub fn of(api: SocketApi, text: &[u8]) -> Option<Self> {
        if api != SocketApi::Realtime {
            return None;
        }
        let message: BufferMessage<'_> = serde_json::from_slice(text).ok()?;
        match message.kind.as_ref() {
            "input_audio_buffer.append" => Some(Self::Append),
            "input_audio_buffer.commit" => Some(Self::Commit),
            "input_audio_buffer.clear" => Some(Self::Clear),
            _ => None,
        }
    }
}

impl AudioEvent {
    pub fn of(api: SocketApi, text: &[u8]) -> Option<Self> {
        if api != SocketApi::Realtime {
            return None;
        }
        let message: BufferMessage<'_> = serde_json::from_slice(text).ok()?;
        match (message.kind.as_ref(), message.audio_start_ms, message.audio_end_ms) {
            ("input_audio_buffer.speech_started", Some(millisecond), _) => {
                Some(Self::SpeechBegins { millisecond })
            }
            ("input_audio_buffer.speech_stopped", _, Some(millisecond)) => {
                Some(Self::SpeechEnds { millisecond })
            }
            ("input_audio_buffer.timeout_triggered", Some(begin), Some(end)) => {
                Some(Self::Silence { begin, end })
            }
            ("input_audio_buffer.committed", _, _) => Some(Self::Committed),
            _ => None,
        }
    }
}

/// Estimates the tokens of speech.
pub fn tokens_of_speech(begin: u64, end: u64) -> u64 {
    end.saturating_sub(begin).saturating_mul(TOKENS_PER_SECOND).div_ceil(1000)
}
