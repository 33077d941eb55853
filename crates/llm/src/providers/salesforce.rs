//! Salesforce's Models API.

use super::Provider;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Salesforce",
    response: &[
        (Node::Root, "generation", Node::Generation),
        (Node::Root, "generationDetails", Node::Generation),
        (Node::Generation, "parameters", Node::Around),
    ],
    ..Provider::NOTHING
};
