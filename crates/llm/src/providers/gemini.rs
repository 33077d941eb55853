//! Gemini, also on Vertex.

use crate::request::Dialect::Gemini;
use crate::request::Operation::{Manage, Models};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get, Post};
use crate::request::tokenless::Row;

/// Calls that use no tokens.
#[rustfmt::skip]
pub(super) static TOKENLESS: &[Row] = &[
    (Get, Version, &["interactions", "*"], Gemini, Manage),
    (Delete, Version, &["interactions", "*"], Gemini, Manage),
    (Post, Version, &["interactions", "*", "cancel"], Gemini, Manage),
    (Get, Version, &["cachedContents"], Gemini, Manage),
    (Get, Version, &["cachedContents", "*"], Gemini, Manage),
    (Delete, Version, &["cachedContents", "*"], Gemini, Manage),
    (Get, Version, &["operations", "*"], Gemini, Manage),
    (Get, Version, &["models", "*", "operations", "*"], Gemini, Manage),
    (Get, Version, &["tunedModels"], Gemini, Models),
    (Get, Version, &["tunedModels", "*"], Gemini, Models),
    (Delete, Version, &["tunedModels", "*"], Gemini, Models),
    (Post, Version, &["batches", "*"], Gemini, Manage),
    (Delete, Version, &["batches", "*"], Gemini, Manage),
    (Get, Version, &["fileSearchStores"], Gemini, Manage),
    (Post, Version, &["fileSearchStores"], Gemini, Manage),
    (Get, Version, &["fileSearchStores", "*"], Gemini, Manage),
    (Delete, Version, &["fileSearchStores", "*"], Gemini, Manage),
];
