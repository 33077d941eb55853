//! Meta's Llama API.

use super::Provider;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Meta Llama API",
    response: &[
        (Node::Root, "event", Node::Event),
        (Node::Event, "metrics", Node::Metrics),
        (Node::Event, "delta", Node::Delta),
    ],
    ..Provider::NOTHING
};
