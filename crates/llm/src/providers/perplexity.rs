//! Perplexity's additions to OpenAI's API.

use super::Provider;
use crate::request::Dialect;
use crate::request::Dialect::Unknown;
use crate::request::Operation;
use crate::request::Operation::Manage;
use crate::request::place::{Object, Place};
use crate::request::route::Route;
use crate::request::tokenless::Base::{Root, Version};
use crate::request::tokenless::Method::Get;
use crate::response::Field;
use crate::response::place::Node;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Perplexity",
    paths: &[path],
    tokenless: &[
        (Get, Version, &["async", "sonar"], Unknown, Manage),
        (Get, Version, &["async", "sonar", "*"], Unknown, Manage),
        (Get, Root, &["async", "chat", "completions"], Unknown, Manage),
        (Get, Root, &["async", "chat", "completions", "*"], Unknown, Manage),
        (Get, Version, &["async", "chat", "completions"], Unknown, Manage),
        (Get, Version, &["async", "chat", "completions", "*"], Unknown, Manage),
    ],
    request: &[
        (Object::Body, "request", Place::Envelope),
    ],
    response: &[
        (Node::Usage, "citation_tokens", Node::Count(Field::Citation)),
        (Node::Root, "search_results", Node::Other),
    ],
    ..Provider::NOTHING
};

/// Recognises calls that are answered in the background.
fn path(last: &str, before: &[&str]) -> Option<Route> {
    let is_async = match before {
        [.., "async", "chat"] => last == "completions",
        [.., "async"] => last == "sonar",
        _ => false,
    };
    let route = Route::new(Dialect::OpenAi, Operation::Chat);
    is_async.then_some(Route { background: true, ..route })
}
