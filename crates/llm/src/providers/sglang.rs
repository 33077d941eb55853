//! SGLang's own API.

use super::Provider;
use crate::request::place::{Object, Place, Settings};
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "SGLang",
    request: &[
        (Object::Body, "input_ids", Place::Prompt),
        (Object::Body, "sampling_params", Place::Settings(Settings::Parameters)),
    ],
    response: &[
        (Node::Root, "meta_info", Node::Cumulative),
        (Node::Anywhere, "matched_stop", Node::Label),
    ],
    ..Provider::NOTHING
};
