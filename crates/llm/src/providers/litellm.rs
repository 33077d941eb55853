//! The additions of LiteLLM's proxy to OpenAI's API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::CountTokens;
use crate::request::place::{Object, Place, SessionSource};
use crate::request::tokenless::Base::Root;
use crate::request::tokenless::Method::Post;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "LiteLLM",
    tokenless: &[
        (Post, Root, &["utils", "token_counter"], Unknown, CountTokens),
    ],
    request: &[
        (Object::Body, "fallbacks", Place::Models),
        (Object::Body, "context_window_fallbacks", Place::Models),
        (Object::Body, "content_policy_fallbacks", Place::Models),
        (Object::Body, "litellm_metadata", Place::LitellmMetadata),
        (Object::Body, "litellm_session_id", Place::Session(SessionSource::LitellmSessionId)),
    ],
    response: &[
        (Node::ChoiceMessage, "thinking_blocks", Node::ReasoningDetails),
        (Node::ChoiceMessage, "provider_specific_fields", Node::Other),
    ],
    ..Provider::NOTHING
};
