//! Hugging Face's Text Generation Inference.

use super::{Provider, UsageHeader};
use crate::request::Dialect::Unknown;
use crate::request::Operation::{Completion, Models};
use crate::request::maximum::MaximumField;
use crate::request::place::{Object, Place, Settings};
use crate::request::route::{ANY, PathEnd};
use crate::request::tokenless::Base::Root;
use crate::request::tokenless::Method::Get;
use crate::response::Field;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Hugging Face TGI",
    calls: &[
        PathEnd::new(ANY, &["generate"], Unknown, Completion),
        PathEnd::new(ANY, &["generate_stream"], Unknown, Completion).streaming(),
    ],
    tokenless: &[
        (Get, Root, &["info"], Unknown, Models),
    ],
    request: &[
        (Object::Body, "parameters", Place::Settings(Settings::Parameters)),
        (Object::Body, "max_new_tokens", Place::Maximum(MaximumField::Other(4))),
        (Object::Settings, "details", Place::Tag),
        (Object::Settings, "do_sample", Place::Tag),
        (Object::Settings, "watermark", Place::Tag),
        (Object::Settings, "top_n_tokens", Place::Tag),
        (Object::Settings, "return_full_text", Place::Tag),
        (Object::Settings, "decoder_input_details", Place::Tag),
        (Object::Parameters, "max_new_tokens", Place::Maximum(MaximumField::Setting(Settings::Parameters))),
        (Object::Parameters, "n", Place::Completions),
        (Object::Parameters, "best_of", Place::Completions),
        (Object::Parameters, "num_return_sequences", Place::Completions),
    ],
    response: &[
        (Node::Root, "token", Node::Token),
        (Node::Root, "generated_text", Node::Whole),
        (Node::Root, "details", Node::Details),
        (Node::Details, "tokens", Node::Other),
        (Node::Details, "prefill", Node::PromptToken),
        (Node::Details, "generated_tokens", Node::Found(Field::Generated)),
        (Node::Details, "top_tokens", Node::Other),
        (Node::Details, "best_of_sequences", Node::Results),
        (Node::Results, "generated_tokens", Node::Found(Field::Generated)),
        (Node::Results, "prefill", Node::Other),
        (Node::Results, "tokens", Node::Other),
        (Node::Results, "top_tokens", Node::Other),
    ],
    headers: &[
        UsageHeader { name: "x-prompt-tokens", field: Field::Input, is_first: true },
        UsageHeader { name: "x-generated-tokens", field: Field::Output, is_first: false },
    ],
    ..Provider::NOTHING
};
