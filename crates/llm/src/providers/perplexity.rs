//! What Perplexity adds to OpenAI's API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::tokenless::Base::{Root, Version};
use crate::request::tokenless::Method::Get;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    tokenless: &[
        (Get, Root, &["async", "chat", "completions"], Unknown, Manage),
        (Get, Root, &["async", "chat", "completions", "*"], Unknown, Manage),
        (Get, Version, &["async", "chat", "completions"], Unknown, Manage),
        (Get, Version, &["async", "chat", "completions", "*"], Unknown, Manage),
    ],
    response: &[
        (Node::Root, "search_results", Node::Other),
    ],
    ..Provider::NOTHING
};
