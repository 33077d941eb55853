//! Replicate.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Get, Post};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Replicate",
    tokenless: &[
        (Get, Version, &["predictions"], Unknown, Manage),
        (Get, Version, &["predictions", "*"], Unknown, Manage),
        (Post, Version, &["predictions", "*", "cancel"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
