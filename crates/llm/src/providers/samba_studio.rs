//! SambaStudio's own API.

use super::Provider;
use crate::request::place::{Object, Place, Settings};
use crate::response::Field;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "SambaStudio",
    request: &[
        (Object::Body, "params", Place::Settings(Settings::Parameters)),
    ],
    response: &[
        (Node::Listed, "value", Node::ListedValue),
        (Node::ListedValue, "completion", Node::Whole),
        (Node::ListedValue, "prompt", Node::Other),
        (Node::ListedValue, "tokens", Node::Other),
        (Node::ListedValue, "prompt_tokens_count", Node::FoundInList(Field::Input)),
        (Node::ListedValue, "completion_tokens_count", Node::FoundInList(Field::Output)),
        (Node::ListedValue, "total_tokens_count", Node::FoundInList(Field::Total)),
    ],
    ..Provider::NOTHING
};
