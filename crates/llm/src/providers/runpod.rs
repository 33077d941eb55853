//! Runpod's queues. A worker's response is read by its id.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::Manage;
use crate::request::place::{Object, Place};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Get, Post};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Runpod",
    tokenless: &[
        (Get, Version, &["*", "health"], Unknown, Manage),
        (Get, Version, &["*", "status", "*"], Unknown, Manage),
        (Post, Version, &["*", "cancel", "*"], Unknown, Manage),
    ],
    request: &[
        (Object::Content, "openai_input", Place::Unknown),
        (Object::Content, "sampling_params", Place::Unknown),
    ],
    ..Provider::NOTHING
};
