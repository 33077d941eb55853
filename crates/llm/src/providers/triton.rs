//! Triton Inference Server and KServe.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{Manage, Models};
use crate::request::place::{Object, Place, Settings};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Get, Post};
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Triton and KServe",
    tokenless: &[
        (Get, Version, &["health", "live"], Unknown, Manage),
        (Get, Version, &["health", "ready"], Unknown, Manage),
        (Get, Version, &["models", "*", "ready"], Unknown, Models),
        (Get, Version, &["models", "*", "config"], Unknown, Models),
        (Get, Version, &["models", "*", "stats"], Unknown, Models),
        (Post, Version, &["repository", "index"], Unknown, Models),
    ],
    request: &[
        (Object::Body, "sampling_parameters", Place::Settings(Settings::Parameters)),
        (Object::Parameters, "sampling_parameters", Place::Settings(Settings::Parameters)),
    ],
    response: &[
        (Node::Outputs, "data", Node::TokenIds),
        (Node::Anywhere, "model_name", Node::Label),
        (Node::Anywhere, "model_version", Node::Label),
    ],
    ..Provider::NOTHING
};
