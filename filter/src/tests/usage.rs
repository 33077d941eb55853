//! Questions about usage. The filter answers each one exactly once, whatever happens in the meantime.

use super::host;
use super::play::{Reply, Worker};
use serde_json::{Value, json};

fn worker() -> Worker {
    let limits = json!({ "all": { "rates": [{ "limit": 1000, "window": "1h" }] } });
    Worker::new(json!({ "limits": limits }), "Deny", true)
}

fn headers<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 3] {
    [(":method", method), (":path", path), (":authority", "llm")]
}

fn body(context: u32) -> Value {
    let reply = host::with(|host| host.streams[&context].replied.clone());
    serde_json::from_slice(&reply.expect("a reply").1).unwrap()
}

#[test]
fn a_question_is_held_until_the_adapter_has_answered() {
    for streamed in [false, true] {
        let mut worker = worker();
        if streamed {
            worker.open_stream();
        }
        let question = worker.request(&headers("GET", "/usage?model=m"), false);
        assert!(worker.is_held(question) && Worker::replied(question).is_none());
        worker.body(question, b"{}", false);
        worker.request_trailers(question);
        assert!(worker.is_held(question), "nothing goes upstream");
        assert_eq!((worker.questions.len(), worker.waiting.len()), (1, 0), "nothing is held or charged");
        worker.tell_usage(Reply::Ok);
        assert_eq!(Worker::replied(question), Some(200));
        assert_eq!((&body(question)["limits"][0]["max"], &body(question)["model"]), (&json!(7), &json!("m")));
        assert!(worker.upstream(question).is_empty());
        worker.end(question);
        assert!(worker.asked.is_empty());
    }
}

#[test]
fn an_adapter_that_is_away_is_told_at_once_or_when_the_call_fails() {
    let mut worker = worker();
    let question = worker.request(&headers("GET", "/usage"), true);
    worker.tell_usage(Reply::Fail(14));
    assert_eq!(Worker::replied(question), Some(503));
    host::with(|host| host.unreachable = true);
    let question = worker.request(&headers("GET", "/usage/"), true);
    assert_eq!((Worker::replied(question), worker.questions.len()), (Some(503), 0));
}

#[test]
fn a_client_that_leaves_gets_no_answer() {
    let mut worker = worker();
    for reply in [Reply::Ok, Reply::Fail(4)] {
        let question = worker.request(&headers("GET", "/usage"), true);
        worker.end(question);
        worker.tell_usage(reply);
    }
}

#[test]
fn other_methods_are_refused_and_other_paths_are_requests() {
    let mut worker = worker();
    let post = worker.request(&headers("POST", "/usage"), false);
    worker.body(post, b"{}", true);
    assert_eq!(Worker::replied(post), Some(405));
    assert!(worker.is_held(post) && worker.questions.is_empty());
    let other = worker.request(&headers("GET", "/usage/x"), true);
    assert_eq!(Worker::replied(other), None);
    assert!(worker.questions.is_empty());
}
