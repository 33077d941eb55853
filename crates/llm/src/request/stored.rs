//! Recognises requests for stored results by their paths: those that read a result, and those that create one
//! in the background.

use super::tokenless;

/// The names that providers give to results, as the segment before an id.
const KINDS: [&str; 10] = [
    "responses",
    "interactions",
    "runs",
    "completions",
    "batches",
    "jobs",
    "tasks",
    "status",
    "async-result",
    "deferred-completion",
];

/// Returns the id of the stored result that a request reads or cancels. The path must be spelled exactly as
/// its provider spells it. With another spelling, it may be any other call.
pub fn read_result<'p>(method: &str, path: &'p str, has_body: bool) -> Option<&'p str> {
    let path = path.split('?').next().unwrap_or_default();
    let (before, last) = path.strip_suffix('/').unwrap_or(path).rsplit_once('/')?;
    let kind = |before: &str| before.rsplit('/').next().is_some_and(|kind| KINDS.contains(&kind));
    let id = match last {
        "cancel" | "results" => before.rsplit_once('/').filter(|(before, _)| kind(before))?.1,
        // Some kinds of results are created by a path that ends in another kind's name.
        id => Some(id).filter(|_| kind(before) && matches!(method, "GET"))?,
    };
    tokenless::find(Some(method), path, has_body).map(|_| id)
}

/// Returns whether a path always creates its result in the background and responds only with its name.
pub fn is_always_later(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments = path.rsplit('/');
    let mut next = || segments.next().unwrap_or_default();
    matches!(
        (next(), next(), next()),
        ("runs", "threads", _)
            | ("runs", _, "threads")
            | ("completions", "chat", "async")
            | ("tasks", "generations", "contents")
            | ("run", _, "v2")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_result_is_read_by_its_id() {
        for (method, path, id) in [
            ("GET", "/v1/responses/resp_1", Some("resp_1")),
            ("GET", "/openai/v1/responses/resp_1/?stream=true&starting_after=3", Some("resp_1")),
            ("GET", "/openai/responses/resp_1?api-version=1", Some("resp_1")),
            ("POST", "/v1/responses/resp_1/cancel", Some("resp_1")),
            ("GET", "/v1beta/interactions/v1_1", Some("v1_1")),
            ("POST", "/v1beta/interactions/v1_1/cancel", Some("v1_1")),
            ("GET", "/v1/threads/t/runs/run_1", Some("run_1")),
            ("POST", "/v1/threads/t/runs/run_1/cancel", Some("run_1")),
            ("GET", "/v1/chat/completions/chatcmpl-1", Some("chatcmpl-1")),
            ("GET", "/async/chat/completions/1", Some("1")),
            ("GET", "/v1/chat/deferred-completion/f-1", Some("f-1")),
            ("GET", "/v1/batches/batch_1", Some("batch_1")),
            ("GET", "/v1/batch/jobs/1", Some("1")),
            ("GET", "/v1/messages/batches/msgbatch_1/results", Some("msgbatch_1")),
            ("GET", "/api/paas/v4/async-result/8", Some("8")),
            ("GET", "/api/v3/contents/generations/tasks/cgt-1", Some("cgt-1")),
            ("GET", "/v2/ep/status/job-1", Some("job-1")),
            ("DELETE", "/v1/responses/resp_1", None),
            ("GET", "/v1/responses/resp_1/input_items", None),
            ("GET", "/v1/responses/resp%5F1", None),
            ("GET", "/v1//responses/resp_1", None),
            ("GET", "/v1/responses", None),
            ("POST", "/v1/responses", None),
            ("POST", "/v1/responses/resp_1", None),
            ("POST", "/v1/responses/compact", None),
            ("GET", "/v1/models/responses", None),
            ("GET", "/responses/resp_1", None),
            ("GET", "", None),
        ] {
            assert_eq!(read_result(method, path, method == "POST"), id, "{method} {path}");
        }
        assert_eq!(read_result("GET", "/v1/responses/resp_1", true), None);
    }

    #[test]
    fn some_paths_create_what_is_always_made_later() {
        for path in [
            "/v1/threads/t/runs",
            "/v1/threads/runs/?x=1",
            "/async/chat/completions",
            "/openai/threads/t/runs",
            "/api/v3/contents/generations/tasks",
            "/v2/ep/run",
        ] {
            assert!(is_always_later(path), "{path}");
        }
        for path in ["/v1/chat/completions", "/v1/responses", "/v1/threads/t/runs/r", "/runs", "/"] {
            assert!(!is_always_later(path), "{path}");
        }
    }
}
