//! Anthropic.

use crate::request::Dialect::Anthropic;
use crate::request::Operation::{CountTokens, Manage};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get, Post};
use crate::request::tokenless::Row;

/// Calls that use no tokens.
#[rustfmt::skip]
pub(super) static TOKENLESS: &[Row] = &[
    (Post, Version, &["messages", "count_tokens"], Anthropic, CountTokens),
    (Post, Version, &["publishers", "anthropic", "models", "count-tokens:rawPredict"], Anthropic, CountTokens),
    (Get, Version, &["messages", "batches"], Anthropic, Manage),
    (Post, Version, &["messages", "batches"], Anthropic, Manage),
    (Get, Version, &["messages", "batches", "*"], Anthropic, Manage),
    (Delete, Version, &["messages", "batches", "*"], Anthropic, Manage),
    (Get, Version, &["messages", "batches", "*", "results"], Anthropic, Manage),
    (Post, Version, &["messages", "batches", "*", "cancel"], Anthropic, Manage),
    (Get, Version, &["skills"], Anthropic, Manage),
    (Post, Version, &["skills"], Anthropic, Manage),
    (Get, Version, &["skills", "*"], Anthropic, Manage),
    (Delete, Version, &["skills", "*"], Anthropic, Manage),
];
