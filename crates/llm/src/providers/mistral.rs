//! Mistral, where it differs from OpenAI's API.

use super::Provider;
use crate::request::Dialect::OpenAi;
use crate::request::Operation::Manage;
use crate::request::place::{Object, Place};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get, Post};
use crate::response::Field;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Mistral",
    tokenless: &[
        (Get, Version, &["batch", "jobs"], OpenAi, Manage),
        (Post, Version, &["batch", "jobs"], OpenAi, Manage),
        (Get, Version, &["batch", "jobs", "*"], OpenAi, Manage),
        (Post, Version, &["batch", "jobs", "*", "cancel"], OpenAi, Manage),
        (Post, Version, &["fine_tuning", "jobs", "*", "start"], OpenAi, Manage),
        (Get, Version, &["files", "*", "url"], OpenAi, Manage),
        (Get, Version, &["conversations"], OpenAi, Manage),
        (Get, Version, &["conversations", "*", "history"], OpenAi, Manage),
        (Get, Version, &["conversations", "*", "messages"], OpenAi, Manage),
        (Get, Version, &["agents"], OpenAi, Manage),
        (Get, Version, &["agents", "*"], OpenAi, Manage),
        (Delete, Version, &["agents", "*"], OpenAi, Manage),
        (Get, Version, &["libraries"], OpenAi, Manage),
        (Post, Version, &["libraries"], OpenAi, Manage),
        (Get, Version, &["libraries", "*"], OpenAi, Manage),
        (Delete, Version, &["libraries", "*"], OpenAi, Manage),
        (Get, Version, &["libraries", "*", "documents"], OpenAi, Manage),
        (Post, Version, &["libraries", "*", "documents"], OpenAi, Manage),
        (Get, Version, &["libraries", "*", "documents", "*"], OpenAi, Manage),
        (Delete, Version, &["libraries", "*", "documents", "*"], OpenAi, Manage),
    ],
    request: &[
        (Object::Body, "prompt_mode", Place::Tag),
        (Object::Settings, "random_seed", Place::Tag),
        (Object::Settings, "safe_prompt", Place::Tag),
        (Object::Settings, "output_dtype", Place::Tag),
        (Object::Settings, "output_dimension", Place::Tag),
        (Object::Content, "prefix", Place::Tag),
    ],
    response: &[
        (Node::Root, "usage_info", Node::Usage),
        (Node::Usage, "pages_processed", Node::OtherUnit),
        (Node::Usage, "pages", Node::OtherUnit),
        (Node::Usage, "prompt_audio_seconds", Node::Count(Field::AudioSeconds)),
    ],
    ..Provider::NOTHING
};
