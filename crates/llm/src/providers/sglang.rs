//! SGLang's own API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{Manage, Models};
use crate::request::place::{Object, Place, Settings};
use crate::request::tokenless::Base::Root;
use crate::request::tokenless::Method::{Get, Post};
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "SGLang",
    tokenless: &[
        (Get, Root, &["model_info"], Unknown, Models),
        (Get, Root, &["server_info"], Unknown, Models),
        (Get, Root, &["get_model_info"], Unknown, Models),
        (Get, Root, &["get_server_info"], Unknown, Models),
        (Get, Root, &["flush_cache"], Unknown, Manage),
        (Post, Root, &["flush_cache"], Unknown, Manage),
    ],
    request: &[
        (Object::Body, "input_ids", Place::Prompt),
        (Object::Body, "sampling_params", Place::Settings(Settings::Parameters)),
    ],
    response: &[
        (Node::Root, "output_ids", Node::TokenIds),
        (Node::Root, "meta_info", Node::Cumulative),
        (Node::Anywhere, "matched_stop", Node::Label),
    ],
    ..Provider::NOTHING
};
