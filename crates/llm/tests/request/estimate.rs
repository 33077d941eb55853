//! The estimate: worked examples, and which facts and numbers count.

use crate::{CHAT, chat, read};
use llm::request::{Dialect, uses_no_tokens};
use serde_json::{Value, json};

/// The floor depends on the smallest limit.
#[test]
fn the_worked_values_of_the_estimate() {
    let floor = |limit: u64| (limit / 4).clamp(1, 1024);
    let message = |text: &str| json!({"messages": [{"role": "user", "content": text}]});
    let with = |mut body: Value, field: &str, value: Value| {
        body[field] = value;
        body
    };
    let sixteen = "Hello, how are y";
    let test = "Hello, this is a test message for concurrent bypass testing.";
    let table = [
        ("hi, maximum 5", CHAT, with(message("hi"), "max_tokens", json!(5)), 1024, 6),
        ("16 characters, maximum 25", CHAT, with(message(sixteen), "max_tokens", json!(25)), 1024, 29),
        ("an embedding", "/v1/embeddings", json!({"input": "hello world"}), 1024, 2),
        ("no maximum", CHAT, message("hello"), 1024, 1025),
        ("no maximum, a limit of 1000", CHAT, message("hi"), floor(1000), 251),
        ("5000 characters, no maximum", CHAT, message(&"x".repeat(5000)), 1024, 2500),
        ("B1", CHAT, with(message(test), "max_tokens", json!(50)), 1024, 65),
        ("B2", CHAT, with(message(&"x".repeat(200)), "max_tokens", json!(200)), 1024, 250),
        ("B6", CHAT, with(message("hi"), "max_tokens", json!(10)), 1024, 11),
        ("an empty request", CHAT, json!({"messages": []}), 1024, 0),
        ("an empty prompt is completed", "/v1/completions", json!({"prompt": ""}), 1024, 1024),
        ("Ollama loads a model", "/api/generate", json!({"model": "llama3"}), 1024, 0),
        (
            "SGLang's maximum",
            "/generate",
            json!({"text": "hello", "sampling_params": {"max_new_tokens": 50}}),
            1024,
            51,
        ),
        ("input at a path that nobody knows", "/ml/v2/answer", json!({"input": "hello world"}), 1024, 1026),
        (
            "the larger maximum",
            CHAT,
            json!({"messages": [{"content": "hi"}], "max_tokens": 1,
            "max_completion_tokens": 900}),
            1024,
            901,
        ),
        (
            "several completions",
            CHAT,
            json!({"messages": [{"content": "hi"}], "max_tokens": 10, "n": 3}),
            1024,
            31,
        ),
        ("several completions, no maximum", CHAT, json!({"messages": [{"content": "hi"}], "n": 3}), 9, 10),
        (
            "parts",
            CHAT,
            json!({"messages": [{"content": [{"type": "text", "text": "hell"},
            {"type": "text", "text": "o wor"}]}], "max_tokens": 1}),
            1024,
            3,
        ),
        ("a prompt", "/v1/completions", json!({"prompt": "12345678", "max_tokens": 1}), 1024, 3),
        // Each prompt has a separate output.
        (
            "a list of prompts",
            "/v1/completions",
            json!({"prompt": ["1234", "5678"], "max_tokens": 1}),
            1024,
            4,
        ),
        ("accents", CHAT, with(message("ääääääää"), "max_tokens", json!(1)), 1024, 5),
        ("Chinese", CHAT, with(message("堰是横跨河流"), "max_tokens", json!(1)), 1024, 7),
    ];
    for (name, path, body, floor, expected) in table {
        let body = read(path, body.to_string());
        assert_eq!(body.input + body.output(floor), expected, "{name}");
    }
}

#[test]
fn no_number_works_to_its_senders_advantage() {
    let absent = [
        "-1",
        "-0",
        "0",
        "null",
        "\"\"",
        "true",
        "1e308",
        "-1e308",
        "1e999999",
        "NaN",
        "Infinity",
        "9007199254740993",
        "18446744073709551616",
        "1.5",
        "0.0",
        "[]",
        "[5]",
        "{}",
        "{\"max_tokens\":5}",
        &"9".repeat(400),
    ];
    for value in absent {
        for field in ["max_tokens", "max_completion_tokens", "n", "best_of"] {
            let body = read(CHAT, format!(r#"{{"{field}":{value},"messages":[{{"content":"hi"}}]}}"#));
            assert_eq!((body.max_output, body.completions), (None, 1), "{field}: {value}");
            assert_eq!((body.input, body.output(250)), (1, 250), "{field}: {value}");
        }
    }
    // A quoted number is not a maximum, but a lenient server may take it as the number of completions.
    let quoted = |field: &str| read(CHAT, format!(r#"{{"{field}":"5","messages":"hi"}}"#));
    assert_eq!((quoted("max_tokens").max_output, quoted("max_completion_tokens").max_output), (None, None));
    assert_eq!((quoted("n").completions, quoted("best_of").completions), (5, 5));
    let huge = 1u64 << 53;
    let body = read(CHAT, format!(r#"{{"max_tokens":{huge},"n":{huge},"messages":"hi"}}"#));
    assert_eq!(body.output(1), u64::MAX, "a product saturates");
    assert_eq!(
        read(CHAT, r#"{"max_tokens":1.20e2}"#).max_output,
        Some(120),
        "a whole number, however written"
    );
}

#[test]
fn a_maximum_that_the_server_ignores_is_none() {
    let fields = [
        ("max_tokens", json!({"max_tokens": 5})),
        ("max_completion_tokens", json!({"max_completion_tokens": 5})),
        ("max_output_tokens", json!({"max_output_tokens": 5})),
        ("max_tokens_to_sample", json!({"max_tokens_to_sample": 5})),
        ("generationConfig", json!({"generationConfig": {"maxOutputTokens": 5}})),
        ("inferenceConfig", json!({"inferenceConfig": {"maxTokens": 5}})),
        ("options", json!({"options": {"num_predict": 5}})),
    ];
    let heeded: &[(&str, &[&str])] = &[
        (CHAT, &["max_tokens", "max_completion_tokens"]),
        ("/v1/completions", &["max_tokens"]),
        ("/v1/responses", &["max_output_tokens"]),
        ("/v1/messages", &["max_tokens", "max_tokens_to_sample"]),
        ("/v1beta/models/g:generateContent", &["generationConfig"]),
        ("/model/m/converse", &["inferenceConfig"]),
        ("/api/chat", &["options"]),
        ("/v2/chat", &["max_tokens"]),
    ];
    for (path, heeded) in heeded {
        for (name, body) in &fields {
            let expected = heeded.contains(name).then_some(5);
            assert_eq!(read(path, body.to_string()).max_output, expected, "{path} {name}");
        }
    }
    for (name, body) in &fields {
        assert_eq!(read("/somewhere", body.to_string()).max_output, Some(5), "{name}");
    }
}

#[test]
fn repeated_keys_bypass_nothing() {
    let body =
        read(CHAT, r#"{"model":"a","max_tokens":1,"model":"b","max_tokens":9,"n":4,"max_tokens":2,"n":1}"#);
    assert_eq!((body.model.as_deref(), body.max_output, body.completions), (Some("b"), Some(9), 4));
    let body = read(
        CHAT,
        r#"{"metadata":{"a":1},"messages":[{"content":"1234"}],"metadata":{"a":2},"messages":"1234"}"#,
    );
    assert_eq!(body.input, 2);
}

#[test]
fn a_session_is_the_first_of_its_three_names() {
    let all = json!({"litellm_session_id": "a", "metadata": {"session_id": "b"},
        "litellm_metadata": {"session_id": "c"}});
    let mut table = vec![(all.clone(), Some("a"))];
    let mut without = all;
    without["litellm_session_id"] = json!("");
    table.push((without.clone(), Some("b")));
    without["metadata"] = json!({"session_id": 7});
    table.push((without.clone(), Some("c")));
    without["litellm_metadata"] = json!({"deeper": {"session_id": "d"}});
    table.push((without, None));
    for (body, expected) in table {
        assert_eq!(chat(&body).session.as_deref(), expected, "{body}");
    }
}

#[test]
fn a_maximum_is_found_in_tensors_and_in_settings_of_any_shape() {
    let tensor = |name: &str, data: Value| json!({"name": name, "datatype": "X", "shape": [1], "data": data});
    let named = |name: &str| json!({"prompt": "hi", name: 5000});
    let table = [
        (
            "a tensor",
            json!({"inputs": [tensor("text_input", json!(["hi"])), tensor("max_tokens", json!([5000]))]}),
            5000,
        ),
        (
            "a tensor with its name after its values",
            json!({"inputs": [{"data": ["hi"], "name": "text_input"}, {"data": [[5000]], "name": "request_output_len"}]}),
            5000,
        ),
        (
            "a batch",
            json!({"inputs": [
                tensor("text_input", json!([["hi"], ["you"]])), tensor("max_tokens", json!([[3000], [2000]])),
            ]}),
            6000,
        ),
        (
            "settings in a tensor",
            json!({"inputs": [
                tensor("text_input", json!(["hi"])), tensor("sampling_parameters", json!([r#"{"max_tokens": "5000"}"#])),
            ]}),
            5000,
        ),
        (
            "settings in a string",
            json!({"text_input": "hi", "sampling_parameters": r#"{"temperature": 0, "max_tokens": 5000}"#}),
            5000,
        ),
        (
            "a value with its type",
            json!({"instances": ["hi"], "params": {"max_tokens_to_generate": {"type": "int", "value": "5000"}}}),
            5000,
        ),
        (
            "sampling parameters",
            json!({"token_ids": [1, 2], "sampling_params": {"max_tokens": 2500, "n": 2}}),
            5000,
        ),
        ("KoboldAI's name", named("genamt"), 5000),
        ("AssemblyAI's name", named("max_output_size"), 5000),
        ("Aleph Alpha's name", named("maximum_tokens"), 5000),
        ("the name in Hugging Face's pipelines", named("max_length"), 5000),
        (
            "a maximum in a schema does not count",
            json!({"prompt": "hi", "settings": {"properties": {"a": {"maxLength": 5000}}}}),
            1024,
        ),
        (
            "settings inside of settings are text",
            json!({"prompt": "hi", "parameters": r#"{"parameters": "{\"max_tokens\": 5000}"}"#}),
            1024,
        ),
    ];
    for (name, body, expected) in table {
        assert_eq!(read("/somewhere", body.to_string()).output(1024), expected, "{name}");
    }
}

#[test]
fn tensors_are_prompts_or_token_ids_and_only_a_batch_has_several() {
    let ids: Vec<u32> = (0..400).collect();
    let body = json!({"inputs": [{"name": "input_ids", "data": [ids]}, {"name": "request_output_len", "data": [[9]]}]});
    let body = read("/v2/models/m/infer", body.to_string());
    assert_eq!((body.completions, body.input / 10), (1, 40), "{body:?}");
    let text = "x".repeat(400);
    let body = json!({"inputs": [{"name": "text_input", "data": [text, text]}, {"name": "stop", "data": ["a", "b"]}]});
    let body = read("/v2/models/m/infer", body.to_string());
    assert_eq!((body.completions, body.input / 10), (2, 20), "{body:?}");
}

#[test]
fn a_prompt_with_the_members_of_a_tensor_is_a_prompt() {
    let long = "x".repeat(100);
    let prompts = [
        json!({"text": "hi", "data": [1]}),
        json!({"name": "a", "shape": [1], "datatype": "BYTES", "data": ["hi"], "text": "hi"}),
        json!({"data": ["hi"], "prompt_token_ids": [1, 2], "name": "a"}),
        json!({"data": ["hi"], long: "hi", "name": "a"}),
        json!({"data": ["hi"]}),
        json!({"name": "hi"}),
    ];
    for prompt in prompts {
        let body = json!({"prompt": [prompt, prompt, prompt], "max_tokens": 100}).to_string();
        assert!(read("/v1/completions", &body).output(1024) >= 300, "{body}");
    }
}

#[test]
fn the_id_of_one_of_several_inputs_names_no_stored_prompt() {
    let of = |prompt: Value| read("/somewhere", json!({"prompt": prompt}).to_string()).input;
    assert!(of(json!([{"id": "x", "text": "hi"}])) < 10);
    assert!(of(json!({"id": "pmpt_1"})) > 4000);
}

/// A chat template, for example, can put any part of `chat_template_kwargs` into the prompt.
#[test]
fn an_image_counts_by_its_size_only_in_a_known_object() {
    let data = format!("iVBORw0KGgo{}", "A".repeat(40_000));
    let of = |object: &str, name: &str| {
        let body = json!({"messages": [], object: {name: {"format": "png", "source": {"bytes": data}}}});
        read("/model/amazon.nova/invoke", body.to_string()).input
    };
    assert!(of("singleEmbeddingParams", "image") < 2000, "{}", of("singleEmbeddingParams", "image"));
    assert!(of("singleEmbeddingParams", "notes") > 10_000);
    for object in ["chat_template_kwargs", "tools", "response_format", "anything"] {
        assert!(of(object, "image") > 10_000, "{object}");
        assert!(of(object, "audio") > 10_000, "{object}");
    }
}

#[test]
fn what_is_too_long_to_be_a_name_is_none() {
    let body = chat(&json!({"model": "m".repeat(600), "user": "u".repeat(512)}));
    assert_eq!((body.model, body.user.map(|user| user.len())), (None, Some(512)));
}

#[test]
fn calls_that_use_no_tokens_are_estimated_at_none() {
    for path in ["/v1/messages/count_tokens", "/v1/moderations", "/v1/models", "/v1beta/models/g:countTokens"]
    {
        let body =
            read(path, if path == "/v1/models" { "" } else { r#"{"input":"hello","messages":["hello"]}"# });
        assert!(!body.operation.uses_tokens(), "{path}");
        assert_eq!((body.input, body.output(1024)), (0, 0), "{path}");
    }
    let body = read("/models/gpt2", r#"{"inputs":"hello world"}"#);
    assert_eq!((body.dialect, body.input), (Dialect::Unknown, 2), "a body under /models is a call");
}

/// OpenAI stores conversations where other servers answer.
#[test]
fn a_call_that_may_only_store_uses_tokens_if_there_is_something_to_answer() {
    let is_free = |body: Value| {
        let paths = ["/v1/conversations", "/v1/chat/completions/chatcmpl-1"];
        let [conversations, chat] =
            paths.map(|path| uses_no_tokens("POST", path, true, Some(&read(path, body.to_string()))));
        assert_eq!(conversations, chat, "{body}");
        chat
    };
    assert!(is_free(
        json!({"items": [{"type": "message", "role": "user", "content": "hi"}], "metadata": {}})
    ));
    let messages = json!([{"role": "user", "content": "hi"}]);
    let long = "x".repeat(100);
    for (field, value) in [
        ("messages", messages),
        ("Messages", json!([{"role": "user", "content": "hi"}])),
        ("query", json!("hi")),
        (&long, json!("hi")),
        ("inputs", json!("hi")),
        ("input", json!("hi")),
        ("prompt", json!("hi")),
        ("contents", json!([{"parts": [{"text": "hi"}]}])),
    ] {
        assert!(!is_free(json!({field: value})), "{field}");
    }
}

/// Reading each of them would slow a worker down.
#[test]
fn only_some_settings_in_strings_are_read() {
    let settings = |count: usize| {
        let mut strings = vec!["{".to_owned(); count];
        strings.push(r#"{"max_tokens": 1000000}"#.to_owned());
        let body = json!({"inputs": [{"name": "settings", "data": strings}]});
        read("/v2/models/m/infer", body.to_string()).output(1)
    };
    assert!(settings(100) >= 1_000_000);
    assert!(settings(10_000) < 1_000_000);
}
