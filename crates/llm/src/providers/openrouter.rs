//! OpenRouter's additions to OpenAI's API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::place::{Media, Object, Place};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::Get;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "OpenRouter",
    tokenless: &[
        (Get, Version, &["generation"], Unknown, Manage),
        (Get, Version, &["credits"], Unknown, Manage),
        (Get, Version, &["key"], Unknown, Manage),
        (Get, Version, &["auth", "key"], Unknown, Manage),
        (Get, Version, &["providers"], Unknown, Manage),
    ],
    request: &[
        (Object::Body, "models", Place::Models),
        (Object::Body, "provider", Place::Name),
        (Object::Settings, "top_a", Place::Tag),
        (Object::Content, "video_url", Place::Media(Media::Audio)),
    ],
    response: &[
        (Node::ChoiceMessage, "reasoning_details", Node::ReasoningDetails),
        (Node::ChoiceMessage, "images", Node::Other),
        (Node::Message, "images", Node::Other),
        (Node::ReasoningDetails, "data", Node::Other),
        (Node::ReasoningDetails, "signature", Node::Other),
        (Node::Anywhere, "native_finish_reason", Node::Label),
    ],
    ..Provider::NOTHING
};
