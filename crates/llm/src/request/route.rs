//! What a path tells of a call: whose API, which operation, and for some providers the model. In: the path as it
//! came. It judges no body: where the path is nobody's, the body's shape decides (`shape.rs`).

use super::{Dialect, Operation, tokenless};
use crate::spelling::{before_semicolon, percent_decoded};
use std::borrow::Cow;

/// What a path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Whose API it is; [`Dialect::Unknown`] if the path is nobody's.
    pub dialect: Dialect,
    /// What is asked for; `None` if only the body can tell.
    pub operation: Option<Operation>,
    /// The model, where the path names it. Then whatever the body says of it is ignored upstream.
    pub model: Option<String>,
    /// Whether the answer is a stream, where the path decides that.
    pub stream: Option<bool>,
}

impl Route {
    /// Reads a path, with or without its query, whatever the method.
    pub fn of(path: &str) -> Self {
        Self::known(None, path, false)
    }

    /// Reads the path of a request. `method`: an empty one is that of a request with a body, or without.
    pub fn of_request(method: &str, path: &str, has_body: bool) -> Self {
        Self::known(Some(method_or(method, has_body)), path, has_body)
    }

    fn known(method: Option<&str>, path: &str, has_body: bool) -> Self {
        let route = Self::that_generates(path);
        // What generates is so whatever else the path may be, if the method does not tell.
        if method.is_none() && route.operation.is_some_and(Operation::uses_tokens) {
            return route;
        }
        match tokenless::find(method, path, has_body) {
            Some((dialect, operation)) => Self { dialect, operation: Some(operation), ..route },
            // In doubt it is none of those that use no tokens: the body tells what it is.
            None if route.operation.is_some_and(|operation| !operation.uses_tokens()) => Self::default(),
            None => route,
        }
    }

    fn that_generates(path: &str) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let segments = path.split('/').map(before_semicolon).filter(|segment| !segment.is_empty());
        let segments: Vec<Cow<'_, str>> = segments.map(percent_decoded).collect();
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let Some((last, before)) = segments.split_last() else { return Self::default() };
        bedrock(last, before).or_else(|| gemini(last, before)).unwrap_or_else(|| by_name(last, before))
    }

    fn new(dialect: Dialect, operation: Operation) -> Self {
        Self { dialect, operation: Some(operation), ..Self::default() }
    }
}

/// The method, if it was not fetched the one that the body tells.
fn method_or(method: &str, has_body: bool) -> &str {
    match method {
        "" if has_body => "POST",
        "" => "GET",
        method => method,
    }
}

/// Whether a call is known to use no tokens: reading, listing, keeping and deleting, and what only counts or judges.
pub fn uses_no_tokens(method: &str, path: &str, has_body: bool) -> bool {
    tokenless::find(Some(method_or(method, has_body)), path, has_body).is_some()
}

/// `/model/{id}/converse`; the id may be an ARN with slashes, escaped or not.
fn bedrock(last: &str, before: &[&str]) -> Option<Route> {
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
    })
}

/// `/models/{model}:{method}`, and Vertex's `/publishers/{publisher}/models/{model}:{method}`.
fn gemini(last: &str, before: &[&str]) -> Option<Route> {
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
    Some(Route { dialect, operation: Some(operation), model, stream: Some(stream) })
}

/// Segments of paths whose calls generate text.
const GENERATING: [&str; 5] = ["chat", "completions", "messages", "responses", "generate"];

/// Paths that end in a name of their own.
fn by_name(last: &str, before: &[&str]) -> Route {
    // Some servers read a path in any case.
    let name = |segment: &str| segment.to_ascii_lowercase();
    let (last, parent) = (name(last), name(before.last().copied().unwrap_or_default()));
    // Behind what generates text there is no embedding.
    let generates = || {
        let is_one = |segment: &&str| GENERATING.iter().any(|name| name.eq_ignore_ascii_case(segment));
        before.iter().any(is_one)
    };
    let mut route = match (parent.as_str(), last.as_str()) {
        ("images", "generations" | "edits" | "variations") => Route::new(Dialect::OpenAi, Operation::Image),
        ("audio", "transcriptions" | "translations" | "speech") => {
            Route::new(Dialect::OpenAi, Operation::Audio)
        }
        ("chat", "completions") => Route::new(Dialect::OpenAi, Operation::Chat),
        ("api", "chat") => Route::new(Dialect::Ollama, Operation::Chat),
        ("api", "generate") => Route::new(Dialect::Ollama, Operation::Completion),
        ("api", "embed" | "embeddings") => Route::new(Dialect::Ollama, Operation::Embedding),
        ("v1" | "v2", "chat") => Route::new(Dialect::Cohere, Operation::Chat),
        ("v1", "generate" | "summarize") => Route::new(Dialect::Cohere, Operation::Completion),
        ("v1" | "v2", "embed") => Route::new(Dialect::Cohere, Operation::Embedding),
        (_, "rerank") if !generates() => Route::new(Dialect::Cohere, Operation::Rerank),
        (_, "completions") => Route::new(Dialect::OpenAi, Operation::Completion),
        (_, "embeddings") if !generates() => Route::new(Dialect::OpenAi, Operation::Embedding),
        (_, "responses") => Route::new(Dialect::OpenAi, Operation::Response),
        (_, "interactions") => Route::new(Dialect::Gemini, Operation::Response),
        (_, "messages") if !before.contains(&"threads") => Route::new(Dialect::Anthropic, Operation::Message),
        (_, "complete") => Route::new(Dialect::Anthropic, Operation::Completion),
        (_, "completion" | "infill" | "generate") => Route::new(Dialect::Unknown, Operation::Completion),
        (_, "generate_stream") => {
            Route { stream: Some(true), ..Route::new(Dialect::Unknown, Operation::Completion) }
        }
        // Escaped slashes.
        (_, last) if last.ends_with("/responses") => Route::new(Dialect::OpenAi, Operation::Response),
        _ => return Route::default(),
    };
    if route.dialect == Dialect::OpenAi {
        route.model = azure_deployment(before);
    }
    route
}

/// `/openai/deployments/{deployment}/chat/completions`.
fn azure_deployment(before: &[&str]) -> Option<String> {
    let mut segments = before.iter().skip_while(|segment| **segment != "deployments");
    segments.nth(1).map(|deployment| (*deployment).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dialect as D;
    use Operation as O;

    #[test]
    fn a_path_tells_whose_api_and_which_operation() {
        let table: &[(&str, Dialect, Option<Operation>)] = &[
            ("/v1/chat/completions", D::OpenAi, Some(O::Chat)),
            ("/v1/chat/completions/?a=/v1/messages", D::OpenAi, Some(O::Chat)),
            ("/openai//v1/chat/completions", D::OpenAi, Some(O::Chat)),
            ("/v1/chat%2Fcompletions", D::Unknown, None),
            ("/V1/Chat/Completions;x=1", D::OpenAi, Some(O::Chat)),
            ("/v1/Responses", D::OpenAi, Some(O::Response)),
            ("/v1%2fresponses", D::OpenAi, Some(O::Response)),
            ("/v1/chat/completions/embeddings", D::Unknown, None),
            ("/v1/chat/completions/rerank", D::Unknown, None),
            ("/v1/chat/completions/models", D::Unknown, None),
            ("/v1/completions", D::OpenAi, Some(O::Completion)),
            ("/v1/embeddings", D::OpenAi, Some(O::Embedding)),
            ("/v1/responses", D::OpenAi, Some(O::Response)),
            ("/v1/responses/input_tokens", D::OpenAi, Some(O::CountTokens)),
            ("/v1beta/interactions", D::Gemini, Some(O::Response)),
            ("/v1/images/generations", D::OpenAi, Some(O::Image)),
            ("/v1/audio/transcriptions", D::OpenAi, Some(O::Audio)),
            ("/v1/moderations", D::OpenAi, Some(O::Moderation)),
            ("/v1/models", D::OpenAi, Some(O::Models)),
            ("/v1/models/llama3:8b", D::OpenAi, Some(O::Models)),
            ("/v1/messages", D::Anthropic, Some(O::Message)),
            ("/v1/messages/count_tokens?beta=true", D::Anthropic, Some(O::CountTokens)),
            ("/v1/threads/t/messages", D::Unknown, None),
            ("/v2/chat", D::Cohere, Some(O::Chat)),
            ("/v2/rerank", D::Cohere, Some(O::Rerank)),
            ("/api/chat", D::Ollama, Some(O::Chat)),
            ("/api/generate", D::Ollama, Some(O::Completion)),
            ("/api/embed", D::Ollama, Some(O::Embedding)),
            ("/tokenize", D::Unknown, Some(O::CountTokens)),
            ("/completion", D::Unknown, Some(O::Completion)),
            ("/v1/chat/completions;x=y/;z", D::OpenAi, Some(O::Chat)),
            ("/api/ai/triage", D::Unknown, None),
            ("/", D::Unknown, None),
            ("", D::Unknown, None),
        ];
        for (path, dialect, operation) in table {
            let route = Route::of(path);
            assert_eq!((route.dialect, route.operation), (*dialect, *operation), "{path}");
        }
    }

    #[test]
    fn some_paths_name_the_model() {
        type Row = (&'static str, Dialect, Option<Operation>, &'static str, Option<bool>);
        let table: &[Row] = &[
            (
                "/v1beta/models/gemini-2.5-flash:generateContent",
                D::Gemini,
                Some(O::Chat),
                "gemini-2.5-flash",
                Some(false),
            ),
            (
                "/v1/projects/p/locations/us/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
                D::Gemini,
                Some(O::Chat),
                "gemini-2.5-pro",
                Some(true),
            ),
            ("/v1beta/models/g%2Dm%3AcountTokens", D::Gemini, Some(O::CountTokens), "g-m", Some(false)),
            ("/v1beta/models/e:embedContent", D::Gemini, Some(O::Embedding), "e", Some(false)),
            (
                "/v1/projects/p/publishers/anthropic/models/claude-sonnet-4@1:streamRawPredict",
                D::Anthropic,
                Some(O::Message),
                "claude-sonnet-4@1",
                Some(true),
            ),
            (
                "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse",
                D::Bedrock,
                Some(O::Chat),
                "anthropic.claude-3-haiku-20240307-v1:0",
                Some(false),
            ),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse-stream",
                D::Bedrock,
                Some(O::Chat),
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.x",
                Some(true),
            ),
            ("/model/arn:aws:x/us.x/invoke", D::Bedrock, None, "arn:aws:x/us.x", Some(false)),
            ("/model/m/invoke-with-response-stream", D::Bedrock, None, "m", Some(true)),
            ("/model/m%2/invoke", D::Bedrock, None, "m%2", Some(false)),
            (
                "/openai/deployments/my-gpt/chat/completions?api-version=1",
                D::OpenAi,
                Some(O::Chat),
                "my-gpt",
                None,
            ),
        ];
        for (path, dialect, operation, model, stream) in table {
            let expected = Route {
                dialect: *dialect,
                operation: *operation,
                model: Some((*model).to_owned()),
                stream: *stream,
            };
            assert_eq!(Route::of(path), expected, "{path}");
        }
    }
}
