//! Moonshot, where it differs from OpenAI's API.

use super::Provider;
use crate::request::Dialect::OpenAi;
use crate::request::Operation::CountTokens;
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::Post;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Moonshot",
    tokenless: &[
        (Post, Version, &["tokenizers", "estimate-token-count"], OpenAi, CountTokens),
    ],
    ..Provider::NOTHING
};
