//! Gemini, also on Vertex.

use super::{DialectRules, Provider, Repeat};
use crate::refusal::{RefusalFacts, RefusalReason, RefusalReply, seconds};
use crate::request::Dialect;
use crate::request::Dialect::Gemini;
use crate::request::Operation;
use crate::request::Operation::{Manage, Models, Response};
use crate::request::image::ImageFormula;
use crate::request::maximum::MaximumField;
use crate::request::place::{Media, Object, Place, Settings};
use crate::request::route::{ANY, PathEnd, Route};
use crate::request::tokenless::Base::Version;
use crate::request::tokenless::Method::{Delete, Get, Post};
use crate::request::tokenless::{is_plain, is_version};
use crate::response::Field;
use crate::response::place::Node;
use serde_json::{Map, Value, json};

#[rustfmt::skip]
pub(super) const PROVIDER: Provider = Provider {
    name: "Gemini and Vertex AI",
    calls: &[
        PathEnd::new(ANY, &["interactions"], Gemini, Response),
    ],
    paths: &[path],
    tokenless: &[
        (Get, Version, &["interactions", "*"], Gemini, Manage),
        (Delete, Version, &["interactions", "*"], Gemini, Manage),
        (Post, Version, &["interactions", "*", "cancel"], Gemini, Manage),
        (Get, Version, &["cachedContents"], Gemini, Manage),
        (Get, Version, &["cachedContents", "*"], Gemini, Manage),
        (Delete, Version, &["cachedContents", "*"], Gemini, Manage),
        (Post, Version, &["cachedContents", "*"], Gemini, Manage),
        (Post, Version, &["auth_tokens"], Gemini, Manage),
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
        (Get, Version, &["fileSearchStores", "*", "documents"], Gemini, Manage),
        (Get, Version, &["fileSearchStores", "*", "documents", "*"], Gemini, Manage),
        (Delete, Version, &["fileSearchStores", "*", "documents", "*"], Gemini, Manage),
    ],
    tokenless_paths: &[tokenless_path],
    request: &[
        (Object::Body, "labels", Place::Metadata),
        (Object::Body, "contents", Place::Content),
        (Object::Body, "requests", Place::Content),
        (Object::Body, "instances", Place::Prompt),
        (Object::Body, "cachedContent", Place::Context),
        (Object::Body, "cached_content", Place::Context),
        (Object::Body, "candidateCount", Place::Completions),
        (Object::Body, "safetySettings", Place::Tag),
        (Object::Body, "candidate_count", Place::Completions),
        (Object::Body, "maxOutputTokens", Place::Maximum(MaximumField::Other(5))),
        (Object::Body, "safety_settings", Place::Tag),
        (Object::Body, "generationConfig", Place::Settings(Settings::Generation)),
        (Object::Body, "generation_config", Place::Settings(Settings::Generation)),
        (Object::Body, "systemInstruction", Place::Content),
        (Object::Body, "system_instruction", Place::Content),
        (Object::Settings, "imageConfig", Place::Tag),
        (Object::Settings, "speechConfig", Place::Name),
        (Object::Settings, "speech_config", Place::Name),
        (Object::Settings, "audioTimestamp", Place::Tag),
        (Object::Settings, "thinkingConfig", Place::Tag),
        (Object::Settings, "mediaResolution", Place::Tag),
        (Object::Settings, "thinking_config", Place::Tag),
        (Object::Settings, "presencePenalty", Place::Tag),
        (Object::Settings, "frequencyPenalty", Place::Tag),
        (Object::Settings, "responseLogprobs", Place::Tag),
        (Object::Settings, "responseMimeType", Place::Name),
        (Object::Settings, "responseModalities", Place::Tag),
        (Object::Settings, "response_mime_type", Place::Name),
        (Object::Settings, "response_modalities", Place::Tag),
        (Object::Content, "thought", Place::Tag),
        (Object::Content, "fileData", Place::Media(Media::File)),
        (Object::Content, "taskType", Place::Tag),
        (Object::Content, "endOffset", Place::Tag),
        (Object::Content, "inlineData", Place::Media(Media::File)),
        (Object::Content, "inline_data", Place::Media(Media::File)),
        (Object::Content, "startOffset", Place::Tag),
        (Object::Content, "functionCall", Place::Calls),
        (Object::Content, "videoMetadata", Place::Tag),
        (Object::Content, "functionResponse", Place::Calls),
        (Object::Content, "thoughtSignature", Place::Name),
        (Object::Content, "thought_signature", Place::Name),
        (Object::Content, "outputDimensionality", Place::Tag),
        (Object::ToolConfig, "functionCallingConfig", Place::Name),
        (Object::ToolConfig, "function_calling_config", Place::Name),
        (Object::File, "gcsUri", Place::Reference(Media::File)),
        (Object::File, "fileUri", Place::Reference(Media::File)),
        (Object::File, "file_uri", Place::Reference(Media::File)),
        (Object::File, "mimeType", Place::FileType),
        (Object::File, "mime_type", Place::FileType),
        (Object::File, "displayName", Place::FileName),
        (Object::File, "bytesBase64Encoded", Place::Data(Media::File)),
        (Object::Generation, "maxOutputTokens", Place::Maximum(MaximumField::Setting(Settings::Generation))),
        (Object::Generation, "max_output_tokens", Place::Maximum(MaximumField::Setting(Settings::Generation))),
        (Object::Parameters, "maxOutputTokens", Place::Maximum(MaximumField::Setting(Settings::Parameters))),
        (Object::Parameters, "max_output_tokens", Place::Maximum(MaximumField::Setting(Settings::Parameters))),
        (Object::Generation, "candidateCount", Place::Completions),
        (Object::Generation, "candidate_count", Place::Completions),
        (Object::Parameters, "candidateCount", Place::Completions),
        (Object::Parameters, "candidate_count", Place::Completions),
        (Object::Parameters, "sampleCount", Place::Completions),
    ],
    response: &[
        (Node::Root, "usageMetadata", Node::UsageMetadata),
        (Node::Root, "interaction", Node::Response),
        (Node::Root, "steps", Node::Around),
        (Node::Root, "step", Node::Unknown),
        (Node::Root, "predictions", Node::Predictions),
        (Node::Root, "candidates", Node::Candidates),
        (Node::Root, "event_type", Node::Type),
        (Node::Root, "invocationId", Node::CallMark),
        (Node::Root, "invocation_id", Node::CallMark),
        (Node::Root, "partial", Node::PartialMark),
        (Node::UsageMetadata, "promptTokenCount", Node::Count(Field::Input)),
        (Node::UsageMetadata, "candidatesTokenCount", Node::Count(Field::Output)),
        (Node::UsageMetadata, "responseTokenCount", Node::Count(Field::Output)),
        (Node::UsageMetadata, "thoughtsTokenCount", Node::Count(Field::Thoughts)),
        (Node::UsageMetadata, "toolUsePromptTokenCount", Node::Count(Field::ToolUse)),
        (Node::UsageMetadata, "cachedContentTokenCount", Node::Count(Field::Cached)),
        (Node::UsageMetadata, "totalTokenCount", Node::Count(Field::Total)),
        (Node::Embeddings, "statistics", Node::Statistics),
        (Node::Statistics, "token_count", Node::Own(Field::Predicted)),
        (Node::Content, "functionCall", Node::Function),
        (Node::Candidates, "content", Node::CandidateContent),
        (Node::CandidateContent, "parts", Node::Content),
        (Node::Predictions, "embeddings", Node::Embeddings),
        (Node::Content, "inlineData", Node::Other),
        (Node::Content, "inline_data", Node::Other),
        (Node::Content, "fileData", Node::Other),
        (Node::Content, "functionResponse", Node::Other),
        (Node::Predictions, "bytesBase64Encoded", Node::Other),
        (Node::Root, "promptTokensDetails", Node::Other),
        (Node::Root, "promptFeedback", Node::Other),
        (Node::Anywhere, "thoughtSignature", Node::Other),
        (Node::Anywhere, "thought_signature", Node::Other),
        (Node::Anywhere, "safetyRatings", Node::Other),
        (Node::Anywhere, "safetyAttributes", Node::Other),
        (Node::Anywhere, "citationMetadata", Node::Other),
        (Node::Anywhere, "groundingMetadata", Node::Other),
        (Node::Anywhere, "urlContextMetadata", Node::Other),
        (Node::Anywhere, "url_context_metadata", Node::Other),
        (Node::Anywhere, "logprobsResult", Node::Other),
        (Node::Anywhere, "logprobs_result", Node::Other),
        (Node::Anywhere, "createTime", Node::Label),
        (Node::Anywhere, "create_time", Node::Label),
        (Node::Anywhere, "finishReason", Node::Label),
        (Node::Anywhere, "finishMessage", Node::Label),
        (Node::Anywhere, "modelVersion", Node::Label),
        (Node::Anywhere, "mimeType", Node::Label),
        (Node::Anywhere, "mime_type", Node::Label),
        (Node::Anywhere, "serviceTier", Node::Label),
    ],
    repeats: &[
        Repeat { begins: "interaction.", ends: &[".created", ".status_update", ".completed", ".complete"], is_event: true },
    ],
    ..Provider::NOTHING
};

pub(super) const RULES: DialectRules = DialectRules {
    heeds: |_, field| matches!(field, MaximumField::Setting(Settings::Generation | Settings::Parameters)),
    cap: |target| match target.operation {
        Operation::Response => Some(&[&["generation_config"], &["max_output_tokens"]]),
        Operation::Chat => {
            Some(&[&["generationConfig", "generation_config"], &["maxOutputTokens", "max_output_tokens"]])
        }
        _ => None,
    },
    images: ImageFormula::Crops,
    tokens_per_image: 258,
    streams: false,
    loads_without_prompt: false,
    reads_model_id: false,
    names_user_in_metadata: false,
    too_large: 400,
    refusal,
};

/// Recognises `/models/{model}:{method}`, and Vertex's `/publishers/{publisher}/models/{model}:{method}`.
fn path(last: &str, before: &[&str]) -> Option<Route> {
    let (model, method) = last.rsplit_once(':')?;
    let stream = matches!(method, "streamGenerateContent" | "serverStreamingPredict" | "streamRawPredict");
    let operation = match method {
        "generateContent" | "streamGenerateContent" | "generateAnswer" => Some(Operation::Chat),
        "embedContent" | "batchEmbedContents" | "asyncBatchEmbedContent" => Some(Operation::Embedding),
        "countTokens" | "computeTokens" => Some(Operation::CountTokens),
        "rawPredict" | "streamRawPredict" => None,
        "predict" | "predictLongRunning" | "serverStreamingPredict" | "batchGenerateContent" => {
            Some(Operation::Other)
        }
        _ => return None,
    };
    let publisher = before.iter().skip_while(|segment| **segment != "publishers").nth(1);
    let dialect = match (operation, publisher) {
        (None, Some(&"anthropic")) => Dialect::Anthropic,
        (None, _) => Dialect::OpenAi,
        _ => Dialect::Gemini,
    };
    let operation = operation.unwrap_or(match dialect {
        Dialect::Anthropic => Operation::Message,
        _ => Operation::Chat,
    });
    let model = Some(model.to_owned()).filter(|model| !model.is_empty());
    Some(Route { dialect, operation: Some(operation), model, stream: Some(stream), ..Route::default() })
}

/// Recognises uploads to a store, and calls that count tokens or read a stored result and have the model in
/// their path.
fn tokenless_path(segments: &[&str]) -> Option<(Dialect, Operation)> {
    let (last, before) = segments.split_last()?;
    if let ["upload", "v1beta", "fileSearchStores"] = before {
        let store = last.strip_suffix(":uploadToFileSearchStore")?;
        return is_plain(store).then_some((Dialect::Gemini, Operation::Manage));
    }
    let counts = || last.strip_suffix("countTokens").or_else(|| last.strip_suffix("computeTokens"));
    let (model, operation) = match last.strip_suffix("fetchPredictOperation") {
        Some(model) => (model, Operation::Manage),
        None => (counts()?, Operation::CountTokens),
    };
    let model = model.strip_suffix(':').or_else(|| model.strip_suffix("%3A"))?;
    let (parent, version) = before.split_last()?;
    let is_model =
        matches!(*parent, "models" | "tunedModels" | "endpoints") && is_plain(&model.replace("%2D", "-"));
    let version = version.iter().all(|segment| is_plain(segment)) && version.iter().any(|it| is_version(it));
    (is_model && version).then_some((Dialect::Gemini, operation))
}

/// Formats a `google.rpc.Status`. Clients wait for the delay in `RetryInfo`.
fn refusal(refusal: &RefusalFacts<'_>) -> RefusalReply {
    let (status, reason) = match refusal.reason {
        RefusalReason::Exceeded => ("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"),
        RefusalReason::TooLarge => ("INVALID_ARGUMENT", "REQUEST_TOO_LARGE"),
        RefusalReason::Invalid => ("INVALID_ARGUMENT", "INVALID_REQUEST"),
        RefusalReason::Unavailable => ("UNAVAILABLE", "RATE_LIMITER_UNAVAILABLE"),
    };
    let text = |(name, value): (&String, &Value)| {
        (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned).into())
    };
    let details = refusal.details.as_ref().and_then(Value::as_object);
    let texts: Map<String, Value> = details.into_iter().flatten().map(text).collect();
    let mut extra = vec![json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "weir.dev",
        "metadata": texts,
    })];
    if let Some(ms) = refusal.retry_ms {
        let delay = format!("{}s", seconds(ms));
        extra.push(json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }));
    }
    RefusalReply::of(json!({ "error": {
        "code": refusal.status, "message": refusal.message, "status": status, "details": extra,
    } }))
}
