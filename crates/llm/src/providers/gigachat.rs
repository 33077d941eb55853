//! GigaChat.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{CountTokens, Manage};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Get, Post};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "GigaChat",
    tokenless: &[
        (Post, Version, &["tokens", "count"], Unknown, CountTokens),
        (Get, Version, &["balance"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
