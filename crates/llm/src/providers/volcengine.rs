//! Volcengine Ark. Its videos are created in the background.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{CountTokens, Manage};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get, Post};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Volcengine Ark",
    tokenless: &[
        (Post, Version, &["tokenization"], Unknown, CountTokens),
        (Get, Version, &["contents", "generations", "tasks"], Unknown, Manage),
        (Get, Version, &["contents", "generations", "tasks", "*"], Unknown, Manage),
        (Delete, Version, &["contents", "generations", "tasks", "*"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
