//! Text counts everywhere, except in places that are known to contain no text.

use crate::{CHAT, read};
use llm::request::{self, Condition, Extent};
use serde_json::{Value, json};

const PATHS: [&str; 9] = [
    CHAT,
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1beta/models/g:generateContent",
    "/model/m/converse",
    "/api/chat",
    "/v2/chat",
    "/somewhere",
];

fn text(length: usize) -> String {
    "A weir is a low wall across a river. ".chars().cycle().take(length).collect()
}

/// Builds a body with one message and another member.
fn with(member: &str, value: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body[member] = value;
    body
}

fn in_message(member: &str, value: Value) -> Value {
    let mut message = json!({"role": "user", "content": "hi"});
    message[member] = value;
    json!({"model": "m", "messages": [message]})
}

#[test]
fn text_counts_wherever_it_is() {
    let long = text(40_000);
    let function = |key: &str| json!({"name": "f", key: long});
    let bodies = [
        with("tools", json!([{"type": "function", "function": function("description")}])),
        with("tools", json!([{"type": "function", "function": {"name": long}}])),
        with("tools", json!([{"name": "t", "input_schema": {"properties": {"a": {"enum": [long]}}}}])),
        with("tools", json!([{"functionDeclarations": [function("description")]}])),
        with("tools", json!([{"type": "mcp", "server_description": long}])),
        with("tools", json!({long.as_str(): 1})),
        with("toolConfig", json!({"tools": [{"toolSpec": function("description")}]})),
        with("tool_choice", json!({"type": "function", "function": {"name": long}})),
        with("functions", json!([function("description")])),
        with(
            "response_format",
            json!({"type": "json_schema", "json_schema": {"schema": {"description": long}}}),
        ),
        with("response_format", json!({"type": long})),
        with("text", json!({"format": {"type": "json_schema", "schema": {long.as_str(): {}}}})),
        with("generationConfig", json!({"responseSchema": {"description": long}})),
        with("prediction", json!({"type": "content", "content": long})),
        with("reasoning", json!({"effort": long})),
        with("chat_template_kwargs", json!({"documents": [{"text": long}]})),
        with("chat_template", json!(long)),
        with("extra_body", json!({"a": {"b": [[long]]}})),
        with("mcp_servers", json!([{"name": long}])),
        with("nobody_knows", json!(long)),
        with(&long, json!(0)),
        with("user", json!(long)),
        with("model", json!(long)),
        with("model", json!([long])),
        with("user", json!({"name": long})),
        with("metadata", json!({"a": long})),
        with("metadata", json!({long.as_str(): "a"})),
        with("metadata", json!(long)),
        with("stop", json!([long])),
        with("stream", json!(long)),
        with("max_tokens", json!(long)),
        with("n", json!([long])),
        with("n", json!({"a": long})),
        with("previous_response_id", json!(long)),
        with("service_tier", json!(long)),
        with("logit_bias", json!({long.as_str(): 1})),
        in_message("role", json!(long)),
        in_message("name", json!(long)),
        in_message("type", json!(long)),
        in_message("id", json!(long)),
        in_message("tool_call_id", json!(long)),
        in_message("tool_calls", json!([{"id": "c", "function": {"name": "f", "arguments": long}}])),
        in_message("tool_calls", json!([{"id": long, "function": {"name": "f", "arguments": ""}}])),
        in_message("reasoning", json!(long)),
        in_message("reasoning_details", json!([{"type": "reasoning.text", "text": long}])),
        in_message("encrypted_content", json!(long)),
        in_message("nobody_knows", json!({"deep": [{"er": long}]})),
        in_message(&long, json!(null)),
        in_message("content", json!([{"type": long, "text": "hi"}])),
        in_message("content", json!([{"type": "text", "text": "hi", "cache_control": {"type": long}}])),
        in_message("content", json!([{"type": "file", "file": {"filename": long}}])),
        in_message("content", json!([{"type": "file", "file": long}])),
        in_message("content", json!([{"type": "document", "source": {"type": "text", "data": long}}])),
        in_message("content", json!([{"document": {"format": "pdf", "source": {"text": long}}}])),
        in_message(
            "content",
            json!([{"inlineData": {"mimeType": "text/plain", "data": "QUJD".repeat(13_400)}}]),
        ),
        in_message("content", json!([{"inlineData": {"data": "QUJD".repeat(13_400)}}])),
        in_message("content", json!([{"type": "image_url", "image_url": {"url": long}}])),
        in_message(
            "content",
            json!([{"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{long}")}}]),
        ),
        in_message(
            "content",
            json!([{"type": "image_url", "image_url": {"url": format!("https://example.com/{long}")}}]),
        ),
        in_message(
            "content",
            json!([{"type": "text", "text": format!("data:image/png;base64,{}", "QUJD".repeat(100_000))}]),
        ),
        in_message(
            "content",
            json!([{"type": "image", "source": {"media_type": "image/png", "data": long}}]),
        ),
    ];
    for path in PATHS {
        for (at, body) in bodies.iter().enumerate() {
            let read = read(path, body.to_string());
            assert!(read.input >= 9_900, "{path}, body {at}: {}", read.input);
            assert!(!read.operation.uses_tokens() || read.condition == Condition::Read, "{path} {at}");
        }
    }
}

#[test]
fn many_short_things_are_text_too() {
    let words: Vec<String> =
        text(400_000).as_bytes().chunks(40).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect();
    let objects =
        |key: &str| json!(words.iter().map(|word| json!({"role": "user", key: word})).collect::<Vec<_>>());
    let keys: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(at, word)| (format!("{word}{at}"), json!(1))).collect();
    for body in [
        with("messages", objects("role")),
        with("messages", objects("type")),
        with("messages", objects("tool_call_id")),
        with("stop", json!(words)),
        with("user", json!(words)),
        with("metadata", json!({"a": words})),
        with("metadata", json!(keys)),
        with("x", json!(keys)),
        with("tools", json!([keys])),
        in_message("content", json!([keys])),
        Value::from(keys.clone()),
        json!(words.iter().map(|word| json!({"messages": [{"content": word}]})).collect::<Vec<_>>()),
    ] {
        let read = read(CHAT, body.to_string());
        assert!(read.input >= 95_000, "{}: {}", &body.to_string()[..200], read.input);
    }
    let empty = json!({"messages": vec![json!({"role": "user", "content": ""}); 100_000]});
    assert!(read(CHAT, empty.to_string()).input >= 370_000, "a message costs its frame");
    assert!(read(CHAT, json!({"messages": [{"role": "user", "content": ""}]}).to_string()).input == 1);
}

#[test]
fn what_is_no_text_costs_a_plain_request_nothing() {
    let plain = json!({"model": "gpt-4o", "messages": [
        {"role": "system", "content": "You are brief."}, {"role": "user", "content": "How high is a weir?"}]});
    let expected = read(CHAT, plain.to_string()).input;
    assert_eq!(expected, 8);
    let metadata: serde_json::Map<String, Value> =
        (0..16).map(|n| (format!("{n:0>64}"), json!("v".repeat(512)))).collect();
    for (member, value) in [
        ("user", json!("u".repeat(512))),
        ("metadata", json!(metadata)),
        ("stop", json!(["###", "\n\n"])),
        ("seed", json!(7)),
        ("temperature", json!(0.25)),
        ("top_p", json!(1)),
        ("logit_bias", json!({"50256": -100})),
        ("response_format", json!({"type": "json_object"})),
        ("stream_options", json!({"include_usage": true})),
        ("service_tier", json!("priority")),
        ("reasoning_effort", json!("minimal")),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "alloy", "format": "wav"})),
        ("parallel_tool_calls", json!(false)),
        ("tool_choice", json!("auto")),
        ("safety_identifier", json!("0123456789abcdef")),
        ("prompt_cache_key", json!("team-a")),
        ("thinking", json!({"type": "enabled", "budget_tokens": 1024})),
        ("safetySettings", json!([{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}])),
        ("inferenceConfig", json!({"temperature": 0.5, "stopSequences": ["."]})),
        ("options", json!({"num_ctx": 8192, "stop": ["\n"]})),
    ] {
        let mut body = plain.clone();
        body[member] = value;
        assert_eq!(read(CHAT, body.to_string()).input, expected, "{member}");
    }
    let parts = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "12345678", "cache_control": {"type": "ephemeral"}}]}]});
    assert_eq!(read("/v1/messages", parts.to_string()).input, 2);
}

#[test]
fn tools_count_with_their_keys() {
    let body = with("tools", json!([{"abcd": "efgh", "ijkl": {"mnop": ["qrst"]}}]));
    assert_eq!(read(CHAT, body.to_string()).input, 5, "20 characters and `hi`");
    let numbers = with("tools", json!([{"abcd": {"efgh": [1, 2.5, true, null]}}]));
    assert_eq!(
        read(CHAT, numbers.to_string()).input,
        6,
        "8 characters and `hi`, and a token for each of the others"
    );
    let long = format!(r#"{{"messages":[{{"content":"hi"}}],"tools":[{{"a":[{}]}}]}}"#, "9".repeat(400_000));
    assert!(read(CHAT, long).input >= 99_000, "a number is text that is too long for one");
}

#[test]
fn images_and_files_count_constants() {
    let data = "QUJD".repeat(100_000);
    let url = |url: String| in_message("content", json!([{"type": "image_url", "image_url": {"url": url}}]));
    let image = format!("data:image/png;base64,{data}");
    for (body, expected) in [
        (url(image.clone()), 765),
        (url("https://example.com/a.png".to_owned()), 765),
        (in_message("content", json!([{"type": "image_url", "image_url": image}])), 765),
        (in_message("content", json!([{"image_url": image, "type": "input_image"}])), 765),
        (in_message("content", json!([{"type": "input_image", "file_id": "file-1"}])), 765),
        (in_message("images", json!([data, data])), 1 + 2 * 765),
        (
            in_message(
                "content",
                json!([{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]),
            ),
            600,
        ),
        (in_message("content", json!([{"type": "input_file", "file_id": "file-1"}])), 1920),
        (
            in_message(
                "content",
                json!([{"type": "file", "file": {"file_data": format!("data:application/pdf;base64,{data}")}}]),
            ),
            9376,
        ),
        (
            in_message(
                "content",
                json!([{"type": "file", "file": {"filename": "a.pdf", "file_data": data}}]),
            ),
            9375,
        ),
    ] {
        let input = read(CHAT, body.to_string()).input;
        assert!(input >= expected && input <= expected + 2, "{}: {input}", &body.to_string()[..150]);
    }
    // The order of keys does not matter.
    let converse = |document: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{{"document":{{{document}}}}}]}}]}}"#);
        read("/model/m/converse", body).input
    };
    let source = format!(r#""source":{{"bytes":"{data}"}}"#);
    assert_eq!(converse(&format!(r#""format":"pdf",{source}"#)), 9375);
    assert_eq!(converse(&format!(r#"{source},"format":"pdf""#)), 9375);
    assert_eq!(converse(&format!(r#"{source},"format":"txt""#)), 100_000);
}

#[test]
fn an_image_that_is_cut_off_is_an_image() {
    let body = in_message(
        "content",
        json!([{"type": "image_url",
        "image_url": {"url": format!("data:image/png;base64,{}", "QUJD".repeat(100_000))}}]),
    );
    let body = body.to_string();
    let cut = &body.as_bytes()[..200_000];
    let read = request::read(CHAT, "application/json", cut, Extent::Cut(None));
    assert!(read.input >= 765 && read.input < 900, "{}", read.input);
    // The unread part may contain anything, so it counts as text.
    let read = request::read(CHAT, "application/json", cut, Extent::Cut(Some(400_000)));
    assert!(read.input >= 50_000 + 765 && read.input < 51_000, "{}", read.input);
}

#[test]
fn what_the_server_has_counts_a_constant() {
    for body in [
        with("previous_response_id", json!("resp_1")),
        with("conversation", json!("conv_1")),
        with("conversation", json!({"id": "conv_1"})),
        with("cachedContent", json!("cachedContents/1")),
        with("cached_content", json!("cachedContents/1")),
        with("prompt", json!({"id": "pmpt_1", "version": "2"})),
        with("vector_store_ids", json!(["vs_1"])),
        with("tools", json!([{"type": "file_search", "vector_store_ids": ["vs_1"]}])),
        with("container", json!({"id": "c"})),
        with("container", json!("c")),
        with("thread_id", json!("thread_1")),
        with("input", json!([{"type": "item_reference", "id": "msg_1"}])),
    ] {
        let input = read("/v1/responses", body.to_string()).input;
        assert!((4096..4120).contains(&input), "{body}: {input}");
    }
    let two = with("vector_store_ids", json!(["vs_1", "vs_2"]));
    assert_eq!(read("/v1/responses", two.to_string()).input, 2 * 4096 + 1);
    for nothing in [json!(null), json!(""), json!([])] {
        assert_eq!(read("/v1/responses", with("previous_response_id", nothing).to_string()).input, 1);
    }
}
