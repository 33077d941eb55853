//! vLLM's additions to OpenAI's API.

use super::Provider;
use crate::request::place::{Object, Place};
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "vLLM",
    request: &[
        (Object::Body, "cache_salt", Place::Name),
        (Object::Body, "request_id", Place::Name),
        (Object::Settings, "min_p", Place::Tag),
        (Object::Settings, "priority", Place::Tag),
        (Object::Settings, "min_tokens", Place::Tag),
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
        (Node::Anywhere, "token_ids", Node::Other),
        (Node::Anywhere, "prompt_token_ids", Node::Other),
    ],
    ..Provider::NOTHING
};
