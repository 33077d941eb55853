//! IBM watsonx.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::CountTokens;
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::Post;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "IBM watsonx",
    tokenless: &[
        (Post, Version, &["text", "tokenization"], Unknown, CountTokens),
    ],
    ..Provider::NOTHING
};
