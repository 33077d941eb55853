//! Records the fields that reveal the dialect of a body, in case its path does not.

use super::maximum::Shape;
use super::place::Sign;

/// The fields that reveal a dialect.
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
    /// A conversation that the server keeps.
    pub(super) conversation: bool,
    /// One of the fields that contain what the model reads.
    pub(super) content: bool,
    /// A configuration that the server keeps, such as an assistant. It may name the model.
    pub(super) setup: bool,
    /// A field that calls do not have that only store something.
    pub(super) asks: bool,
}

impl Seen {
    pub(super) fn key(&mut self, key: &[u8]) {
        self.asks |= !matches!(key, b"items" | b"metadata");
        match key {
            b"messages" => self.messages = true,
            b"contents" => self.contents = true,
            b"prompt" => self.prompt = true,
            b"input" => self.input = true,
            b"inputText" => self.input_text = true,
            b"inputs" => self.inputs = true,
            b"system" => self.system = true,
            b"inferenceConfig" => self.inference_config = true,
            // Embeddings do not have this field.
            b"instructions"
            | b"max_output_tokens"
            | b"previous_response_id"
            | b"stream"
            | b"tools"
            | b"temperature" => self.response = true,
            b"assistant_id" | b"agent_id" | b"agent" | b"preset" | b"prompt_id" => self.setup = true,
            b"conversation" => (self.response, self.conversation) = (true, true),
            _ => {}
        }
    }

    pub(super) fn sign(&mut self, sign: Sign) {
        match sign {
            Sign::AnthropicVersion => self.anthropic_version = true,
            Sign::Response | Sign::Background | Sign::Store => self.response = true,
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
