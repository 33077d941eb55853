//! xAI's additions to OpenAI's API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{CountTokens, Manage, Models};
use crate::request::place::{Object, Place, Sign};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Get, Post};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "xAI",
    tokenless: &[
        (Get, Version, &["language-models"], Unknown, Models),
        (Get, Version, &["language-models", "*"], Unknown, Models),
        (Get, Version, &["embedding-models"], Unknown, Models),
        (Get, Version, &["image-generation-models"], Unknown, Models),
        (Get, Version, &["chat", "deferred-completion", "*"], Unknown, Manage),
        (Post, Version, &["tokenize-text"], Unknown, CountTokens),
    ],
    request: &[
        (Object::Body, "deferred", Place::Sign(Sign::Background)),
    ],
    ..Provider::NOTHING
};
