//! ElevenLabs.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{Manage, Models};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::Get;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "ElevenLabs",
    tokenless: &[
        (Get, Version, &["voices"], Unknown, Models),
        (Get, Version, &["voices", "*"], Unknown, Models),
        (Get, Version, &["history"], Unknown, Manage),
        (Get, Version, &["user"], Unknown, Manage),
        (Get, Version, &["user", "subscription"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
