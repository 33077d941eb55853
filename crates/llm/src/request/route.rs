//! Determines the API and the operation of a call from its path, and for some providers the model. If the
//! path is unknown, the form of the body decides ([`super::by_shape`]).

use super::tokenless::TokenlessMatch;
use super::{Dialect, Operation, RequestBody, tokenless};
use crate::providers::{ReadPath, all};
use crate::spelling::{self, before_semicolon, percent_decoded};
use std::borrow::Cow;

/// The information in a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The API, or [`Dialect::Unknown`].
    pub dialect: Dialect,
    /// The operation. `None` if only the body determines it.
    pub operation: Option<Operation>,
    /// The model, if the path names it. The upstream then ignores the model in the body.
    pub model: Option<String>,
    /// Whether servers read different models in the path, for example because it has `..` or `%2F`.
    pub model_is_unsure: bool,
    /// The model in the query. LiteLLM prefers it to the body's model, and other servers ignore it.
    pub query_model: Option<String>,
    /// Whether the response is a stream, if the path decides that.
    pub stream: Option<bool>,
    /// Whether the call uses tokens if its body contains something for a model to answer.
    pub body_decides: bool,
    /// Whether the response comes later and is read by another call.
    pub background: bool,
}

impl Route {
    /// Reads a path, with or without a query, for any method.
    pub fn of(path: &str) -> Self {
        Self::known(None, path, false)
    }

    /// Reads the path of a request. If `method` is empty, the presence of a body decides.
    pub fn of_request(method: &str, path: &str, has_body: bool) -> Self {
        Self::known(Some(method_or(method, has_body)), path, has_body)
    }

    fn known(method: Option<&str>, path: &str, has_body: bool) -> Self {
        let route = Self::that_generates(path);
        // If the method is unknown, a path for a call that uses tokens takes precedence.
        if method.is_none() && route.operation.is_some_and(Operation::uses_tokens) {
            return route;
        }
        match tokenless::find(method, path, has_body) {
            Some(TokenlessMatch { dialect, operation, body_decides }) => {
                Self { dialect, operation: Some(operation), body_decides, ..route }
            }
            // If in doubt, the call may use tokens, and the body decides.
            None if route.operation.is_some_and(|operation| !operation.uses_tokens()) => {
                Self { model_is_unsure: route.model_is_unsure, ..Self::default() }
            }
            None => route,
        }
    }

    fn that_generates(path: &str) -> Self {
        let end = path.bytes().position(|byte| matches!(byte, b'?' | b'#'));
        let before = end.and_then(|end| path.get(..end)).unwrap_or(path);
        let route = Self::as_spelled(before);
        // Some servers resolve `..` and decode `%2F` before they look for the model, and others do not.
        let resolved = spelling::path(before).map(|(resolved, _)| Self::as_spelled(&resolved));
        let is_unsure = resolved.as_ref().is_some_and(|resolved| !route.names_model_of(resolved, before));
        let is_of_open_ai = [Some(&route), resolved.as_ref()].into_iter().flatten().any(|route| {
            route.dialect == Dialect::OpenAi && route.operation.is_some_and(Operation::uses_tokens)
        });
        let query_model = if is_of_open_ai { spelling::query_name(path, &["model"]) } else { None };
        let model = route.model.filter(|_| !is_unsure);
        Self { model, model_is_unsure: is_unsure, query_model, ..route }
    }

    /// Returns whether the path names the same model if it is resolved. An encoded slash may be a part of the
    /// model's name.
    fn names_model_of(&self, resolved: &Self, path: &str) -> bool {
        match (self.model.as_deref(), resolved.model.as_deref()) {
            (Some(model), Some(last)) if !spelling::has_dot_segments(path) => {
                model == last || model.strip_suffix(last).is_some_and(|before| before.ends_with('/'))
            }
            (model, resolved) => model == resolved,
        }
    }

    fn as_spelled(path: &str) -> Self {
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        if !path.bytes().any(|byte| matches!(byte, b'%' | b';')) {
            return Self::of_segments(&segments.collect::<Vec<_>>());
        }
        let segments = segments.map(before_semicolon).filter(|segment| !segment.is_empty());
        let segments: Vec<Cow<'_, str>> = segments.map(percent_decoded).collect();
        Self::of_segments(&segments.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }

    fn of_segments(segments: &[&str]) -> Self {
        let Some((last, before)) = segments.split_last() else { return Self::default() };
        let found = PATHS.iter().find_map(|read| read(last, before));
        let route = found.unwrap_or_else(|| by_name(last, before));
        Self { model: route.model.or_else(|| served_model(last, before)), ..route }
    }

    pub(crate) fn new(dialect: Dialect, operation: Operation) -> Self {
        Self { dialect, operation: Some(operation), ..Self::default() }
    }

    /// Adds the model of `/openai/deployments/{deployment}/chat/completions` or `/engines/{model}/completions`.
    /// `before` are the segments before the name of the call. LiteLLM accepts models with slashes.
    pub(crate) fn with_deployment(mut self, before: &[&str]) -> Self {
        // Azure ignores the case of its paths.
        let at = before.iter().position(|segment| is_one_of(&["deployments", "engines"], segment));
        let mut model = at.and_then(|at| before.get(at.saturating_add(1)..)).unwrap_or_default();
        while let [rest @ .., last] = model
            && (*last == "extensions" || tokenless::is_version(last))
        {
            model = rest;
        }
        self.model = (!model.is_empty()).then(|| model.join("/"));
        self
    }
}

static PATHS: &[ReadPath] = all!(ReadPath, paths, |_, _| None);
static CALLS: &[PathEnd] = all!(PathEnd, calls, PathEnd::new(&[], &[], Dialect::Unknown, Operation::Other));

/// A call that the last segments of its path identify.
#[derive(Clone, Copy)]
pub(crate) struct PathEnd {
    parents: &'static [&'static str],
    names: &'static [&'static str],
    dialect: Dialect,
    operation: Operation,
    stream: Option<bool>,
    unless: &'static [&'static str],
}

/// Any segment before the last, or none.
pub(crate) const ANY: &[&str] = &[];

/// Segments of paths for generating text. A path with one of them is not for embedding or reranking.
pub(crate) const GENERATING: &[&str] = &["chat", "completions", "messages", "responses", "generate"];

impl PathEnd {
    /// Creates a row for paths that end in one of `parents` and one of `names`.
    pub(crate) const fn new(
        parents: &'static [&'static str],
        names: &'static [&'static str],
        dialect: Dialect,
        operation: Operation,
    ) -> Self {
        Self { parents, names, dialect, operation, stream: None, unless: &[] }
    }

    /// Marks calls that respond with a stream.
    pub(crate) const fn streaming(self) -> Self {
        Self { stream: Some(true), ..self }
    }

    /// Excludes paths that contain any of these segments before the matched ones.
    pub(crate) const fn unless(self, segments: &'static [&'static str]) -> Self {
        Self { unless: segments, ..self }
    }

    /// Returns the dialect and operation of these calls.
    pub(crate) fn call(&self) -> (Dialect, Operation) {
        (self.dialect, self.operation)
    }

    fn is_of(&self, last: &str, before: &[&str]) -> bool {
        is_one_of(self.names, last)
            && !before.iter().any(|segment| self.unless.iter().any(|it| it.eq_ignore_ascii_case(segment)))
    }
}

/// Returns the method, or the likely one if the method was not fetched.
fn method_or(method: &str, has_body: bool) -> &str {
    match method {
        "" if has_body => "POST",
        "" => "GET",
        method => method,
    }
}

/// Returns whether a call is known to use no tokens: it reads, lists, stores, deletes, counts or moderates.
/// `body` contains the facts of its body, if that was read.
pub fn uses_no_tokens(method: &str, path: &str, has_body: bool, body: Option<&RequestBody>) -> bool {
    if body.is_some_and(|body| body.operation.uses_tokens()) {
        return false;
    }
    let found = tokenless::find(Some(method_or(method, has_body)), path, has_body);
    found.is_some_and(|found| body.is_some() || !found.body_decides)
}

/// Returns whether a segment is one of these names. The case does not matter, because some servers ignore it.
fn is_one_of(names: &[&str], segment: &str) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(segment))
}

/// Finds the call by the last segments of its path. A match of two segments takes precedence over a match of
/// one.
fn by_name(last: &str, before: &[&str]) -> Route {
    let parent = before.last().copied().unwrap_or_default();
    let mut call: Option<&PathEnd> = None;
    for of in CALLS.iter().filter(|call| call.is_of(last, before)) {
        let with_parent = is_one_of(of.parents, parent);
        if with_parent || of.parents.is_empty() && call.is_none() {
            call = Some(of);
        }
        if with_parent {
            break;
        }
    }
    let Some(call) = call else { return Route::default() };
    let route = Route { stream: call.stream, ..Route::new(call.dialect, call.operation) };
    let before = match before {
        [before @ .., _] if !call.parents.is_empty() => before,
        before => before,
    };
    if route.dialect == Dialect::OpenAi { route.with_deployment(before) } else { route }
}

/// Returns the model of Triton's `/v2/models/{model}/infer`, Replicate's `/v1/models/{owner}/{name}/predictions`,
/// Databricks' `/serving-endpoints/{name}/invocations` or Workers AI's `/ai/run/{model}`.
fn served_model(last: &str, before: &[&str]) -> Option<String> {
    if let Some(at) = before.windows(2).rposition(|segments| segments == ["ai", "run"]) {
        let model = before.get(at.saturating_add(2)..)?.iter().chain([&last]);
        return Some(model.copied().collect::<Vec<_>>().join("/"));
    }
    let parent = match last {
        "infer" | "generate" | "generate_stream" | "predict" | "predictions" => "models",
        "invocations" => "serving-endpoints",
        _ => return None,
    };
    let at = before.iter().rposition(|segment| *segment == parent)?;
    let model = match before.get(at.saturating_add(1)..)? {
        [model @ .., "versions", _] => model,
        model => model,
    };
    (!model.is_empty()).then(|| model.join("/"))
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
            ("/openai/deployments/o/my-gpt/v1/chat/completions", D::OpenAi, Some(O::Chat), "o/my-gpt", None),
            ("/openai/deployments/o/my-gpt/embeddings", D::OpenAi, Some(O::Embedding), "o/my-gpt", None),
            ("/openai/deployments/d/extensions/chat/completions", D::OpenAi, Some(O::Chat), "d", None),
            ("/engines/o/my-gpt/chat/completions", D::OpenAi, Some(O::Chat), "o/my-gpt", None),
            ("/v1/engines/davinci/completions", D::OpenAi, Some(O::Completion), "davinci", None),
            ("/v2/models/m/versions/1/infer", D::Unknown, None, "m", None),
            ("/v1/models/owner/m/predictions", D::Unknown, None, "owner/m", None),
            ("/serving-endpoints/m/invocations", D::Unknown, None, "m", None),
            ("/client/v4/accounts/a/ai/run/@cf/meta/m", D::Unknown, None, "@cf/meta/m", None),
        ];
        for (path, dialect, operation, model, stream) in table {
            let expected = Route {
                dialect: *dialect,
                operation: *operation,
                model: Some((*model).to_owned()),
                stream: *stream,
                ..Route::default()
            };
            assert_eq!(Route::of(path), expected, "{path}");
        }
    }

    #[test]
    fn a_model_that_servers_read_differently_is_unsure() {
        for path in [
            "/openai/deployments/mini/../big/chat/completions",
            "/openai/deployments/mini/../../../v1/chat/completions",
            "/openai/deployments/mini%2F..%2Fbig/chat/completions",
            "/openai/deployments/mini/%252e%252e/big/chat/completions",
            "/openai/deployments/mini\\..\\big/chat/completions",
            "/openai/deployments/mini;/..;x/big/chat/completions",
            "/openai/deployments%2Fbig/chat/completions",
            "/openai/deployments/big%2Fchat%2Fcompletions",
            "/v1beta/models/mini%2F..%2Fbig:generateContent",
            "/model/mini/../big/converse",
            "/v2/models/mini/../big/infer",
        ] {
            let route = Route::of(path);
            assert_eq!((route.model, route.model_is_unsure), (None, true), "{path}");
            assert!(Route::of_request("POST", path, true).model_is_unsure, "{path}");
        }
        for (path, model) in [
            ("/openai/deployments/big/chat/completions", Some("big")),
            ("/openai/Deployments/big/chat/completions", Some("big")),
            ("/openai/./deployments//big/chat/completions/", Some("big")),
            ("/openai/deployments/o%2Fbig/chat/completions", Some("o/big")),
            ("/v1beta/models/google%2Fbig:generateContent", Some("google/big")),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse",
                Some("arn:aws:bedrock:us-east-1:1:inference-profile/us.x"),
            ),
            ("/v1/x/../chat/completions", None),
            ("/v1//chat%2Fcompletions/", None),
        ] {
            let route = Route::of(path);
            assert_eq!((route.model.as_deref(), route.model_is_unsure), (model, false), "{path}");
        }
    }

    #[test]
    fn a_query_may_name_a_model() {
        for (path, model) in [
            ("/v1/chat/completions?model=big", Some("big")),
            ("/v1/embeddings?x=1&mod%65l=o%2Fbig#model=y", Some("o/big")),
            ("/v1/chat%2Fcompletions?model=big", Some("big")),
            ("/v1/chat/completions?model=big&model=big", Some("big")),
            ("/v1/chat/completions?model=big&model=mini", Some("big,mini")),
            ("/v1/chat/completions?model=&model", None),
            ("/v1/chat/completions#?model=big", None),
            ("/v1/messages?model=big", None),
            ("/v1/listen?model=nova", None),
            ("/v1/models?model=big", None),
        ] {
            assert_eq!(Route::of(path).query_model.as_deref(), model, "{path}");
        }
    }
}
