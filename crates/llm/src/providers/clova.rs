//! HyperCLOVA X, which counts lengths in tokens.

use super::Provider;
use crate::response::Field;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "HyperCLOVA X",
    response: &[
        (Node::Aside, "inputLength", Node::Found(Field::FreshInput)),
        (Node::Aside, "outputLength", Node::Found(Field::Output)),
    ],
    ..Provider::NOTHING
};
