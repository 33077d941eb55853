//! llama.cpp's own API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{Completion, CountTokens, Manage, Models};
use crate::request::maximum::MaximumField;
use crate::request::place::{Media, Object, Place};
use crate::request::route::{ANY, PathEnd};
use crate::request::tokenless::Base::Root;
use crate::request::tokenless::Method::{Get, Post};
use crate::response::Field;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "llama.cpp",
    calls: &[
        PathEnd::new(ANY, &["completion", "infill"], Unknown, Completion),
    ],
    tokenless: &[
        (Get, Root, &["props"], Unknown, Models),
        (Get, Root, &["slots"], Unknown, Manage),
        (Get, Root, &["lora-adapters"], Unknown, Models),
        (Post, Root, &["tokenize"], Unknown, CountTokens),
        (Post, Root, &["detokenize"], Unknown, CountTokens),
        (Post, Root, &["apply-template"], Unknown, CountTokens),
    ],
    request: &[
        (Object::Body, "n_predict", Place::Maximum(MaximumField::Other(1))),
        (Object::Body, "image_data", Place::Media(Media::Image)),
        (Object::Body, "input_prefix", Place::Content),
        (Object::Body, "input_suffix", Place::Content),
        (Object::Settings, "tfs_z", Place::Tag),
        (Object::Settings, "n_keep", Place::Tag),
        (Object::Settings, "id_slot", Place::Tag),
        (Object::Settings, "n_probs", Place::Tag),
        (Object::Settings, "mirostat", Place::Tag),
        (Object::Settings, "typical_p", Place::Tag),
        (Object::Settings, "ignore_eos", Place::Tag),
        (Object::Settings, "cache_prompt", Place::Tag),
        (Object::Settings, "mirostat_eta", Place::Tag),
        (Object::Settings, "mirostat_tau", Place::Tag),
        (Object::Settings, "repeat_last_n", Place::Tag),
        (Object::Settings, "repeat_penalty", Place::Tag),
        (Object::Settings, "penalize_newline", Place::Tag),
    ],
    response: &[
        (Node::Root, "timings", Node::Timings),
        (Node::Root, "tokens_evaluated", Node::Own(Field::Input)),
        (Node::Root, "tokens_predicted", Node::Own(Field::Output)),
        (Node::Timings, "prompt_n", Node::Count(Field::FreshInput)),
        (Node::Timings, "cache_n", Node::Count(Field::CacheRead)),
        (Node::Timings, "predicted_n", Node::Count(Field::Output)),
        (Node::Root, "generation_settings", Node::Other),
        (Node::Root, "completion_probabilities", Node::Other),
        (Node::Root, "stopping_word", Node::Label),
        (Node::Root, "stop_type", Node::Label),
        (Node::Anywhere, "__verbose", Node::Other),
    ],
    ..Provider::NOTHING
};
