//! YandexGPT.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::CountTokens;
use crate::request::place::{Object, Place};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::Post;
use crate::response::Field;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "YandexGPT",
    tokenless: &[
        (Post, Version, &["tokenizeCompletion"], Unknown, CountTokens),
    ],
    request: &[
        (Object::Body, "modelUri", Place::Name),
    ],
    response: &[
        (Node::Root, "numTokens", Node::Own(Field::Input)),
    ],
    ..Provider::NOTHING
};
