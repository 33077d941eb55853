//! The additions of text-generation-webui to OpenAI's API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{CountTokens, Models};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Get, Post};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "text-generation-webui",
    tokenless: &[
        (Post, Version, &["internal", "encode"], Unknown, CountTokens),
        (Post, Version, &["internal", "decode"], Unknown, CountTokens),
        (Post, Version, &["internal", "token-count"], Unknown, CountTokens),
        (Get, Version, &["internal", "model", "info"], Unknown, Models),
        (Get, Version, &["internal", "model", "list"], Unknown, Models),
    ],
    ..Provider::NOTHING
};
