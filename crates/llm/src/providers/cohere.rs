//! Cohere.

use crate::request::Dialect::Cohere;
use crate::request::Operation::{CountTokens, Manage};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get, Post};
use crate::request::tokenless::Row;

/// Calls that use no tokens.
#[rustfmt::skip]
pub(super) static TOKENLESS: &[Row] = &[
    (Post, Version, &["tokenize"], Cohere, CountTokens),
    (Post, Version, &["detokenize"], Cohere, CountTokens),
    (Get, Version, &["datasets"], Cohere, Manage),
    (Post, Version, &["datasets"], Cohere, Manage),
    (Get, Version, &["datasets", "*"], Cohere, Manage),
    (Delete, Version, &["datasets", "*"], Cohere, Manage),
    (Get, Version, &["embed-jobs"], Cohere, Manage),
    (Get, Version, &["embed-jobs", "*"], Cohere, Manage),
    (Post, Version, &["embed-jobs", "*", "cancel"], Cohere, Manage),
    (Post, Version, &["check-api-key"], Cohere, Manage),
];
