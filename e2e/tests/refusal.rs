//! Tests the exact response to a refused client, and that an SDK understands it.

use e2e::client::Request;
use e2e::upstream::Answer;
use e2e::world::{World, per_user, policy};
use e2e::{artefacts, jwt};
use regex::Regex;
use serde_json::json;
use std::process::Command;

fn world() -> World {
    let world = World::with(&policy("llm", json!({ "limits": { "per-user": per_user(150) } })));
    world.upstream.on("60", Answer::used(60));
    world
}

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice-4711" }))).answered_by("60")
}

fn assert_header(answer: &e2e::client::Response, name: &str, pattern: &str) {
    let value = answer.header(name).unwrap_or_else(|| panic!("{name} is absent: {:#?}", answer.headers));
    assert!(Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(value), "{name}: {value}");
}

#[test]
fn an_admitted_answer_says_what_is_left() {
    let world = world();
    let admitted = world.send(&alice());
    assert_eq!(admitted.status, 200);
    assert_header(&admitted, "x-ratelimit-limit-tokens", "150");
    assert_header(&admitted, "x-ratelimit-remaining-tokens", "50");
    assert_header(&admitted, "x-ratelimit-reset-tokens", r"59m5\ds|1h0m0s");
    assert_header(&admitted, "ratelimit-policy", r#""per-user";q=150;w=3600"#);
    assert_header(&admitted, "ratelimit", r#""per-user";r=50;t=\d+"#);
    assert_eq!(admitted.header("retry-after"), None);
}

#[test]
fn a_refusal_says_why_and_when_to_come_back() {
    let world = world();
    assert_eq!(world.send(&alice()).status, 200);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice-4711", 60, 0);
    let refused = world.send(&alice());
    assert_eq!(refused.status, 429);
    assert_header(&refused, "content-type", "application/json");
    assert_header(&refused, "retry-after", r"35\d\d|3600");
    assert_header(&refused, "retry-after-ms", r"35\d\d\d\d\d|3600000");
    assert_header(&refused, "x-ratelimit-limit-tokens", "150");
    assert_header(&refused, "x-ratelimit-remaining-tokens", "90");
    assert_header(&refused, "x-ratelimit-reset-tokens", r"59m\d+s|1h0m0s");
    assert_header(&refused, "ratelimit-policy", r#""per-user";q=150;w=3600"#);
    assert_header(&refused, "ratelimit", r#""per-user";r=90;t=\d+"#);
    // Without this header, the client would sleep for an hour.
    assert_header(&refused, "x-should-retry", "false");
    let body = refused.json();
    let error = &body["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("tokens"), &json!("rate_limit_exceeded")));
    assert!(error["param"].is_null() && error.as_object().unwrap().contains_key("param"));
    let message = error["message"].as_str().unwrap();
    let wanted = "^Rate limit exceeded for limit per-user of policy default/llm: 150 tokens per 1h, 90 \
                  remaining, 100 needed\\. Please try again in (59m\\d+s|1h0m0s)\\.$";
    assert!(Regex::new(wanted).unwrap().is_match(message), "{message}");
    let details = &error["rate_limit"];
    assert_eq!((&details["max"], &details["remaining"]), (&json!(150), &json!(90)), "{details}");
    assert!(!refused.text().contains("4711"), "a counter's value is nobody's business: {}", refused.text());
}

#[test]
fn a_request_that_can_never_pass_is_told_not_to_retry() {
    let world = World::with(&policy("llm", json!({ "limits": { "per-user": per_user(99) } })));
    let refused = world.send(&alice());
    assert_eq!(refused.status, 413);
    assert_header(&refused, "x-should-retry", "false");
    assert_eq!(refused.header("retry-after"), None);
    assert!(refused.json()["error"]["message"].as_str().unwrap().starts_with("Request too large"));
}

/// OpenAI's own client raises a `RateLimitError` for a refusal.
#[test]
fn openai_s_own_client_understands_the_refusal() {
    let Some(python) = python_with_openai() else {
        println!("skipped: the openai package cannot be installed here");
        return;
    };
    let world = world();
    let script = r#"
import sys, openai
url, token = sys.argv[1:]
client = openai.OpenAI(base_url=url + "/v1", api_key=token, max_retries=0)
ask = lambda: client.chat.completions.create(model="gpt-4o", max_tokens=5,
    messages=[{"role": "user", "content": "Hi"}], extra_headers={"x-answer": "60"})
print(ask().usage.total_tokens)
try:
    while True: ask()
except openai.RateLimitError as error:
    print(error.status_code, error.code, error.type, error.response.headers["retry-after"].isdigit())
"#;
    let token = jwt::token(&json!({ "userid": "alice" }));
    let mut command = Command::new(python);
    command.arg("-c").arg(script).arg(format!("http://{}", world.envoy.address())).arg(token);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.trim(), "60\n429 rate_limit_exceeded tokens True", "{complained}");
}

/// Returns a virtual environment with the openai package, or `None` if there is no package index.
fn python_with_openai() -> Option<std::path::PathBuf> {
    let folder = artefacts::cache().join("openai-2.8.1");
    let python = folder.join("bin/python");
    let ready =
        || Command::new(&python).args(["-c", "import openai"]).output().is_ok_and(|o| o.status.success());
    if ready() {
        return Some(python);
    }
    let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let installed = done(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        && done(Command::new(&python).args(["-m", "pip", "install", "--quiet", "openai==2.8.1"]));
    (installed && ready()).then_some(python)
}
