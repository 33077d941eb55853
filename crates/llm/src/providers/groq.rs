//! Groq, which uses OpenAI's API.

use super::Provider;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Groq",
    response: &[
        (Node::Root, "x_groq", Node::Groq),
        (Node::Groq, "usage", Node::Usage),
    ],
    ..Provider::NOTHING
};
