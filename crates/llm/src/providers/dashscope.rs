//! DashScope's own API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{CountTokens, Manage};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Get, Post};
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "DashScope",
    tokenless: &[
        (Get, Version, &["tasks", "*"], Unknown, Manage),
        (Post, Version, &["tokenizer"], Unknown, CountTokens),
    ],
    response: &[
        (Node::Output, "choices", Node::Choices),
        (Node::Usage, "image_count", Node::OtherUnit),
    ],
    ..Provider::NOTHING
};
