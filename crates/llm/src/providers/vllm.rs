//! vLLM's additions to OpenAI's API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{Manage, Models};
use crate::request::place::{Object, Place};
use crate::request::tokenless::Base::{Root, Version};
use crate::request::tokenless::Method::{Get, Post};
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "vLLM",
    tokenless: &[
        (Get, Root, &["health"], Unknown, Manage),
        (Get, Root, &["load"], Unknown, Manage),
        (Get, Root, &["metrics"], Unknown, Manage),
        (Get, Root, &["ping"], Unknown, Manage),
        (Get, Root, &["version"], Unknown, Models),
        (Post, Version, &["load_lora_adapter"], Unknown, Models),
        (Post, Version, &["unload_lora_adapter"], Unknown, Models),
    ],
    request: &[
        (Object::Body, "cache_salt", Place::Name),
        (Object::Body, "request_id", Place::Name),
        (Object::Settings, "min_p", Place::Tag),
        (Object::Settings, "priority", Place::Tag),
        (Object::Settings, "length_penalty", Place::Tag),
        (Object::Settings, "stop_token_ids", Place::Tag),
        (Object::Settings, "prompt_logprobs", Place::Tag),
        (Object::Settings, "use_beam_search", Place::Tag),
        (Object::Settings, "add_special_tokens", Place::Tag),
        (Object::Settings, "skip_special_tokens", Place::Tag),
        (Object::Settings, "add_generation_prompt", Place::Tag),
        (Object::Settings, "continue_final_message", Place::Tag),
        (Object::Settings, "truncate_prompt_tokens", Place::Tag),
        (Object::Settings, "include_stop_str_in_output", Place::Tag),
        (Object::Settings, "spaces_between_special_tokens", Place::Tag),
        (Object::Prompt, "prompt_token_ids", Place::Content),
    ],
    response: &[
        (Node::Anywhere, "prompt_logprobs", Node::Other),
        (Node::Anywhere, "token_ids", Node::TokenIds),
        (Node::Anywhere, "prompt_token_ids", Node::Other),
    ],
    ..Provider::NOTHING
};
