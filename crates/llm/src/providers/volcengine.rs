//! Volcengine Ark. Its videos are created in the background.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Volcengine Ark",
    tokenless: &[
        (Get, Version, &["contents", "generations", "tasks"], Unknown, Manage),
        (Get, Version, &["contents", "generations", "tasks", "*"], Unknown, Manage),
        (Delete, Version, &["contents", "generations", "tasks", "*"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
