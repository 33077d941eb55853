//! Tables of the fields that Weir adds to requests.

use crate::{CHAT, read};
use llm::request::edit;

#[test]
fn asking_for_usage_keeps_what_the_client_sent() {
    let kept = |text: &str| (text.to_owned(), None, false);
    let added = |text: &str, expected: &str| (text.to_owned(), Some(expected.to_owned()), true);
    let table = [
        added(r#"{"stream":true}"#, r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        added(" {\n \"stream\" : true }\n", " {\"stream_options\":{\"include_usage\":true},\n \"stream\" : true }\n"),
        added(r#"{"stream":true,"stream_options":{}}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        added(r#"{"stream":true,"stream_options": { } }"#, r#"{"stream":true,"stream_options": {"include_usage":true } }"#),
        added(r#"{"stream":true,"stream_options":null}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        added(r#"{"stream":true,"stream_options":false}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        added(
            r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        added(
            r#"{"stream":true,"stream_options":{"include_obfuscation":false,"include_usage": null}}"#,
            r#"{"stream":true,"stream_options":{"include_obfuscation":false,"include_usage": true}}"#,
        ),
        added(
            r#"{"stream":true,"stream\u005foptions":{"\u0069nclude_usage":0,"a":1}}"#,
            r#"{"stream":true,"stream\u005foptions":{"\u0069nclude_usage":true,"a":1}}"#,
        ),
        added(
            r#"{"stream":true,"stream_options":{"continuous_usage_stats":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#,
        ),
        added(
            r#"{"stream_options":{"include_usage":true},"stream":true,"stream_options":{}}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        added(
            r#"{"stream":true,"x":{"stream_options":{"include_usage":true}},"y":"\"stream_options\""}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true,"x":{"stream_options":{"include_usage":true}},"y":"\"stream_options\""}"#,
        ),
        added("{\"stream\":true,\"\\ud800\":\"\\udc00\"}", "{\"stream_options\":{\"include_usage\":true},\"stream\":true,\"\\ud800\":\"\\udc00\"}"),
        added("\u{feff}{\"stream\":true}", "\u{feff}{\"stream_options\":{\"include_usage\":true},\"stream\":true}"),
        // The client already asks for usage, but only in one of two repeated fields.
        (
            r#"{"stream":true,"stream_options":{},"stream_options":{"include_usage":true}}"#.to_owned(),
            Some(r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}"#.to_owned()),
            false,
        ),
        kept(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        kept(r#"{"stream":true,"stream_options":{"a":[1],"include_usage" : true }}"#),
        kept(r#"{"stream":false}"#),
        kept(r#"{}"#),
        kept(r#"{"stream":true"#),
        kept(r#"{"stream":true,"a":nonsense}"#),
        // Servers in Python accept `NaN`, and those in Go ignore everything after the first document.
        added(r#"{"stream":true}}"#, r#"{"stream_options":{"include_usage":true},"stream":true}}"#),
        added(r#"{"stream":true,"a":NaN}"#, r#"{"stream_options":{"include_usage":true},"stream":true,"a":NaN}"#),
        kept(r#"[{"stream":true}]"#),
    ];
    for (text, expected, unasked) in table {
        for path in [CHAT, "/v1/completions", "/openai/deployments/d/chat/completions"] {
            let usage = edit::ask_for_usage(&read(path, text.as_bytes()), text.as_bytes()).unwrap();
            assert_eq!(usage.body.map(|body| String::from_utf8(body).unwrap()), expected, "{text}");
            assert_eq!(usage.unasked, unasked, "{text}");
        }
        for path in ["/v1/responses", "/v1/messages", "/v1/embeddings", "/elsewhere", "/api/chat"] {
            assert_eq!(
                edit::ask_for_usage(&read(path, text.as_bytes()), text.as_bytes()),
                Ok(edit::UsageRequest::default())
            );
        }
    }
}

#[test]
fn an_output_is_capped_where_the_client_did_not() {
    let table: &[(&str, &str, &str)] = &[
        (CHAT, r#"{"a":1}"#, r#"{"max_tokens":240,"a":1}"#),
        (CHAT, r#"{}"#, r#"{"max_tokens":240}"#),
        (CHAT, r#"{"n":3}"#, r#"{"max_tokens":80,"n":3}"#),
        (CHAT, r#"{"n":1000}"#, r#"{"max_tokens":1,"n":1000}"#),
        (CHAT, r#"{"max_tokens":null}"#, r#"{"max_tokens":240}"#),
        (CHAT, r#"{"max_tokens":-1,"max_tokens":"9"}"#, r#"{"max_tokens":240,"max_tokens":240}"#),
        (CHAT, r#"{"max_completion_tokens":-1}"#, r#"{"max_completion_tokens":240}"#),
        (CHAT, r#"{"max_completion_tokens":null}"#, r#"{"max_tokens":240,"max_completion_tokens":null}"#),
        (CHAT, r#"{"max_output_tokens":1}"#, r#"{"max_tokens":240,"max_output_tokens":1}"#),
        (CHAT, r#"{"model":"o3-mini"}"#, r#"{"max_completion_tokens":240,"model":"o3-mini"}"#),
        (CHAT, r#"{"model":"openai/gpt-5"}"#, r#"{"max_completion_tokens":240,"model":"openai/gpt-5"}"#),
        (CHAT, r#"{"model":"olmo"}"#, r#"{"max_tokens":240,"model":"olmo"}"#),
        ("/v1/completions", r#"{"best_of":2}"#, r#"{"max_tokens":120,"best_of":2}"#),
        ("/v1/responses", r#"{"a":1}"#, r#"{"max_output_tokens":240,"a":1}"#),
        ("/v1/messages", r#"{"a":1}"#, r#"{"max_tokens":240,"a":1}"#),
        (
            "/v1beta/models/g:generateContent",
            r#"{"contents":[]}"#,
            r#"{"generationConfig":{"maxOutputTokens":240},"contents":[]}"#,
        ),
        (
            "/v1beta/models/g:generateContent",
            r#"{"generation_config":{"max_output_tokens":0,"a":1}}"#,
            r#"{"generation_config":{"max_output_tokens":240,"a":1}}"#,
        ),
        (
            "/v1beta/models/g:generateContent",
            r#"{"generationConfig":{"candidateCount":2}}"#,
            r#"{"generationConfig":{"maxOutputTokens":120,"candidateCount":2}}"#,
        ),
        ("/model/m/converse", r#"{"inferenceConfig":null}"#, r#"{"inferenceConfig":{"maxTokens":240}}"#),
        (
            "/model/amazon.nova-lite/invoke",
            r#"{"messages":[]}"#,
            r#"{"inferenceConfig":{"maxTokens":240},"messages":[]}"#,
        ),
        ("/model/meta.llama3/invoke", r#"{"prompt":""}"#, r#"{"max_gen_len":240,"prompt":""}"#),
        (
            "/model/amazon.titan-text/invoke",
            r#"{"inputText":""}"#,
            r#"{"textGenerationConfig":{"maxTokenCount":240},"inputText":""}"#,
        ),
        ("/api/chat", r#"{"options":{"num_predict":-1}}"#, r#"{"options":{"num_predict":240}}"#),
        ("/v2/chat", r#"{"a":1}"#, r#"{"max_tokens":240,"a":1}"#),
        ("/generate", r#"{"inputs":""}"#, r#"{"parameters":{"max_new_tokens":240},"inputs":""}"#),
        ("/completion", r#"{"prompt":""}"#, r#"{"n_predict":240,"prompt":""}"#),
    ];
    for (path, text, expected) in table {
        let capped =
            edit::cap_output(&read(path, text.as_bytes()), text.as_bytes(), 240).unwrap().expect(text);
        assert_eq!(String::from_utf8(capped).unwrap(), *expected, "{path} {text}");
    }
    let untouched: &[(&str, &str)] = &[
        (CHAT, r#"{"max_tokens":5}"#),
        (CHAT, r#"{"max_completion_tokens":5,"max_tokens":null}"#),
        (CHAT, r#"{"a":1"#),
        (CHAT, r#"[]"#),
        ("/v1/embeddings", r#"{"input":""}"#),
        ("/v1/messages/count_tokens", r#"{"messages":[]}"#),
        ("/model/other.model/invoke", r#"{"prompt":""}"#),
        ("/elsewhere", r#"{"a":1}"#),
    ];
    for (path, text) in untouched {
        assert_eq!(
            edit::cap_output(&read(path, text.as_bytes()), text.as_bytes(), 240),
            Ok(None),
            "{path} {text}"
        );
    }
}
