//! Cohere.

use super::{DialectRules, Provider, Repeat};
use crate::refusal::{RefusalFacts, RefusalReply};
use crate::request::Dialect::Cohere;
use crate::request::Operation;
use crate::request::Operation::{Chat, Completion, CountTokens, Embedding, Manage, Rerank};
use crate::request::image::ImageFormula;
use crate::request::maximum::MaximumField;
use crate::request::place::{Object, Place};
use crate::request::route::{ANY, GENERATING, PathEnd};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get, Post};
use crate::response::Field;
use crate::response::place::Node;
use serde_json::json;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Cohere",
    calls: &[
        PathEnd::new(&["v1", "v2"], &["chat"], Cohere, Chat),
        PathEnd::new(&["v1"], &["generate", "summarize"], Cohere, Completion),
        PathEnd::new(&["v1", "v2"], &["embed"], Cohere, Embedding),
        PathEnd::new(ANY, &["rerank"], Cohere, Rerank).unless(GENERATING),
    ],
    tokenless: &[
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
        (Get, Version, &["finetuning", "finetuned-models"], Cohere, Manage),
        (Get, Version, &["finetuning", "finetuned-models", "*"], Cohere, Manage),
    ],
    request: &[
        (Object::Body, "query", Place::Content),
        (Object::Body, "texts", Place::Content),
        (Object::Body, "message", Place::Content),
        (Object::Body, "preamble", Place::Content),
        (Object::Body, "truncate", Place::Tag),
        (Object::Body, "input_type", Place::Tag),
        (Object::Body, "rank_fields", Place::Name),
        (Object::Body, "safety_mode", Place::Tag),
        (Object::Body, "chat_history", Place::Content),
        (Object::Body, "embedding_types", Place::Tag),
        (Object::Body, "num_generations", Place::Completions),
        (Object::Body, "citation_options", Place::Tag),
        (Object::Body, "citation_quality", Place::Tag),
        (Object::Body, "prompt_truncation", Place::Tag),
        (Object::Settings, "k", Place::Tag),
        (Object::Settings, "p", Place::Tag),
        (Object::Settings, "strict_tools", Place::Tag),
        (Object::Settings, "raw_prompting", Place::Tag),
        (Object::Settings, "return_prompt", Place::Tag),
        (Object::Settings, "return_documents", Place::Tag),
        (Object::Settings, "force_single_step", Place::Tag),
        (Object::Settings, "max_chunks_per_doc", Place::Tag),
        (Object::Settings, "max_tokens_per_doc", Place::Tag),
        (Object::Settings, "search_queries_only", Place::Tag),
        (Object::Content, "snippet", Place::Text),
        (Object::Content, "tool_results", Place::Content),
    ],
    response: &[
        (Node::Root, "response_type", Node::Label),
        (Node::Root, "meta", Node::Meta),
        (Node::Root, "generations", Node::Candidates),
        (Node::Usage, "tokens", Node::Tokens),
        (Node::Meta, "tokens", Node::Tokens),
        (Node::Usage, "billed_units", Node::BilledUnits),
        (Node::Meta, "billed_units", Node::BilledUnits),
        (Node::Tokens, "input_tokens", Node::Count(Field::Input)),
        (Node::Tokens, "output_tokens", Node::Count(Field::Output)),
        (Node::BilledUnits, "input_tokens", Node::Count(Field::BilledInput)),
        (Node::BilledUnits, "image_tokens", Node::Count(Field::BilledImages)),
        (Node::BilledUnits, "output_tokens", Node::Count(Field::BilledOutput)),
        (Node::BilledUnits, "search_units", Node::OtherUnit),
        (Node::BilledUnits, "classifications", Node::OtherUnit),
        (Node::BilledUnits, "images", Node::OtherUnit),
        (Node::Response, "meta", Node::Meta),
        (Node::Message, "tool_plan", Node::Text),
        (Node::Delta, "message", Node::Message),
        (Node::Results, "document", Node::Other),
        (Node::Root, "documents", Node::Other),
        (Node::Root, "texts", Node::Other),
        (Node::Root, "chat_history", Node::Other),
        (Node::Root, "warnings", Node::Other),
    ],
    repeats: &[
        Repeat { begins: "stream-end", ends: &[""], is_event: false },
    ],
    ..Provider::NOTHING
};

pub(super) const RULES: DialectRules = DialectRules {
    heeds: |_, field| field == MaximumField::MaxTokens,
    cap: |target| match target.operation {
        Operation::Chat | Operation::Completion => Some(&[&["max_tokens"]]),
        _ => None,
    },
    images: ImageFormula::Tiles,
    tokens_per_image: 765,
    streams: false,
    loads_without_prompt: false,
    reads_model_id: false,
    names_user_in_metadata: false,
    too_large: 400,
    refusal: |refusal: &RefusalFacts<'_>| {
        RefusalReply::of(refusal.with_details(json!({ "message": refusal.message })))
    },
};
