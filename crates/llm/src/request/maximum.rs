//! The client's own maximum of output: which fields count in which dialect, and which one to set where it gave none.

use super::place::Settings;
use super::route::Route;
use super::{Dialect, Operation};

/// A field for a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    MaxTokensToSample,
    /// A field of the body itself that only one kind of server knows.
    Other,
    Setting(Settings),
}

/// The largest valid value of each field, in the order of [`KINDS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Maxima([Option<u64>; KINDS.len()]);

const KINDS: [Kind; 10] = [
    Kind::MaxTokens,
    Kind::MaxCompletionTokens,
    Kind::MaxOutputTokens,
    Kind::MaxTokensToSample,
    Kind::Other,
    Kind::Setting(Settings::Generation),
    Kind::Setting(Settings::Inference),
    Kind::Setting(Settings::Options),
    Kind::Setting(Settings::TextGeneration),
    Kind::Setting(Settings::Parameters),
];

impl Maxima {
    /// A repeated key counts with its largest value: which one the server takes is not for us to know.
    pub(super) fn add(&mut self, kind: Kind, value: u64) {
        for (slot, of) in self.0.iter_mut().zip(KINDS) {
            if of == kind {
                *slot = (*slot).max(Some(value));
            }
        }
    }

    /// The largest of those that the server heeds. One that it ignores must not make the hold small.
    pub(super) fn largest(&self, route: &Route) -> Option<u64> {
        let heeded = self.0.iter().zip(KINDS).filter(|(_, kind)| heeds(route, *kind));
        heeded.filter_map(|(value, _)| *value).max()
    }
}

/// A path that does not tell what its server heeds lets every field count.
fn heeds(route: &Route, kind: Kind) -> bool {
    match (route.dialect, route.operation) {
        (Dialect::OpenAi, Some(Operation::Chat)) => {
            matches!(kind, Kind::MaxTokens | Kind::MaxCompletionTokens)
        }
        (Dialect::OpenAi, Some(Operation::Response)) => kind == Kind::MaxOutputTokens,
        (Dialect::OpenAi | Dialect::Cohere, _) => kind == Kind::MaxTokens,
        (Dialect::Anthropic, _) => matches!(kind, Kind::MaxTokens | Kind::MaxTokensToSample),
        (Dialect::Gemini, _) => {
            matches!(kind, Kind::Setting(Settings::Generation | Settings::Parameters))
        }
        (Dialect::Bedrock, Some(_)) => kind == Kind::Setting(Settings::Inference),
        (Dialect::Ollama, _) => kind == Kind::Setting(Settings::Options),
        (Dialect::Bedrock, None) | (Dialect::Unknown, _) => true,
    }
}

/// The names of a field, one list for each step down from the body; the first of each list is the one to add.
pub(super) type FieldPath = &'static [&'static [&'static str]];

/// What tells where a body's maximum belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) dialect: Dialect,
    pub(super) operation: Operation,
    pub(super) route: &'a Route,
    pub(super) model: &'a str,
    pub(super) shape: Shape,
}

/// What a body without a telling path looks like, as far as it decides the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    #[default]
    Plain,
    /// `anthropic_version`.
    Anthropic,
    /// `inputText`.
    Titan,
    /// `inputs`.
    TextGenerationInference,
}

/// The field to set; `None` if the answer is no generated text, or nobody knows the server's field.
pub(super) fn field(target: Target<'_>) -> Option<FieldPath> {
    Some(match (target.dialect, target.operation) {
        (Dialect::OpenAi, Operation::Chat) if reasons(target.model) => {
            &[&["max_completion_tokens", "max_tokens"]]
        }
        (Dialect::OpenAi, Operation::Chat) => &[&["max_tokens", "max_completion_tokens"]],
        (Dialect::OpenAi, Operation::Response) => &[&["max_output_tokens"]],
        (Dialect::Anthropic, Operation::Completion) => &[&["max_tokens_to_sample"]],
        (Dialect::Anthropic, Operation::Message)
        | (Dialect::OpenAi, Operation::Completion)
        | (Dialect::Cohere, Operation::Chat | Operation::Completion) => &[&["max_tokens"]],
        (Dialect::Gemini, Operation::Chat) => {
            &[&["generationConfig", "generation_config"], &["maxOutputTokens", "max_output_tokens"]]
        }
        (Dialect::Ollama, Operation::Chat | Operation::Completion) => &[&["options"], &["num_predict"]],
        (Dialect::Bedrock, Operation::Chat) if target.route.operation.is_some() => {
            &[&["inferenceConfig"], &["maxTokens"]]
        }
        (Dialect::Bedrock, Operation::Chat | Operation::Completion) => return invoked(target),
        (Dialect::Unknown, Operation::Completion) if target.shape == Shape::TextGenerationInference => {
            &[&["parameters"], &["max_new_tokens"]]
        }
        (Dialect::Unknown, Operation::Completion) => &[&["n_predict", "max_tokens"]],
        _ => return None,
    })
}

/// Models that refuse `max_tokens`. A deployment with a name of its own is none that we know.
fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let numbered = name.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    numbered || name.starts_with("gpt-5")
}

/// Bedrock's `InvokeModel` takes each vendor's own body.
fn invoked(target: Target<'_>) -> Option<FieldPath> {
    let is = |vendor: &str| target.model.contains(vendor);
    Some(match target.shape {
        Shape::Anthropic => &[&["max_tokens"]],
        Shape::Titan => &[&["textGenerationConfig"], &["maxTokenCount"]],
        _ if is("amazon.nova") => &[&["inferenceConfig"], &["maxTokens", "max_new_tokens"]],
        _ if is("meta.llama") => &[&["max_gen_len"]],
        _ if ["anthropic.", "mistral.", "cohere.", "ai21.", "deepseek.", "qwen.", "openai."]
            .into_iter()
            .any(is) =>
        {
            &[&["max_tokens"]]
        }
        _ => return None,
    })
}
