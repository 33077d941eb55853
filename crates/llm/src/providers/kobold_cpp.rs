//! KoboldCpp's own API.

use super::Provider;
use crate::request::Dialect::Unknown;
use crate::request::Operation::{CountTokens, Manage, Models};
use crate::request::tokenless::Base::{Api, Version};
use crate::request::tokenless::Method::{Get, Post};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "KoboldCpp",
    tokenless: &[
        (Post, Api, &["extra", "tokencount"], Unknown, CountTokens),
        (Post, Api, &["extra", "abort"], Unknown, Manage),
        (Post, Api, &["extra", "generate", "check"], Unknown, Manage),
        (Get, Api, &["extra", "perf"], Unknown, Manage),
        (Get, Api, &["extra", "version"], Unknown, Models),
        (Get, Version, &["model"], Unknown, Models),
        (Get, Version, &["info", "version"], Unknown, Models),
        (Get, Version, &["config", "max_length"], Unknown, Models),
        (Get, Version, &["config", "max_context_length"], Unknown, Models),
    ],
    ..Provider::NOTHING
};
