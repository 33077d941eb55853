//! Servers with few calls of their own: llama.cpp, vLLM, Perplexity, OpenRouter, xAI, watsonx, YandexGPT, DashScope, Dify.

use crate::request::Dialect::Unknown;
use crate::request::Operation::{CountTokens, Manage, Models};
use crate::request::tokenless::Base::{Root, Version};
use crate::request::tokenless::Method::{Get, Post};
use crate::request::tokenless::Row;

/// Calls that use no tokens.
#[rustfmt::skip]
pub(super) static TOKENLESS: &[Row] = &[
    (Post, Root, &["tokenize"], Unknown, CountTokens),
    (Post, Root, &["detokenize"], Unknown, CountTokens),
    (Get, Root, &["async", "chat", "completions"], Unknown, Manage),
    (Get, Root, &["async", "chat", "completions", "*"], Unknown, Manage),
    (Get, Version, &["async", "chat", "completions"], Unknown, Manage),
    (Get, Version, &["async", "chat", "completions", "*"], Unknown, Manage),
    (Get, Version, &["generation"], Unknown, Manage),
    (Get, Version, &["credits"], Unknown, Manage),
    (Get, Version, &["key"], Unknown, Manage),
    (Get, Version, &["auth", "key"], Unknown, Manage),
    (Get, Version, &["providers"], Unknown, Manage),
    (Get, Version, &["language-models"], Unknown, Models),
    (Get, Version, &["language-models", "*"], Unknown, Models),
    (Get, Version, &["embedding-models"], Unknown, Models),
    (Get, Version, &["image-generation-models"], Unknown, Models),
    (Get, Version, &["chat", "deferred-completion", "*"], Unknown, Manage),
    (Post, Version, &["tokenize-text"], Unknown, CountTokens),
    (Post, Version, &["text", "tokenization"], Unknown, CountTokens),
    (Post, Version, &["tokenizeCompletion"], Unknown, CountTokens),
    (Get, Version, &["tasks", "*"], Unknown, Manage),
    (Post, Version, &["files", "upload"], Unknown, Manage),
    (Post, Version, &["chat-messages", "*", "stop"], Unknown, Manage),
    (Post, Root, &["apply-template"], Unknown, CountTokens),
];
