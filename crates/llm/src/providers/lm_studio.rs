//! LM Studio's own API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::Post;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "LM Studio",
    tokenless: &[
        (Post, Version, &["models", "load"], Unknown, Manage),
        (Post, Version, &["models", "unload"], Unknown, Manage),
        (Post, Version, &["models", "download"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
