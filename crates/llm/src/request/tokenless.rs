//! Recognises calls that use no tokens: they read, list, store, delete, count or moderate. Each provider has
//! a table of methods and paths ([`crate::providers`]). A call that is in no table may use tokens.
//!
//! A path matches only if it is spelled exactly as the provider spells it: any prefix of the gateway, then
//! the version, then the segments of the row. So `/v1/models` and `/team/v1/models` list models, but
//! `/v1/chat/completions/models`, `/V1/models`, `/v1//models`, `/v1/models;x` and `/v1%2Fmodels` may be
//! anything. A call that reads has no body.

use super::{Dialect, Operation};
use crate::providers::{ReadTokenless, all};
use crate::table::{self, Member, NameTable};

/// The methods of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Reading, without a body.
    Get,
    /// Deleting, without a body.
    Delete,
    /// Deleting what the body names.
    DeleteNamed,
    /// `POST`, `PUT` or `PATCH`.
    Post,
    /// Like `Post`, if the body has only `items` and `metadata`: Mistral generates a response at the path where
    /// OpenAI stores a conversation.
    PostToKeep,
}

/// What comes before the segments of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// A version of the API, after an optional prefix of the gateway.
    Version,
    /// `api`, after an optional prefix.
    Api,
    /// Nothing.
    Root,
}

/// A call. `*` matches any one segment.
pub(crate) type TokenlessCall = (Method, Base, &'static [&'static str], Dialect, Operation);

static CALLS: &[TokenlessCall] =
    all!(TokenlessCall, tokenless, (Method::Get, Base::Root, &[], Dialect::Unknown, Operation::Other));

/// The indices of all rows, grouped by the last segment, which identifies most rows.
static ORDERED: [Member<(), usize>; CALLS.len()] = table::joined(&[&rows_by_last()], ((), "", 0));
static BY_LAST: NameTable<(), usize> = NameTable::new(&ORDERED);

const fn rows_by_last() -> [Member<(), usize>; CALLS.len()] {
    let mut rows = [((), "", 0); CALLS.len()];
    let (mut calls, mut free, mut number) = (CALLS, rows.as_mut_slice(), 0);
    while let (Some((call, later)), Some((row, rest))) = (calls.split_first(), free.split_first_mut()) {
        *row = ((), if let Some(last) = call.2.last() { *last } else { "" }, number);
        (calls, free, number) = (later, rest, number + 1);
    }
    rows
}
static PATHS: &[ReadTokenless] = all!(ReadTokenless, tokenless_paths, |_| None);

/// Segments that belong to an API.
const OF_APIS: [&str; 18] = [
    "api",
    "openai",
    "chat",
    "complete",
    "completion",
    "completions",
    "converse",
    "embeddings",
    "generate",
    "inference",
    "invoke",
    "messages",
    "model",
    "models",
    "moderations",
    "predict",
    "rerank",
    "responses",
];

/// A call that uses no tokens.
pub(super) struct TokenlessMatch {
    pub(super) dialect: Dialect,
    pub(super) operation: Operation,
    /// Whether the body may show that the call uses tokens.
    pub(super) body_decides: bool,
}

/// The maximum number of segments before a version.
const PREFIX: usize = 4;

/// Finds a call that uses no tokens. `method` is `None` if it does not matter. `has_body` is true if the call
/// may have a body.
pub(super) fn find(method: Option<&str>, path: &str, has_body: bool) -> Option<TokenlessMatch> {
    let method = match method {
        None => None,
        Some("GET" | "HEAD" | "OPTIONS") if !has_body => Some(Method::Get),
        Some("DELETE") if !has_body => Some(Method::Delete),
        Some("DELETE") => Some(Method::DeleteNamed),
        Some("POST" | "PUT" | "PATCH") => Some(Method::Post),
        Some(_) => return None,
    };
    let is_it = |row: Method| {
        let of = if row == Method::PostToKeep { Method::Post } else { row };
        method.is_none_or(|method| method == of)
    };
    let path = path.split('?').next().unwrap_or_default();
    let (mut segments, mut length) = ([""; 16], 0usize);
    for segment in path.strip_prefix('/')?.split('/') {
        *segments.get_mut(length)? = segment;
        length = length.saturating_add(1);
    }
    // A trailing slash makes no difference.
    let segments = segments.get(..length)?;
    let segments = segments.strip_suffix(&[""]).unwrap_or(segments);
    if is_it(Method::Post)
        && let Some((dialect, operation)) = PATHS.iter().find_map(|read| read(segments))
    {
        return Some(TokenlessMatch { dialect, operation, body_decides: false });
    }
    let last = segments.last()?;
    let fits = |number: &usize| {
        let row = CALLS.get(*number);
        row.is_some_and(|(row, base, shape, ..)| is_it(*row) && is_shape(segments, *base, shape))
    };
    let any = if is_of_api(last) { "" } else { "*" };
    let rows = [last, any, ""].map(|name| BY_LAST.all((), name.as_bytes()).find(fits));
    let call = rows.into_iter().flatten().min().and_then(|number| CALLS.get(number));
    let is_known = call.is_some() && segments.iter().all(|segment| is_plain(segment));
    call.filter(|_| is_known).map(|(method, .., dialect, operation)| TokenlessMatch {
        dialect: *dialect,
        operation: *operation,
        body_decides: *method == Method::PostToKeep,
    })
}

fn is_shape(segments: &[&str], base: Base, shape: &[&str]) -> bool {
    let before = segments.len().checked_sub(shape.len());
    let Some((before, row)) = before.and_then(|at| segments.split_at_checked(at)) else { return false };
    let fits = |(segment, name): (&&str, &&str)| match *name {
        "*" => !is_of_api(segment),
        name => *segment == name,
    };
    row.iter().zip(shape).all(fits) && is_base(before, base)
}

fn is_base(before: &[&str], base: Base) -> bool {
    let own = |prefix: &[&str]| prefix.len() <= PREFIX && !prefix.iter().any(|segment| is_of_api(segment));
    match (base, before) {
        (Base::Root, before) => before.is_empty(),
        (Base::Api, [prefix @ .., "api"]) => own(prefix),
        (Base::Version, [prefix @ .., "openai" | "api", version]) if is_version(version) => own(prefix),
        (Base::Version, [prefix @ .., "openai"]) => own(prefix),
        // Vertex.
        (Base::Version, [prefix @ .., version, "projects", _, "locations", _]) if is_version(version) => {
            own(prefix)
        }
        (Base::Version, [prefix @ .., version]) => is_version(version) && own(prefix),
        _ => false,
    }
}

/// Returns whether a segment belongs to an API. A path with such a segment before its version means something
/// else.
fn is_of_api(segment: &str) -> bool {
    is_version(segment) || OF_APIS.contains(&segment)
}

pub(crate) fn is_version(segment: &str) -> bool {
    matches!(segment, "v1" | "v2" | "v3" | "v4" | "v1beta" | "v1beta1" | "v1beta2" | "v1beta3" | "v1alpha")
}

/// Returns whether all servers read this segment alike: it has no escapes or parameters, and is not empty or
/// a dot segment.
pub(crate) fn is_plain(segment: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'@' | b'~');
    !segment.is_empty() && segment.bytes().all(plain) && !segment.bytes().all(|byte| byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_free(method: &str, path: &str, has_body: bool) -> bool {
        find(Some(method), path, has_body).is_some()
    }

    #[test]
    fn what_uses_no_tokens_is_known_by_method_and_path() {
        for (method, path) in [
            ("GET", "/v1/models"),
            ("HEAD", "/v1/models"),
            ("GET", "/v1/models?limit=1000"),
            ("GET", "/v1/models/"),
            ("GET", "/v1/models/gpt-4o"),
            ("GET", "/v1beta/models/gemini-2.5-pro"),
            ("GET", "/openai/v1/models"),
            ("GET", "/openai/models?api-version=1"),
            ("GET", "/api/v1/models"),
            ("GET", "/team-a/v1/models"),
            ("GET", "/models"),
            ("GET", "/api/tags"),
            ("POST", "/api/show"),
            ("POST", "/v1/moderations"),
            ("POST", "/v1/messages/count_tokens?beta=true"),
            ("POST", "/anthropic/v1/messages/count_tokens"),
            ("POST", "/v1/responses/input_tokens"),
            ("POST", "/v1beta/models/gemini-2.5-pro:countTokens"),
            ("POST", "/v1/projects/p/locations/us/publishers/google/models/gemini-2.5-pro:countTokens"),
            ("POST", "/v1/projects/p/locations/us/publishers/anthropic/models/count-tokens:rawPredict"),
            ("POST", "/model/anthropic.claude-3-haiku-20240307-v1%3A0/count-tokens"),
            ("POST", "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/count-tokens"),
            ("POST", "/tokenize"),
            ("GET", "/health"),
            ("GET", "/v2/health/ready"),
            ("GET", "/v2/models/m/config"),
            ("POST", "/v2/repository/index"),
            ("POST", "/api/extra/tokencount"),
            ("POST", "/v1/internal/token-count"),
            ("POST", "/utils/token_counter"),
            ("GET", "/async-invoke?maxResults=5"),
            ("PATCH", "/v1beta/cachedContents/c"),
            ("POST", "/upload/v1beta/fileSearchStores/s:uploadToFileSearchStore"),
            ("POST", "/v1/realtime/calls/rtc_1/hangup"),
            ("GET", "/v1/organizations/usage_report/messages"),
            ("GET", "/api/paas/v4/async-result/8"),
            ("GET", "/api/v3/contents/generations/tasks/cgt-1"),
            ("GET", "/v2/ep/status/job-1"),
            ("POST", "/v1/tokenize"),
            ("POST", "/v1/files"),
            ("DELETE", "/v1/files/file-1"),
            ("GET", "/v1/files/file-1/content"),
            ("POST", "/v1/uploads/upload_1/parts"),
            ("POST", "/v1/batches"),
            ("POST", "/v1/batches/batch_1/cancel"),
            ("GET", "/v1/messages/batches/msgbatch_1/results"),
            ("POST", "/v1/vector_stores/vs_1/search"),
            ("POST", "/v1/fine_tuning/jobs"),
            ("GET", "/v1/fine_tuning/jobs/ftjob-1/events?limit=2"),
            ("POST", "/v1/conversations"),
            ("GET", "/v1/threads/t/runs/run_1"),
            ("GET", "/async/chat/completions/1"),
            ("GET", "/v1/batch/jobs/1"),
            ("GET", "/v1/videos/video_1/content"),
            ("GET", "/api/v1/generation?id=gen-1"),
            ("GET", "/api/v1/tasks/1"),
            ("POST", "/ml/v1/text/tokenization?version=1"),
            ("POST", "/foundationModels/v1/tokenize"),
            ("POST", "/guardrail/g/version/1/apply"),
            ("GET", "/foundation-models"),
            ("POST", "/v1beta/batches/b:cancel"),
            ("GET", "/v1beta/interactions/v1_1"),
            ("POST", "/v1beta/interactions/v1_1/cancel"),
            ("GET", "/v1/responses/resp_1?stream=true"),
            ("DELETE", "/v1/responses/resp_1"),
            ("GET", "/v1/chat/completions"),
            ("POST", "/v1/chat/completions/chatcmpl-1"),
        ] {
            assert!(is_free(method, path, method == "POST"), "{method} {path}");
        }
        assert!(is_free("DELETE", "/api/delete", true));
    }

    #[test]
    fn in_doubt_a_call_may_use_tokens() {
        for (method, path) in [
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/models"),
            ("POST", "/v1/models/gpt2"),
            ("POST", "/custom/models"),
            ("GET", "/tell/me/a/story/models"),
            ("GET", "/custom/models"),
            ("GET", "/v1/chat/completions/models"),
            ("GET", "/v1/chat/v1/models"),
            ("GET", "/generate/v1/models"),
            ("GET", "/a/b/c/d/e/v1/models"),
            ("GET", "/V1/models"),
            ("GET", "/v1/Models"),
            ("get", "/v1/models"),
            ("GET", "/v1//models"),
            ("GET", "//v1/models"),
            ("GET", "/v1/models//"),
            ("GET", "/v1/models;x"),
            ("GET", "/v1/models/..%2Fchat"),
            ("GET", "/v1/models/.."),
            ("GET", "/v1/./models"),
            ("GET", "/v1%2Fmodels"),
            ("GET", "/v1/mode%6Cs"),
            ("GET", "/v1/models#/x"),
            ("GET", "/v1\\models"),
            ("GET", "v1/models"),
            ("GET", ""),
            ("GET", "/"),
            ("GET", "/v1/responses"),
            ("GET", "/v1/realtime"),
            ("POST", "/v1/responses"),
            ("POST", "/v1beta/interactions"),
            ("POST", "/v1/responses/compact"),
            ("POST", "/v1/responses/resp_1"),
            ("POST", "/v1/chat/completions/moderations"),
            ("POST", "/v1/chat/completions/completions"),
            ("DELETE", "/api/chat"),
            ("POST", "/v1/chat/completions/v1/moderations"),
            ("POST", "/v1/chat/completions:countTokens"),
            ("POST", "/v1/moderations/x"),
            ("POST", "/custom/tokenize"),
            ("POST", "/model/m/invoke/count-tokens"),
            ("POST", "/model/m%3Fx/count-tokens"),
            ("POST", "/v1/chat/model/m/count-tokens"),
            ("POST", "/models/m:countTokens"),
            ("POST", "/v1/messages/count_tokens/x"),
            ("POST", "/messages/count_tokens"),
            ("POST", "/v1/threads/t/runs"),
            ("POST", "/v1/threads/runs"),
            ("POST", "/async/chat/completions"),
            ("POST", "/v1/agents/completions"),
            ("POST", "/v1/videos"),
            ("POST", "/v2/models/m/infer"),
            ("POST", "/v1/realtime/calls/rtc_1/accept"),
            ("POST", "/api/v3/contents/generations/tasks"),
            ("POST", "/v2/ep/run"),
            ("POST", "/v1/agents"),
            ("POST", "/v1/agents/agent-1"),
            ("CONNECT", "/v1/models"),
            ("PROPFIND", "/v1/models"),
        ] {
            assert!(!is_free(method, path, method == "POST"), "{method} {path}");
        }
        for (method, path) in
            [("GET", "/v1/models"), ("DELETE", "/v1/files/f"), ("GET", "/v1/chat/completions")]
        {
            assert!(!is_free(method, path, true), "{method} {path} with a body");
        }
    }
}
