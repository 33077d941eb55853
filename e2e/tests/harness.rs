//! Tests the test harness: Envoy's behaviour without the filter, and the exact positions of disconnects.

use e2e::client::{Request, Response};
use e2e::envoy::{Config, Envoy};
use e2e::upstream::{Answer, Gate, Upstream};
use e2e::{jwt, wire};
use serde_json::json;

fn without_filter() -> (Envoy, Upstream) {
    let upstream = Upstream::start();
    let mut config = Config::read("e2e/envoy.yaml");
    config.filters().retain(|filter| filter["name"] != "weir");
    config.cluster("llm", upstream.address());
    (config.start(1), upstream)
}

#[test]
fn the_configuration_trusts_the_harness_key() {
    let mut config = Config::read("e2e/envoy.yaml");
    let keys = &config.typed(".JwtAuthentication")["providers"]["people"]["local_jwks"]["inline_string"];
    let keys: serde_json::Value = serde_json::from_str(keys.as_str().unwrap()).unwrap();
    assert_eq!(keys, jwt::keys());
}

#[test]
fn a_token_becomes_an_identity_header_and_a_false_one_never_does() {
    let (envoy, upstream) = without_filter();
    let alice = json!({ "userid": "alice" });
    let send = |request: Request| -> Response { request.send(envoy.address()) };
    assert_eq!(send(Request::chat(5).token(&jwt::token(&alice))).status, 200);
    assert_eq!(send(Request::chat(5).token(&jwt::forged(&alice))).status, 401);
    assert_eq!(send(Request::chat(5).header("x-jwt-payload", "eyJ1c2VyaWQiOiJhbGljZSJ9")).status, 200);
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2, "{seen:#?}");
    assert!(wire::header(&seen[0].headers, "x-jwt-payload").is_some());
    assert_eq!(
        wire::header(&seen[1].headers, "x-jwt-payload"),
        None,
        "jwt_authn removes a client's own copy"
    );
}

#[test]
fn the_provider_answers_by_itself_as_openai_does() {
    let (envoy, upstream) = without_filter();
    let answer = Request::chat(5).send(envoy.address());
    assert_eq!(answer.json()["usage"]["completion_tokens"], 5);
    assert_eq!(Request::get("/v1/models").send(envoy.address()).json()["object"], "list");
    let body = json!({ "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 7 });
    let stream = Request::post("/v1/chat/completions", &body).send(envoy.address());
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert!(
        stream.text().contains(r#""completion_tokens":7"#) && stream.text().ends_with("data: [DONE]\n\n")
    );
    assert_eq!(upstream.calls(), 3);
}

#[test]
fn pieces_arrive_one_by_one_and_trailers_after_them() {
    let (envoy, upstream) = without_filter();
    let gate = Gate::default();
    upstream.on(
        "slow",
        Answer::new(200).bytes("first").wait(&gate).bytes("second").trailers(&[("x-end", "yes")]),
    );
    let mut answer = Request::chat(5).answered_by("slow").open(envoy.address());
    assert_eq!(answer.body_of(1), b"first");
    gate.open();
    let answer = answer.finish();
    assert_eq!((answer.text().as_str(), &answer.cut), ("firstsecond", &None));
    assert_eq!(answer.trailers, [("x-end".to_owned(), "yes".to_owned())]);
    upstream.last_answered();
}

#[test]
fn an_answer_can_be_cut_before_and_after_its_head() {
    let (envoy, upstream) = without_filter();
    let gate = Gate::default();
    upstream.on("no head", Answer::new(200).reset());
    upstream.on("reset", Answer::new(200).bytes("some").wait(&gate).reset());
    upstream.on("close", Answer::new(200).header("content-length", "9").bytes("some").close());
    let open = |name: &str| Request::chat(5).answered_by(name).open(envoy.address());
    assert_eq!(open("no head").finish().status, 503);
    let mut reset = open("reset");
    reset.body_of(4);
    gate.open();
    assert!(reset.finish().cut.is_some());
    let close = open("close").finish();
    assert_eq!((close.text().as_str(), close.cut.is_some()), ("some", true));
}

#[test]
fn a_client_that_hangs_up_ends_its_request_upstream() {
    let (envoy, upstream) = without_filter();
    let gate = Gate::default();
    upstream.on("never", Answer::new(200).wait_first(&gate));
    let request = Request::chat(5).answered_by("never").open(envoy.address());
    upstream.wait_for_calls(1);
    assert_eq!(envoy.stat("cluster.llm.upstream_rq_active"), 1);
    request.hang_up();
    e2e::wait::until("the end of the request", || {
        (envoy.stat("cluster.llm.upstream_rq_active") == 0).then_some(())
    });
    gate.open();
}

#[test]
fn every_story_can_be_read() {
    let stories = e2e::scenario::Story::all();
    assert!(stories.len() > 20);
    let wrong: Vec<_> =
        stories.iter().filter_map(|(_, path)| e2e::scenario::Story::read(path).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
