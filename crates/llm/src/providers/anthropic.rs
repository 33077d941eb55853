//! Anthropic.

use super::{DialectRules, Provider};
use crate::refusal::{RefusalFacts, RefusalReason, RefusalReply};
use crate::request::Dialect::Anthropic;
use crate::request::Operation;
use crate::request::Operation::{Completion, CountTokens, Manage, Message};
use crate::request::image::ImageFormula;
use crate::request::maximum::MaximumField;
use crate::request::place::{Object, Place, Sign};
use crate::request::route::{ANY, PathEnd};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get, Post};
use crate::response::Field;
use crate::response::place::Node;
use serde_json::json;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Anthropic",
    calls: &[
        PathEnd::new(ANY, &["messages"], Anthropic, Message).unless(&["threads"]),
        PathEnd::new(ANY, &["complete"], Anthropic, Completion),
    ],
    tokenless: &[
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
        (Get, Version, &["organizations", "cost_report"], Anthropic, Manage),
        (Get, Version, &["organizations", "usage_report", "messages"], Anthropic, Manage),
        (Get, Version, &["organizations", "usage_report", "claude_code"], Anthropic, Manage),
    ],
    request: &[
        (Object::Body, "thinking", Place::Tag),
        (Object::Body, "output_config", Place::Format),
        (Object::Body, "anthropic_beta", Place::Name),
        (Object::Body, "anthropic_version", Place::Sign(Sign::AnthropicVersion)),
        (Object::Body, "max_tokens_to_sample", Place::Maximum(MaximumField::MaxTokensToSample)),
        (Object::Content, "is_error", Place::Tag),
        (Object::Content, "signature", Place::Name),
        (Object::Content, "tool_use_id", Place::Name),
        (Object::Content, "container_id", Place::Context),
        (Object::Content, "cache_control", Place::Tag),
    ],
    response: &[
        (Node::Root, "content_block", Node::Block),
        (Node::Usage, "cache_read_input_tokens", Node::Count(Field::CacheRead)),
        (Node::Usage, "cache_creation_input_tokens", Node::Count(Field::CacheWrite)),
        (Node::Usage, "cache_creation", Node::CacheCreation),
        (Node::Usage, "iterations", Node::Iterations),
        (Node::OutputDetails, "thinking_tokens", Node::Count(Field::Reasoning)),
        (Node::CacheCreation, "ephemeral_5m_input_tokens", Node::Count(Field::CacheWrite5m)),
        (Node::CacheCreation, "ephemeral_1h_input_tokens", Node::Count(Field::CacheWrite1h)),
        (Node::Iterations, "type", Node::IterationType),
        (Node::Block, "input", Node::Arguments),
        (Node::Content, "input", Node::Arguments),
        (Node::Delta, "text", Node::Text),
        (Node::Delta, "thinking", Node::Text),
        (Node::Delta, "partial_json", Node::Text),
        (Node::Content, "thinking", Node::Content),
        (Node::Content, "content", Node::Content),
        (Node::Block, "text", Node::Text),
        (Node::Block, "thinking", Node::Text),
        (Node::Block, "content", Node::Content),
        (Node::Content, "source", Node::Other),
        (Node::Content, "data", Node::Other),
        (Node::Block, "data", Node::Other),
        (Node::Delta, "citation", Node::Other),
        (Node::Anywhere, "context_management", Node::Other),
        (Node::Anywhere, "stop_reason", Node::Label),
        (Node::Anywhere, "stop_sequence", Node::Label),
    ],
    events: &[
        (Node::Message, "usage", Node::Usage),
        (Node::Delta, "usage", Node::Usage),
    ],
    ..Provider::NOTHING
};

pub(super) const RULES: DialectRules = DialectRules {
    heeds: |_, field| matches!(field, MaximumField::MaxTokens | MaximumField::MaxTokensToSample),
    cap: |target| match target.operation {
        Operation::Completion => Some(&[&["max_tokens_to_sample"]]),
        Operation::Message => Some(&[&["max_tokens"]]),
        _ => None,
    },
    images: ImageFormula::Pixels,
    tokens_per_image: 1600,
    streams: false,
    loads_without_prompt: false,
    reads_model_id: false,
    names_user_in_metadata: true,
    too_large: 413,
    refusal,
};

fn refusal(refusal: &RefusalFacts<'_>) -> RefusalReply {
    let kind = match refusal.reason {
        RefusalReason::Exceeded => "rate_limit_error",
        RefusalReason::TooLarge => "request_too_large",
        RefusalReason::Invalid => "invalid_request_error",
        RefusalReason::Unavailable => "api_error",
    };
    let error = refusal.with_details(json!({ "type": kind, "message": refusal.message }));
    RefusalReply::of(json!({ "type": "error", "error": error }))
}
