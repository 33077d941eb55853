//! Ollama's own API.

use crate::request::Dialect::Ollama;
use crate::request::Operation::Models;
use crate::request::tokenless::Base::Api;
use crate::request::tokenless::Method::{Get, Post};
use crate::request::tokenless::Row;

/// Calls that use no tokens.
#[rustfmt::skip]
pub(super) static TOKENLESS: &[Row] = &[
    (Get, Api, &["tags"], Ollama, Models),
    (Get, Api, &["ps"], Ollama, Models),
    (Get, Api, &["version"], Ollama, Models),
    (Post, Api, &["show"], Ollama, Models),
    (Post, Api, &["pull"], Ollama, Models),
    (Post, Api, &["push"], Ollama, Models),
    (Post, Api, &["copy"], Ollama, Models),
    (Post, Api, &["create"], Ollama, Models),
    (Post, Api, &["blobs", "*"], Ollama, Models),
    (Get, Api, &["blobs", "*"], Ollama, Models),
];
