use super::host;
use super::play::{Reply, Worker};
use serde_json::{Value, json};

fn soft() -> Value {
    json!({ "limits": { "all": {
        "when": [{ "predicate": "request.headers['x-budget'] != 'exceeded' && request.url_path != '/free'" }],
        "boundary": "Soft",
        "softSignal": { "headers": [{ "name": "x-budget", "value": "exceeded" }, { "name": "x-model", "value": "small" }] },
        "rates": [{ "limit": 1000, "unit": "requests", "window": "1h" }],
    } } })
}

fn post<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[(":method", "POST"), (":path", path), (":authority", "llm")], more].concat()
}

/// Returns the values of a header of a stream's request or response.
fn header(context: u32, name: &str, of_response: bool) -> Vec<String> {
    host::with(|host| {
        let stream = &host.streams[&context];
        let headers = if of_response { &stream.response_headers } else { &stream.request_headers };
        let values = headers.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    })
}

#[test]
fn a_client_s_own_copies_are_removed_whether_a_limit_applies_or_not() {
    let mut worker = Worker::new(soft(), "Allow", false);
    for path in ["/v1/chat/completions", "/free"] {
        let forged =
            [("x-budget", "exceeded"), ("x-model", "large"), ("x-budget", "none"), ("x-other", "kept")];
        let request = worker.request(&post(path, &forged), true);
        // The predicate does not see the forged header, either.
        assert_eq!(worker.is_held(request), path != "/free", "{path}");
        worker.answer(0, Reply::Ok);
        assert!(!worker.is_held(request));
        assert!(header(request, "x-budget", false).is_empty(), "{path}");
        assert!(header(request, "x-model", false).is_empty(), "{path}");
        assert_eq!(header(request, "x-other", false), ["kept"]);
        worker.end(request);
        worker.finish();
    }
}

#[test]
fn a_request_beyond_a_soft_limit_goes_on_with_its_signal() {
    for streamed in [false, true] {
        let mut worker = Worker::new(soft(), "Allow", false);
        if streamed {
            worker.open_stream();
        }
        let request = worker.request(&post("/v1/chat/completions", &[("x-model", "large")]), true);
        assert!(worker.is_held(request));
        worker.answer(0, Reply::Exceeded);
        assert!(!worker.is_held(request));
        worker.respond(request, &[(":status", "200")], true);
        for of_response in [false, true] {
            assert_eq!(header(request, "x-budget", of_response), ["exceeded"], "{streamed} {of_response}");
            assert_eq!(header(request, "x-model", of_response), ["small"], "{streamed} {of_response}");
        }
        worker.end(request);
        worker.finish();
    }
}
