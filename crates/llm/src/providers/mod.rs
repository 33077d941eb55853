//! The APIs of the providers: each provider has one file and one row in [`PROVIDERS`]. Most servers implement
//! OpenAI's API, and the names of their counts reveal their usage, so they need no file.

mod anthropic;
mod assemblyai;
mod azure;
mod bedrock;
mod clova;
mod cohere;
mod dashscope;
mod dify;
mod elevenlabs;
mod gemini;
mod gigachat;
mod groq;
mod kobold_cpp;
mod litellm;
mod llama_api;
mod llama_cpp;
mod lm_studio;
mod minimax;
mod mistral;
mod moonshot;
mod ollama;
mod openai;
mod openrouter;
mod perplexity;
mod replicate;
mod runpod;
mod salesforce;
mod samba_studio;
mod sglang;
mod text_generation_webui;
mod tgi;
mod triton;
mod unknown;
mod vllm;
mod volcengine;
mod watsonx;
mod xai;
mod yandex;
mod zhipu;

use crate::refusal::{RefusalFacts, RefusalReply};
use crate::request::image::ImageFormula;
use crate::request::maximum::{CapTarget, FieldPath, MaximumField};
use crate::request::place::RequestField;
use crate::request::route::{PathEnd, Route};
use crate::request::tokenless::TokenlessCall;
use crate::request::{Dialect, Operation};
use crate::response::Field;
use crate::response::place::ResponseMember;

/// The API of one provider. Omitted fields are as in [`Provider::NOTHING`].
pub(crate) struct Provider {
    /// The name in the documentation.
    pub(crate) name: &'static str,
    /// Calls that the last segments of their paths identify.
    pub(crate) calls: &'static [PathEnd],
    /// Calls that only code can identify, for example because the path contains the model.
    pub(crate) paths: &'static [ReadPath],
    /// Calls that use no tokens.
    pub(crate) tokenless: &'static [TokenlessCall],
    /// Calls that use no tokens and that only code can identify.
    pub(crate) tokenless_paths: &'static [ReadTokenless],
    /// The members of the provider's requests.
    pub(crate) request: &'static [RequestField],
    /// The members of the provider's responses.
    pub(crate) response: &'static [ResponseMember],
    /// Members that have this meaning only in events of a stream.
    pub(crate) events: &'static [ResponseMember],
    /// Documents that repeat what other documents in their stream delivered.
    pub(crate) repeats: &'static [Repeat],
    /// Headers that report usage.
    pub(crate) headers: &'static [UsageHeader],
}

impl Provider {
    /// A provider with OpenAI's API and the usual form of usage.
    pub(crate) const NOTHING: Provider = Provider {
        name: "",
        calls: &[],
        paths: &[],
        tokenless: &[],
        tokenless_paths: &[],
        request: &[],
        response: &[],
        events: &[],
        repeats: &[],
        headers: &[],
    };
}

/// Reads the last segment of a path and those before it.
pub(crate) type ReadPath = fn(&str, &[&str]) -> Option<Route>;
/// Reads the segments of a path.
pub(crate) type ReadTokenless = fn(&[&str]) -> Option<(Dialect, Operation)>;

/// A header with a count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsageHeader {
    pub(crate) name: &'static str,
    pub(crate) field: Field,
    /// If this header is missing, the others are missing too.
    pub(crate) is_first: bool,
}

/// Documents that repeat others, by their `type`.
#[derive(Clone, Copy)]
pub(crate) struct Repeat {
    pub(crate) begins: &'static str,
    pub(crate) ends: &'static [&'static str],
    /// Whether the documents must be events of a stream. Otherwise, they may be any sequence of documents.
    pub(crate) is_event: bool,
}

/// All providers.
pub(crate) const PROVIDERS: &[&Provider] = &[
    &openai::PROVIDER,
    &anthropic::PROVIDER,
    &gemini::PROVIDER,
    &bedrock::PROVIDER,
    &cohere::PROVIDER,
    &mistral::PROVIDER,
    &ollama::PROVIDER,
    &assemblyai::PROVIDER,
    &azure::PROVIDER,
    &clova::PROVIDER,
    &dashscope::PROVIDER,
    &dify::PROVIDER,
    &elevenlabs::PROVIDER,
    &gigachat::PROVIDER,
    &groq::PROVIDER,
    &kobold_cpp::PROVIDER,
    &litellm::PROVIDER,
    &llama_api::PROVIDER,
    &llama_cpp::PROVIDER,
    &lm_studio::PROVIDER,
    &minimax::PROVIDER,
    &moonshot::PROVIDER,
    &openrouter::PROVIDER,
    &perplexity::PROVIDER,
    &replicate::PROVIDER,
    &runpod::PROVIDER,
    &salesforce::PROVIDER,
    &samba_studio::PROVIDER,
    &sglang::PROVIDER,
    &text_generation_webui::PROVIDER,
    &tgi::PROVIDER,
    &triton::PROVIDER,
    &vllm::PROVIDER,
    &volcengine::PROVIDER,
    &watsonx::PROVIDER,
    &xai::PROVIDER,
    &yandex::PROVIDER,
    &zhipu::PROVIDER,
];

/// What the clients and servers of an API expect, depending on the dialect.
pub(crate) struct DialectRules {
    /// Whether the servers honour a maximum output. A maximum that they ignore must not reduce the hold.
    pub(crate) heeds: fn(Option<Operation>, MaximumField) -> bool,
    /// The field in which to set a maximum. `None` if the response is not generated text, or the field is
    /// unknown.
    pub(crate) cap: fn(CapTarget<'_>) -> Option<FieldPath>,
    /// The cost of an image, if its first bytes reveal its size.
    pub(crate) images: ImageFormula,
    /// The cost of an image of unknown size.
    pub(crate) tokens_per_image: u64,
    /// Whether a response is a stream unless the request says otherwise.
    pub(crate) streams: bool,
    /// Whether a request without a prompt only loads the model.
    pub(crate) loads_without_prompt: bool,
    /// Whether `modelId` may be the model.
    pub(crate) reads_model_id: bool,
    /// Whether `metadata.user_id` is the end user.
    pub(crate) names_user_in_metadata: bool,
    /// The status for a request that can never pass. Clients that retry every 429 do not retry this status.
    pub(crate) too_large: u16,
    /// Formats a refusal for the client libraries.
    pub(crate) refusal: fn(&RefusalFacts<'_>) -> RefusalReply,
}

impl Dialect {
    pub(crate) fn rules(self) -> &'static DialectRules {
        match self {
            Dialect::OpenAi => &openai::RULES,
            Dialect::Anthropic => &anthropic::RULES,
            Dialect::Gemini => &gemini::RULES,
            Dialect::Bedrock => &bedrock::RULES,
            Dialect::Cohere => &cohere::RULES,
            Dialect::Ollama => &ollama::RULES,
            Dialect::Unknown => &unknown::RULES,
        }
    }
}

/// Joins the rows of one kind from all providers and `$shared`. The compiler builds the tables of this crate
/// from them, so that the compiled module contains each row once.
macro_rules! lists {
    ($element:ty, $of:ident, $shared:expr) => {{
        const LISTS: [&[$element]; $crate::providers::PROVIDERS.len() + 1] = {
            let mut lists: [&[$element]; $crate::providers::PROVIDERS.len() + 1] =
                [$shared; $crate::providers::PROVIDERS.len() + 1];
            let (mut free, mut left): (&mut [&[$element]], _) = (&mut lists, $crate::providers::PROVIDERS);
            while let (Some((list, others)), Some((provider, further))) =
                (free.split_first_mut(), left.split_first())
            {
                *list = provider.$of;
                (free, left) = (others, further);
            }
            lists
        };
        &LISTS
    }};
}
pub(crate) use lists;

/// Like [`lists`], but joins the rows into one list. `$any` is an arbitrary element.
macro_rules! all {
    ($element:ty, $of:ident, $any:expr) => {{
        const OF_EACH: &[&[$element]] = $crate::providers::lists!($element, $of, &[]);
        static ALL: [$element; $crate::table::count(OF_EACH)] = $crate::table::flat(OF_EACH, $any);
        &ALL
    }};
}
pub(crate) use all;
