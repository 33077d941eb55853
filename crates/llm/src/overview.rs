//! Describes each provider and dialect as plain data for `docs/providers.md`.

use crate::providers::PROVIDERS;
use crate::request::image::ImageFormula;
use crate::request::place::Place;
use crate::request::{Dialect, Operation};
use crate::response::place::Node;

/// A provider, described by the contents of its file. Whatever the file omits works as in OpenAI's API or is
/// found by name.
#[derive(Clone, Debug)]
pub struct ProviderOverview {
    pub name: &'static str,
    /// The dialects of the provider's own calls.
    pub dialects: Vec<Dialect>,
    /// The operations of the provider's own calls.
    pub operations: Vec<&'static str>,
    /// The provider's own fields for a maximum output. They make holds exact.
    pub maxima: Vec<&'static str>,
    /// The provider's own members and headers that report usage.
    pub usage: Vec<&'static str>,
    /// The number of known calls that use no tokens.
    pub tokenless: usize,
}

/// The properties of a dialect.
#[derive(Clone, Copy, Debug)]
pub struct DialectOverview {
    pub dialect: Dialect,
    pub name: &'static str,
    /// Whether a response is a stream unless the request says otherwise.
    pub streams: bool,
    /// How an image of known size is counted.
    pub images: &'static str,
    /// The number of tokens that an image of unknown size counts as.
    pub tokens_per_image: u64,
    /// The status of a refusal if a retry can never succeed.
    pub too_large: u16,
}

/// Returns every provider that has a file.
pub fn providers() -> Vec<ProviderOverview> {
    let overview = |provider: &&crate::providers::Provider| {
        let calls: Vec<(Dialect, Operation)> = provider.calls.iter().map(|call| call.call()).collect();
        let maxima =
            provider.request.iter().filter(|(_, _, place)| is_maximum(*place)).map(|(_, name, _)| *name);
        let members = provider.response.iter().chain(provider.events);
        let usage = members.filter(|(_, _, node)| is_usage(*node)).map(|(_, name, _)| *name);
        let headers = provider.headers.iter().map(|header| header.name);
        ProviderOverview {
            name: provider.name,
            dialects: distinct(calls.iter().map(|(dialect, _)| *dialect)),
            operations: distinct(calls.iter().map(|(_, operation)| operation.name())),
            maxima: distinct(maxima),
            usage: distinct(usage.chain(headers)),
            tokenless: provider.tokenless.len(),
        }
    };
    PROVIDERS.iter().map(overview).collect()
}

/// Returns every dialect.
pub fn dialects() -> Vec<DialectOverview> {
    let all = [
        (Dialect::OpenAi, "OpenAI"),
        (Dialect::Anthropic, "Anthropic"),
        (Dialect::Gemini, "Gemini"),
        (Dialect::Bedrock, "Bedrock"),
        (Dialect::Cohere, "Cohere"),
        (Dialect::Ollama, "Ollama"),
        (Dialect::Unknown, "Unknown"),
    ];
    let overview = |(dialect, name): (Dialect, &'static str)| {
        let rules = dialect.rules();
        DialectOverview {
            dialect,
            name,
            streams: rules.streams,
            images: match rules.images {
                ImageFormula::Tiles => "85, and 170 for each tile of 512 x 512",
                ImageFormula::Pixels => "width x height / 750, at most 1600",
                ImageFormula::Crops => "258 up to 384 x 384, else 258 for each crop",
            },
            tokens_per_image: rules.tokens_per_image,
            too_large: rules.too_large,
        }
    };
    all.into_iter().map(overview).collect()
}

fn is_maximum(place: Place) -> bool {
    matches!(place, Place::Maximum(_) | Place::PossibleMaximum | Place::ElementMaximum)
}

fn is_usage(node: Node) -> bool {
    matches!(
        node,
        Node::Usage | Node::UsageMetadata | Node::InvocationMetrics | Node::Count(_) | Node::Own(_)
    )
}

/// Removes duplicates and keeps the order.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut distinct, one| {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
        distinct
    })
}
