//! YandexGPT.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::CountTokens;
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::Post;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "YandexGPT",
    tokenless: &[
        (Post, Version, &["tokenizeCompletion"], Unknown, CountTokens),
    ],
    ..Provider::NOTHING
};
