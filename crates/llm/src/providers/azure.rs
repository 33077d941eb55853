//! Azure's additions to OpenAI's API.

use super::Provider;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Azure OpenAI",
    response: &[
        (Node::ChoiceMessage, "context", Node::Other),
        (Node::Root, "prompt_filter_results", Node::Other),
        (Node::Anywhere, "content_filter_results", Node::Other),
        (Node::Anywhere, "content_filter_offsets", Node::Other),
    ],
    ..Provider::NOTHING
};
