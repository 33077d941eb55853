//! MiniMax's own API.

use super::Provider;
use crate::response::place::{Node, StatusKind};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "MiniMax",
    response: &[
        (Node::Root, "base_resp", Node::Verdict),
        (Node::Verdict, "status_code", Node::Status(StatusKind::Code)),
        (Node::Verdict, "status_msg", Node::Notice),
    ],
    ..Provider::NOTHING
};
