//! AWS Bedrock: Converse, and InvokeModel with the vendors' own bodies.

use super::{DialectRules, Provider, UsageHeader};
use crate::refusal::{RefusalFacts, RefusalReason, RefusalReply};
use crate::request::Dialect;
use crate::request::Dialect::Bedrock;
use crate::request::Operation;
use crate::request::Operation::{Manage, Models, Moderation};
use crate::request::image::ImageFormula;
use crate::request::maximum::{CapTarget, FieldPath, MaximumField, Shape};
use crate::request::place::{Media, Object, Place, Settings};
use crate::request::route::Route;
use crate::request::tokenless::Base::Root;
use crate::request::tokenless::Method::{Get, Post};
use crate::request::tokenless::is_plain;
use crate::response::Field;
use crate::response::place::Node;
use serde_json::json;

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "AWS Bedrock",
    paths: &[path],
    tokenless: &[
        (Get, Root, &["foundation-models"], Bedrock, Models),
        (Get, Root, &["foundation-models", "*"], Bedrock, Models),
        (Get, Root, &["inference-profiles"], Bedrock, Models),
        (Get, Root, &["async-invoke"], Bedrock, Manage),
        (Get, Root, &["async-invoke", "*"], Bedrock, Manage),
        (Get, Root, &["model-invocation-jobs"], Bedrock, Manage),
        (Post, Root, &["model-invocation-job"], Bedrock, Manage),
        (Get, Root, &["model-invocation-job", "*"], Bedrock, Manage),
        (Post, Root, &["model-invocation-job", "*", "stop"], Bedrock, Manage),
        (Post, Root, &["guardrail", "*", "version", "*", "apply"], Bedrock, Moderation),
    ],
    tokenless_paths: &[tokenless_path],
    request: &[
        (Object::Body, "modelId", Place::ModelId),
        (Object::Body, "inputText", Place::Content),
        (Object::Body, "inputImage", Place::Media(Media::Image)),
        (Object::Body, "singleEmbeddingParams", Place::Content),
        (Object::Body, "segmentedEmbeddingParams", Place::Content),
        (Object::Body, "maxTokens", Place::Maximum(MaximumField::Other(0))),
        (Object::Body, "numResults", Place::Completions),
        (Object::Body, "max_gen_len", Place::Maximum(MaximumField::Other(2))),
        (Object::Body, "serviceTier", Place::Tag),
        (Object::Body, "guardrailConfig", Place::Name),
        (Object::Body, "inferenceConfig", Place::Settings(Settings::Inference)),
        (Object::Body, "requestMetadata", Place::Metadata),
        (Object::Body, "performanceConfig", Place::Tag),
        (Object::Body, "textGenerationConfig", Place::Settings(Settings::TextGeneration)),
        (Object::Body, "additionalModelRequestFields", Place::Settings(Settings::Additional)),
        (Object::Body, "additionalModelResponseFieldPaths", Place::Name),
        (Object::Content, "toolUse", Place::Calls),
        (Object::Content, "toolUseId", Place::Name),
        (Object::Content, "cachePoint", Place::Tag),
        (Object::Content, "toolResult", Place::Content),
        (Object::Content, "reasoningText", Place::Content),
        (Object::Content, "reasoningContent", Place::Content),
        (Object::Call, "toolUseId", Place::Name),
        (Object::ToolConfig, "toolChoice", Place::Name),
        (Object::File, "bytes", Place::Data(Media::File)),
        (Object::File, "s3Location", Place::Reference(Media::File)),
        (Object::Inference, "maxTokens", Place::Maximum(MaximumField::Setting(Settings::Inference))),
        (Object::Inference, "max_new_tokens", Place::Maximum(MaximumField::Setting(Settings::Inference))),
        (Object::TextGeneration, "maxTokenCount", Place::Maximum(MaximumField::Setting(Settings::TextGeneration))),
        (Object::Additional, "inferenceConfig", Place::Settings(Settings::Additional)),
    ],
    response: &[
        (Node::Root, "amazon-bedrock-invocationMetrics", Node::InvocationMetrics),
        (Node::Root, "results", Node::Results),
        (Node::Root, "prompt_token_count", Node::Own(Field::Input)),
        (Node::Root, "inputTextTokenCount", Node::Own(Field::Input)),
        (Node::Root, "generation_token_count", Node::Own(Field::Output)),
        (Node::Root, "totalOutputTextTokenCount", Node::Own(Field::Output)),
        (Node::Root, "__type", Node::ErrorCode),
        (Node::Root, "outputs", Node::Outputs),
        (Node::Root, "contentBlockDelta", Node::Block),
        (Node::Root, "contentBlockStart", Node::Block),
        (Node::Root, "start", Node::Block),
        (Node::Root, "messageStart", Node::Block),
        (Node::Root, "messageStop", Node::Block),
        (Node::Root, "outputText", Node::Text),
        (Node::Usage, "cacheReadInputTokens", Node::Count(Field::CacheRead)),
        (Node::Usage, "cacheWriteInputTokens", Node::Count(Field::CacheWrite)),
        (Node::Usage, "cacheDetails", Node::CacheDetails),
        (Node::InvocationMetrics, "inputTokenCount", Node::Count(Field::FreshInput)),
        (Node::InvocationMetrics, "outputTokenCount", Node::Count(Field::Output)),
        (Node::InvocationMetrics, "cacheReadInputTokenCount", Node::Count(Field::CacheRead)),
        (Node::InvocationMetrics, "cacheWriteInputTokenCount", Node::Count(Field::CacheWrite)),
        (Node::CacheDetails, "ttl", Node::CacheTtl),
        (Node::CacheDetails, "inputTokens", Node::CacheCount),
        (Node::Output, "message", Node::Message),
        (Node::Delta, "reasoningContent", Node::Block),
        (Node::Delta, "toolUse", Node::Block),
        (Node::Content, "reasoningContent", Node::Content),
        (Node::Content, "reasoningText", Node::Content),
        (Node::Block, "delta", Node::Delta),
        (Node::Block, "start", Node::Block),
        (Node::Block, "toolUse", Node::Block),
        (Node::Content, "toolUse", Node::Block),
        (Node::Results, "outputText", Node::Text),
        (Node::Results, "tokenCount", Node::Own(Field::Generated)),
        (Node::Content, "redactedContent", Node::Other),
        (Node::Content, "toolResult", Node::Other),
        (Node::Root, "trace", Node::Trace),
        (Node::Trace, "modelInvocationOutput", Node::TracedCall),
        (Node::TracedCall, "metadata", Node::Metadata),
        (Node::Anywhere, "p", Node::Label),
        (Node::Anywhere, "stopReason", Node::Label),
        (Node::Anywhere, "completionReason", Node::Label),
        (Node::Anywhere, "stopSequence", Node::Label),
    ],
    headers: &[
        UsageHeader { name: "x-amzn-bedrock-input-token-count", field: Field::FreshInput, is_first: true },
        UsageHeader { name: "x-amzn-bedrock-output-token-count", field: Field::Output, is_first: true },
        UsageHeader { name: "x-amzn-bedrock-cache-read-input-token-count", field: Field::CacheRead, is_first: false },
        UsageHeader { name: "x-amzn-bedrock-cache-write-input-token-count", field: Field::CacheWrite, is_first: false },
    ],
    ..Provider::NOTHING
};

pub(super) const RULES: DialectRules = DialectRules {
    // InvokeModel accepts the body of any vendor.
    heeds: |operation, field| operation.is_none() || field == MaximumField::Setting(Settings::Inference),
    cap,
    images: ImageFormula::Pixels,
    tokens_per_image: 1600,
    streams: false,
    loads_without_prompt: false,
    reads_model_id: true,
    names_user_in_metadata: false,
    too_large: 400,
    refusal,
};

/// Recognises `/model/{id}/converse`. The id may be an ARN with slashes, percent-encoded or not.
fn path(last: &str, before: &[&str]) -> Option<Route> {
    let (operation, stream) = match last {
        "converse" => (Some(Operation::Chat), false),
        "converse-stream" => (Some(Operation::Chat), true),
        "invoke" | "async-invoke" => (None, false),
        "invoke-with-response-stream" => (None, true),
        "count-tokens" => (Some(Operation::CountTokens), false),
        _ => return None,
    };
    let at = before.iter().position(|segment| *segment == "model")?;
    let model = before.get(at.checked_add(1)?..)?.join("/");
    (!model.is_empty()).then_some(Route {
        dialect: Dialect::Bedrock,
        operation,
        model: Some(model),
        stream: Some(stream),
        ..Route::default()
    })
}

/// Recognises a call that counts tokens and has the model in its path. An ARN has percent-encoded colons and
/// slashes.
fn tokenless_path(segments: &[&str]) -> Option<(Dialect, Operation)> {
    let ["model", model, "count-tokens"] = segments else { return None };
    let plain = model.replace("%3A", ":").replace("%2F", ":").replace("%3a", ":").replace("%2f", ":");
    is_plain(&plain).then_some((Dialect::Bedrock, Operation::CountTokens))
}

fn cap(target: CapTarget<'_>) -> Option<FieldPath> {
    if !matches!(target.operation, Operation::Chat | Operation::Completion) {
        return None;
    }
    if target.route.operation == Some(Operation::Chat) {
        return Some(&[&["inferenceConfig"], &["maxTokens"]]);
    }
    let is = |vendor: &str| target.model.contains(vendor);
    match target.shape {
        Shape::Anthropic => Some(&[&["max_tokens"]]),
        Shape::Titan => Some(&[&["textGenerationConfig"], &["maxTokenCount"]]),
        _ if is("amazon.nova") => Some(&[&["inferenceConfig"], &["maxTokens", "max_new_tokens"]]),
        _ if is("meta.llama") => Some(&[&["max_gen_len"]]),
        _ if ["anthropic.", "mistral.", "cohere.", "ai21.", "deepseek.", "qwen.", "openai."]
            .into_iter()
            .any(is) =>
        {
            Some(&[&["max_tokens"]])
        }
        _ => None,
    }
}

fn refusal(refusal: &RefusalFacts<'_>) -> RefusalReply {
    // botocore retries a call that was throttled, but not a call that exceeds a quota.
    let exception = match refusal.reason {
        RefusalReason::Exceeded => "ThrottlingException",
        RefusalReason::TooLarge => "ServiceQuotaExceededException",
        RefusalReason::Invalid => "ValidationException",
        RefusalReason::Unavailable => "ServiceUnavailableException",
    };
    let mut headers = vec![("x-amzn-errortype", exception.to_owned())];
    // botocore honours no other header.
    headers.extend(refusal.retry_ms.map(|ms| ("x-amz-retry-after", ms.to_string())));
    RefusalReply { headers, body: refusal.with_details(json!({ "message": refusal.message })) }
}
