//! Dify.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::Post;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Dify",
    tokenless: &[
        (Post, Version, &["files", "upload"], Unknown, Manage),
        (Post, Version, &["chat-messages", "*", "stop"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
