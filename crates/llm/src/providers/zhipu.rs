//! Zhipu.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::tokenless::Base::Api;
use crate::request::tokenless::Method::Get;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Zhipu",
    tokenless: &[
        (Get, Api, &["paas", "v4", "async-result", "*"], Unknown, Manage),
    ],
    ..Provider::NOTHING
};
