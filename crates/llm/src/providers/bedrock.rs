//! AWS Bedrock.

use crate::request::Dialect::Bedrock;
use crate::request::Operation::{Manage, Models, Moderation};
use crate::request::tokenless::Base::Root;
use crate::request::tokenless::Method::{Get, Post};
use crate::request::tokenless::Row;

/// Calls that use no tokens.
#[rustfmt::skip]
pub(super) static TOKENLESS: &[Row] = &[
    (Get, Root, &["foundation-models"], Bedrock, Models),
    (Get, Root, &["foundation-models", "*"], Bedrock, Models),
    (Get, Root, &["inference-profiles"], Bedrock, Models),
    (Get, Root, &["model-invocation-jobs"], Bedrock, Manage),
    (Post, Root, &["model-invocation-job"], Bedrock, Manage),
    (Get, Root, &["model-invocation-job", "*"], Bedrock, Manage),
    (Post, Root, &["model-invocation-job", "*", "stop"], Bedrock, Manage),
    (Post, Root, &["guardrail", "*", "version", "*", "apply"], Bedrock, Moderation),
];
