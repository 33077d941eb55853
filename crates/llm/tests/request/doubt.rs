//! What a server may honour that another one ignores: further models, names of maxima, numbers of results, settings in
//! strings. It can only increase a hold.

use super::{CHAT, chat, read};
use llm::request::{self, Extent};
use serde_json::{Value, json};

fn hello(more: &Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn held(path: &str, body: &str) -> u64 {
    read(path, body).output(1024)
}

#[test]
fn a_model_that_the_server_may_use_instead_makes_the_model_unknown() {
    let model = |more| {
        let body = chat(&hello(&more));
        (body.model, body.model_is_unreadable)
    };
    let known = |name: &str| (Some(name.to_owned()), false);
    assert_eq!(model(json!({"models": ["m"]})), known("m"));
    assert_eq!(model(json!({"models": ["m", "m"]})), known("m"));
    assert_eq!(model(json!({"models": ["m"], "fallbacks": null})), known("m"));
    assert_eq!(model(json!({"models": null, "fallbacks": []})), known("m"));
    assert_eq!(model(json!({"model": null, "models": ["o"]})), known("o"));
    for more in [
        json!({"models": ["o"]}),
        json!({"models": ["m", "o"]}),
        json!({"models": [{"id": "o"}]}),
        json!({"model": null, "models": ["m", "o"]}),
        json!({"fallbacks": ["o"]}),
        json!({"fallbacks": [{"m": ["o"]}]}),
        json!({"fallbacks": [{"model": "o"}]}),
        json!({"context_window_fallbacks": [{"m": ["o"]}]}),
        json!({"model": "m,o"}),
    ] {
        assert_eq!(model(more.clone()), (None, true), "{more}");
    }
    let of_path = read("/engines/o/chat/completions", hello(&json!({})).to_string());
    assert_eq!(of_path.model.as_deref(), Some("o"));
}

#[test]
fn a_configuration_that_the_server_keeps_may_name_the_model() {
    for (path, body) in [
        ("/v1/responses", json!({"prompt": {"id": "pmpt_1", "version": "2"}, "input": "hello"})),
        ("/v1/threads/thread_1/runs", json!({"assistant_id": "asst_1"})),
        ("/v1/agents/completions", json!({"agent_id": "ag_1", "messages": []})),
        ("/v1beta/interactions", json!({"agent": "deep-research", "input": "hello"})),
        ("/api/v1/chat/completions", json!({"preset": "fast", "messages": []})),
        (CHAT, json!({"prompt_id": "p", "messages": []})),
    ] {
        let named = |more: Value| {
            let mut body = body.clone();
            body["model"] = more;
            let body = read(path, body.to_string());
            (body.model, body.model_is_unreadable)
        };
        assert_eq!(named(Value::Null), (None, true), "{path}");
        assert_eq!(named(json!("m")), (Some("m".to_owned()), false), "{path}");
    }
    // This prompt is text.
    let body = read("/v1/completions", json!({"prompt": "hello"}).to_string());
    assert_eq!((body.model, body.model_is_unreadable), (None, false));
}

#[test]
fn the_number_of_results_is_found_wherever_a_maximum_is() {
    for (path, body) in [
        (CHAT, hello(&json!({"extra_body": {"n": 100}}))),
        (CHAT, hello(&json!({"n_cmpl": 100}))),
        (CHAT, hello(&json!({"Num_Return_Sequences": 100}))),
        (CHAT, hello(&json!({"n": {"value": 100}}))),
        (CHAT, hello(&json!({"model": vec!["m"; 100].join(",")}))),
        ("/v2/ep/runsync", json!({"input": {"prompt": "hi", "sampling_params": {"n": 100}}})),
        ("/v2/ep/runsync", json!({"input": {"openai_input": {"messages": [], "n": 100}}})),
        ("/v1/models/m:predict", json!({"instances": [{"prompt": "hi", "candidateCount": 100}]})),
        ("/generate", json!({"inputs": "hi", "parameters": {"num_return_sequences": 100}})),
        (
            "/v2/models/m/generate",
            json!({"text_input": "hi", "sampling_parameters": r#"{"max_tokens": 1000, "n": 100}"#}),
        ),
        (
            "/v2/models/m/infer",
            json!({"inputs": [{"name": "num_return_sequences", "datatype": "INT32", "shape": [1], "data": [100]}]}),
        ),
    ] {
        let mut body = body;
        body.as_object_mut().unwrap().entry("max_tokens").or_insert(json!(1000));
        assert!(held(path, &body.to_string()) >= 100_000, "{path} {body}");
    }
    let conversation = json!([{"role": "user", "content": "hello"}]);
    let batch = json!({"model": "m", "messages": vec![conversation.clone(); 100], "max_tokens": 1000});
    assert!(held("/v1/chat/completions/batch", &batch.to_string()) >= 100_000);
    let one = json!({"model": "m", "messages": conversation, "max_tokens": 1000});
    assert_eq!(held(CHAT, &one.to_string()), 1000);
    assert_eq!(held("/batch", &json!([one, one, one]).to_string()), 3000);
}

#[test]
fn a_maximum_is_known_by_its_words() {
    for name in [
        "thinking_budget",
        "thinkingBudget",
        "thinking_token_budget",
        "max_thinking_tokens",
        "reasoning_budget",
        "budget_tokens",
        "min_tokens",
        "min_new_tokens",
        "tokens_to_generate",
        "max_gen_toks",
        "max_output_len",
        "max_dec_len",
        "max_token",
        "max-gen-tokens",
        "MaxResponseLength",
        "output_token_limit",
    ] {
        let body = hello(&json!({"max_tokens": 1, name: 100_000})).to_string();
        assert!(held(CHAT, &body) >= 100_000, "{name}");
    }
    for body in [
        r#"{"messages":["hello"],"reasoning":{"max_tokens":32000}}"#,
        r#"{"messages":["hello"],"thinking":{"type":"enabled","budget_tokens":32000}}"#,
    ] {
        assert!(held(CHAT, body) >= 32_000, "{body}");
    }
    for name in [
        "max_context_length",
        "max_input_tokens",
        "max_prompt_tokens",
        "max_model_len",
        "max_tokens_per_doc",
        "max_tokens_per_minute",
        "truncate_prompt_tokens",
        "top_n_tokens",
        "minLength",
        "max_results",
        "sample_size",
        "n_tokens",
        "limit",
        "length",
    ] {
        let body = hello(&json!({"max_tokens": 1, name: 100_000})).to_string();
        assert_eq!(held(CHAT, &body), 1, "{name}");
    }
}

#[test]
fn what_means_no_maximum_elsewhere_makes_a_maximum_unsure() {
    for (path, body) in [
        (CHAT, r#"{"messages":["hello"],"max_tokens":1,"n_predict":-1}"#),
        ("/v1/completions", r#"{"prompt":"hello","max_tokens":1,"n_predict":"-1"}"#),
        (CHAT, r#"{"messages":["hello"],"max_tokens":1,"extra_body":{"max_tokens":-1}}"#),
        ("/api/chat", r#"{"messages":["hello"],"options":{"num_predict":1},"options":null}"#),
        ("/api/chat", r#"{"messages":["hello"],"options":{"num_predict":1},"options":{}}"#),
        ("/generate", r#"{"text":"hello","sampling_params":{"max_new_tokens":1},"sampling_params":{}}"#),
        ("/api/chat", r#"{"messages":["hello"],"options":{"num_predict":1},"OPTIONS":null}"#),
        ("/completion", r#"{"prompt":"hello","max_tokens":1,"n_predict":-1}"#),
        (CHAT, r#"{"messages":["hello"],"request":{"max_tokens":1}}"#),
        (CHAT, r#"{"messages":["hello"],"max_tokens":1,"parameters":"{\"max_tokens\":-1}"}"#),
    ] {
        assert!(held(path, body) >= 1024, "{path} {body}");
    }
    assert_eq!(held(CHAT, r#"{"messages":["hello"],"max_tokens":1,"n_predict":null,"temperature":-1}"#), 1);
    let body = r#"{"request":{"model":"m","messages":["hello"],"max_tokens":1}}"#;
    assert_eq!(held("/v1/async/chat/completions", body), 1);
}

#[test]
fn settings_in_strings_and_tensors_cannot_be_hidden() {
    let tensor =
        |name: &str, data: Value| json!({"name": name, "shape": [1], "datatype": "BYTES", "data": data});
    let settings = r#"{"max_tokens": 100000}"#;
    let inputs = |tensor: Value| json!({"inputs": [{"name": "text_input", "data": ["hi"]}, tensor]});
    for body in [
        inputs(tensor("sampling_parameters", json!([format!("{}{settings}", " ".repeat(2000))]))),
        inputs(tensor("sampling_parameters", json!([format!("\n{settings}")]))),
        inputs(tensor(
            "sampling_parameters",
            json!([format!(r#"{{"a":"{}","max_tokens":100000}}"#, "x".repeat(5000))]),
        )),
        inputs(tensor("max_tokens", json!(["100000"]))),
        inputs(tensor("max_output_len", json!([100_000]))),
        json!({"inputs": [tensor("text_input", json!(["hi"]))], "parameters": {"sampling_parameters": settings}}),
        json!({"text_input": "hi", "options": vec!["{"; 300], "sampling_parameters": settings}),
    ] {
        assert!(held("/v2/models/m/infer", &body.to_string()) >= 100_000, "{body}");
    }
    let beside = inputs(tensor("stop", json!(["x"]))).to_string();
    assert!(held("/v2/models/m/infer", &beside.replacen('{', r#"{"max_tokens":1,"#, 1)) >= 1024);
    let twice =
        r#"{"inputs":[{"name":"max_tokens","name":"zz","shape":[1],"datatype":"INT32","data":[100000]}]}"#;
    assert!(held("/v2/models/m/infer", twice) >= 100_000);
}

#[test]
fn a_form_may_contain_maxima_and_numbers_of_results() {
    let form = |content_type: &str, body: &str| {
        request::read(CHAT, content_type, body.as_bytes(), Extent::Whole).output(1024)
    };
    let pairs = "model=m&prompt=hello&max%5Ftokens=1000&n=100";
    assert!(form("application/x-www-form-urlencoded", pairs) >= 100_000);
    assert!(form("", pairs) >= 100_000);
    let part = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body =
        [part("prompt", "hello"), part("max_tokens", "1000"), part("best_of", "100"), "--b--\r\n".into()]
            .concat();
    assert!(form("multipart/form-data; boundary=b", &body) >= 100_000);
}

#[test]
fn the_members_of_documents_are_text() {
    let words = "word-word_".repeat(30_000);
    for name in ["image", "images", "image_url", "video", "audio", "audio_url", "video_url", "file", "source"]
    {
        let body = chat(&hello(&json!({"documents": [{name: words}]})));
        assert!(body.input >= 75_000, "{name}: {}", body.input);
    }
    let body = chat(&hello(&json!({"documents": [{"content": [{"image": words}]}]})));
    assert!(body.input >= 75_000, "{}", body.input);
    let lines = "word\n".repeat(20_000);
    let body =
        chat(&json!({"messages": [{"content": [{"type": "image_url", "image_url": {"url": lines}}]}]}));
    assert!(body.input >= 25_000, "{}", body.input);
}
