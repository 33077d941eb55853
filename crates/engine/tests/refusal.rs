//! Refusals of requests that are invalid, in the form that each dialect's client libraries read.

use engine::refusal::invalid_request;
use llm::request::Dialect;
use std::fmt::Write;

#[test]
fn an_invalid_request_is_answered_in_the_callers_dialect() {
    let mut answers = String::new();
    for dialect in [
        Dialect::OpenAi,
        Dialect::Anthropic,
        Dialect::Gemini,
        Dialect::Bedrock,
        Dialect::Cohere,
        Dialect::Ollama,
        Dialect::Unknown,
    ] {
        let denial = invalid_request(dialect, "The request body gives two models.");
        let headers: Vec<_> = denial.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let body = String::from_utf8(denial.body).unwrap();
        writeln!(answers, "{dialect:?}: {} {}\n{body}\n", denial.status, headers.join(", ")).unwrap();
    }
    insta::assert_snapshot!(answers);
}
