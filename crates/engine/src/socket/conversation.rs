//! What the server of a socket remembers. Providers bill it as input of each later call, but only usage reports
//! show that. So it is part of the estimate of these calls.

use llm::response::Usage;
use llm::websocket::{AudioEvent, AudioRequest, SocketApi, tokens_of_speech};

/// The longest conversation that a model for speech reads, in tokens. Servers drop what is older.
const MAX_CONVERSATION: u64 = 128 << 10;

/// The conversation so far, by its estimated size in tokens.
#[derive(Debug)]
pub(super) struct Conversation {
    api: SocketApi,
    tokens: u64,
    /// The audio that is not committed, and so no part of the conversation yet. If the server detects speech,
    /// it is not known how much of it the server drops.
    buffered: u64,
    /// When the current speech began.
    speech: Option<u64>,
    /// Whether the length of the speech that is committed next was counted.
    has_counted_speech: bool,
}

impl Conversation {
    pub fn new(api: SocketApi) -> Self {
        Self { api, tokens: 0, buffered: 0, speech: None, has_counted_speech: false }
    }

    /// Adds input from the client.
    pub fn add(&mut self, input: u64) {
        self.tokens = self.tokens.saturating_add(input).min(MAX_CONVERSATION.max(self.tokens));
    }

    /// Adds the input of a client's message that starts no call.
    pub fn add_message(&mut self, message: &[u8], input: u64) {
        match AudioRequest::of(self.api, message) {
            Some(AudioRequest::Append) => self.buffered = self.buffered.saturating_add(input),
            Some(AudioRequest::Commit) => self.commit(),
            Some(AudioRequest::Clear) => self.buffered = 0,
            None => self.add(input),
        }
    }

    /// Handles a message from the server that belongs to no call.
    pub fn hear(&mut self, message: &[u8]) {
        match AudioEvent::of(self.api, message) {
            Some(AudioEvent::SpeechBegins { millisecond }) => self.speech = Some(millisecond),
            Some(AudioEvent::SpeechEnds { millisecond }) => {
                if let Some(begin) = self.speech.take() {
                    self.add_speech(begin, millisecond);
                }
            }
            Some(AudioEvent::Silence { begin, end }) => self.add_speech(begin, end),
            Some(AudioEvent::Committed) => {
                let is_counted = std::mem::take(&mut self.has_counted_speech);
                if !is_counted {
                    self.commit();
                }
            }
            None => {}
        }
    }

    fn add_speech(&mut self, begin: u64, end: u64) {
        self.add(tokens_of_speech(begin, end));
        self.has_counted_speech = true;
    }

    fn commit(&mut self) {
        let audio = std::mem::take(&mut self.buffered);
        self.add(audio);
    }

    /// Adds the input of a call. `earlier` is the input that the conversation adds to it.
    pub fn begin_call(&mut self, earlier: u64, input: u64) {
        if self.api.keeps_conversation() {
            self.add(input);
        } else {
            // There may be several conversations. The longest one counts.
            self.tokens = self.tokens.max(earlier.saturating_add(input));
        }
    }

    /// Adds what a call has used. Its input was added when it came, but its report may show that the
    /// conversation is longer than estimated.
    pub fn used(&mut self, usage: Usage) {
        if self.api.keeps_conversation() {
            self.add(usage.output);
        }
        self.tokens = self.tokens.max(usage.total);
    }

    /// Returns the input that the conversation adds to a call that begins with this message.
    pub fn input_of(&self, message: &[u8]) -> u64 {
        if self.api.continues(message) { self.tokens } else { 0 }
    }
}
