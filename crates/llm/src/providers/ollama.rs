//! Ollama's own API.

use super::{DialectRules, Provider};
use crate::refusal::{RefusalFacts, RefusalReply};
use crate::request::Dialect::Ollama;
use crate::request::Operation;
use crate::request::Operation::{Chat, Completion, Embedding, Models};
use crate::request::image::ImageFormula;
use crate::request::maximum::MaximumField;
use crate::request::place::{Media, Object, Place, Settings};
use crate::request::route::PathEnd;
use crate::request::tokenless::Base::Api;
use crate::request::tokenless::Method::{DeleteNamed, Get, Post};
use crate::response::Field;
use crate::response::place::Node;
use serde_json::json;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Ollama",
    calls: &[
        PathEnd::new(&["api"], &["chat"], Ollama, Chat),
        PathEnd::new(&["api"], &["generate"], Ollama, Completion),
        PathEnd::new(&["api"], &["embed", "embeddings"], Ollama, Embedding),
    ],
    tokenless: &[
        (Get, Api, &["tags"], Ollama, Models),
        (Get, Api, &["ps"], Ollama, Models),
        (Get, Api, &["version"], Ollama, Models),
        (Post, Api, &["show"], Ollama, Models),
        (Post, Api, &["pull"], Ollama, Models),
        (Post, Api, &["push"], Ollama, Models),
        (Post, Api, &["copy"], Ollama, Models),
        (Post, Api, &["create"], Ollama, Models),
        (DeleteNamed, Api, &["delete"], Ollama, Models),
        (Post, Api, &["blobs", "*"], Ollama, Models),
        (Get, Api, &["blobs", "*"], Ollama, Models),
    ],
    request: &[
        (Object::Body, "think", Place::Tag),
        (Object::Body, "images", Place::Media(Media::Image)),
        (Object::Body, "options", Place::Settings(Settings::Options)),
        (Object::Body, "keep_alive", Place::Tag),
        (Object::Body, "num_predict", Place::Maximum(MaximumField::Other(3))),
        (Object::Settings, "numa", Place::Tag),
        (Object::Settings, "num_ctx", Place::Tag),
        (Object::Settings, "num_gpu", Place::Tag),
        (Object::Settings, "main_gpu", Place::Tag),
        (Object::Settings, "num_keep", Place::Tag),
        (Object::Settings, "use_mmap", Place::Tag),
        (Object::Settings, "num_batch", Place::Tag),
        (Object::Settings, "num_thread", Place::Tag),
        (Object::Options, "num_predict", Place::Maximum(MaximumField::Setting(Settings::Options))),
    ],
    response: &[
        (Node::Root, "prompt_eval_count", Node::Own(Field::Input)),
        (Node::Root, "eval_count", Node::Own(Field::Output)),
        (Node::Root, "thinking", Node::Text),
        (Node::Message, "thinking", Node::Text),
        (Node::Root, "done_reason", Node::Label),
        (Node::Root, "remote_host", Node::Label),
        (Node::Root, "remote_model", Node::Label),
    ],
    ..Provider::NOTHING
};

pub(super) const RULES: DialectRules = DialectRules {
    heeds: |_, field| field == MaximumField::Setting(Settings::Options),
    cap: |target| match target.operation {
        Operation::Chat | Operation::Completion => Some(&[&["options"], &["num_predict"]]),
        _ => None,
    },
    images: ImageFormula::Tiles,
    tokens_per_image: 765,
    streams: true,
    loads_without_prompt: true,
    reads_model_id: false,
    names_user_in_metadata: false,
    too_large: 400,
    refusal: |refusal: &RefusalFacts<'_>| {
        RefusalReply::of(refusal.with_details(json!({ "error": refusal.message })))
    },
};
