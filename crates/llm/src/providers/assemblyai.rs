//! AssemblyAI.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "AssemblyAI",
    tokenless: &[
        (Get, Version, &["transcript"], Unknown, Manage),
        (Get, Version, &["transcript", "*"], Unknown, Manage),
        (Delete, Version, &["transcript", "*"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
