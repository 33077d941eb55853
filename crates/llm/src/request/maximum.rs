//! The client's own maximum of output: which fields count in which dialect, and which one to set where it gave none.

use super::place::Settings;
use super::route::Route;
use super::{Dialect, Operation};

/// A field for a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaximumField {
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    MaxTokensToSample,
    /// A field of the body itself that only one kind of server knows, by number.
    Other(u8),
    Setting(Settings),
}

/// What is known of each field, in the order of [`KINDS`].
///
/// A whole number of 1 to 2^53 is a maximum, however it is written (`5.0`, `0.5e1`). Anything else is absent:
/// negative and larger numbers, fractions, texts and what is no number. What only some servers heed (a number in
/// quotes, a key in another case) makes a hold larger, never smaller.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Maxima([Given; KINDS.len()]);

/// One field.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    /// A repeated key counts with its largest value: which one the server takes is not for us to know.
    largest: Option<u64>,
    /// The first value, if there is any.
    first: Option<Option<u64>>,
    /// Another value than the first.
    differs: bool,
    /// One that is absent, or as good as that.
    is_absent: bool,
    /// What some servers may heed.
    possible: Option<u64>,
    /// Given under a key in another case.
    variant: Option<Option<u64>>,
}

const KINDS: [MaximumField; 15] = [
    MaximumField::MaxTokens,
    MaximumField::MaxCompletionTokens,
    MaximumField::MaxOutputTokens,
    MaximumField::MaxTokensToSample,
    MaximumField::Other(0),
    MaximumField::Other(1),
    MaximumField::Other(2),
    MaximumField::Other(3),
    MaximumField::Other(4),
    MaximumField::Other(5),
    MaximumField::Setting(Settings::Generation),
    MaximumField::Setting(Settings::Inference),
    MaximumField::Setting(Settings::Options),
    MaximumField::Setting(Settings::TextGeneration),
    MaximumField::Setting(Settings::Parameters),
];

impl Maxima {
    fn at(&mut self, kind: MaximumField) -> Option<&mut Given> {
        self.0.iter_mut().zip(KINDS).find_map(|(given, of)| (of == kind).then_some(given))
    }

    /// A value, or what is none.
    pub(super) fn add(&mut self, kind: MaximumField, value: Option<u64>) {
        let Some(given) = self.at(kind) else { return };
        given.differs |= given.first.is_some_and(|first| first != value);
        given.first.get_or_insert(value);
        given.largest = given.largest.max(value);
        given.is_absent |= value.is_none();
    }

    /// A value that some servers heed.
    pub(super) fn add_possible(&mut self, kind: MaximumField, value: Option<u64>) {
        if let Some(given) = self.at(kind) {
            given.possible = given.possible.max(value);
        }
    }

    /// A value under a key in another case.
    pub(super) fn add_variant(&mut self, kind: MaximumField, value: Option<u64>) {
        let Some(given) = self.at(kind) else { return };
        given.possible = given.possible.max(value);
        given.differs |= given.variant.is_some_and(|variant| variant != value);
        given.variant.get_or_insert(value);
    }

    /// Those that the server heeds. One that it ignores must not make the hold small.
    fn heeded(&self, route: &Route) -> impl Iterator<Item = &Given> {
        self.0.iter().zip(KINDS).filter(|(_, kind)| heeds(route, *kind)).map(|(given, _)| given)
    }

    /// The largest of those that the server heeds.
    pub(super) fn largest(&self, route: &Route) -> Option<u64> {
        self.heeded(route).filter_map(|given| given.largest).max()
    }

    /// The largest of those that it may heed.
    pub(super) fn possible(&self, route: &Route) -> Option<u64> {
        self.heeded(route).filter_map(|given| given.possible).max()
    }

    /// One that it heeds is given twice, with values that differ.
    pub(super) fn conflict(&self, route: &Route) -> bool {
        let conflicts = |given: &Given| {
            let both = given.first.zip(given.variant);
            given.differs || both.is_some_and(|(exact, variant)| exact != variant)
        };
        self.heeded(route).any(conflicts)
    }

    /// One that it heeds is given under a key in another case only.
    pub(super) fn only_in_another_case(&self, route: &Route) -> bool {
        self.heeded(route).any(|given| given.first.is_none() && given.variant.flatten().is_some())
    }

    /// A maximum is given, and beside it that there is none: which of them the server takes is not for us to know.
    pub(super) fn is_unsure(&self, route: &Route) -> bool {
        self.heeded(route).any(|given| given.largest.is_some() && given.is_absent)
    }
}

/// A path that does not tell what its server heeds lets every field count.
fn heeds(route: &Route, kind: MaximumField) -> bool {
    match (route.dialect, route.operation) {
        (Dialect::OpenAi, Some(Operation::Chat)) => {
            matches!(kind, MaximumField::MaxTokens | MaximumField::MaxCompletionTokens)
        }
        (Dialect::OpenAi, Some(Operation::Response)) => kind == MaximumField::MaxOutputTokens,
        (Dialect::OpenAi | Dialect::Cohere, _) => kind == MaximumField::MaxTokens,
        (Dialect::Anthropic, _) => matches!(kind, MaximumField::MaxTokens | MaximumField::MaxTokensToSample),
        (Dialect::Gemini, _) => {
            matches!(kind, MaximumField::Setting(Settings::Generation | Settings::Parameters))
        }
        (Dialect::Bedrock, Some(_)) => kind == MaximumField::Setting(Settings::Inference),
        (Dialect::Ollama, _) => kind == MaximumField::Setting(Settings::Options),
        (Dialect::Bedrock, None) | (Dialect::Unknown, _) => true,
    }
}

/// The names of a field, one list for each step down from the body; the first of each list is the one to add.
pub(super) type FieldPath = &'static [&'static [&'static str]];

/// What tells where a body's maximum belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct CapTarget<'a> {
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
pub(super) fn field(target: CapTarget<'_>) -> Option<FieldPath> {
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
        (Dialect::Gemini, Operation::Response) => &[&["generation_config"], &["max_output_tokens"]],
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
fn invoked(target: CapTarget<'_>) -> Option<FieldPath> {
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
