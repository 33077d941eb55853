//! Single values of a response, by pointers.

use llm::memory::MemoryBudget;
use llm::response::{Meter, PointedCount, Pointers, ResponseHead, Usage, UsagePointers};
use serde_json::{Value, json};
use std::sync::Arc;

fn found(pointers: &[&str], content_type: &str, body: &str, split: usize) -> Value {
    let pointers = Arc::new(Pointers::new(pointers.iter().map(|pointer| (*pointer).to_owned()).collect()));
    let head = ResponseHead { status: 200, content_type: content_type.into(), ..ResponseHead::default() };
    let mut meter = Meter::looking_for(&pointers, &head, &MemoryBudget::default());
    let (one, other) = body.as_bytes().split_at(split);
    meter.feed(one);
    meter.feed(other);
    Value::Object(meter.found().into_iter().collect())
}

#[test]
fn a_pointer_finds_what_serde_json_finds_wherever_the_body_is_split() {
    let document = json!({
        "usage": {"total": 19, "in": {"text": 7.0, "é": 3}, "details": [{"n": 1}, {"n": 2}, 5]},
        "text": "a \"quoted\" text", "yes": true, "nothing": null, "a/b": {"m~n": 4}, "0": "zero",
        "long": "x".repeat(100), "huge": 1e300, "negative": -5, "nested": [[1, 2], [3]],
    });
    let pointers = [
        "/usage/total",
        "/usage/in/text",
        "/usage/in/é",
        "/usage/details/1/n",
        "/usage/details/2",
        "/text",
        "/yes",
        "/nothing",
        "/a~1b/m~0n",
        "/0",
        "/huge",
        "/negative",
        "/nested/1/0",
        "/nested/0/1",
        "/usage/details/n",
        "/usage/details/3",
        "/usage/details/01/n",
        "/nowhere",
        "/usage",
    ];
    let single = |pointer: &&&str| document.pointer(pointer).is_some_and(|v| !v.is_null() && !v.is_object());
    let wanted: serde_json::Map<String, Value> = pointers
        .iter()
        .filter(single)
        .map(|pointer| ((*pointer).to_owned(), document.pointer(pointer).unwrap().clone()))
        .collect();
    assert_eq!(wanted.len(), 13);
    let body = document.to_string();
    for split in (0..=body.len()).filter(|at| body.is_char_boundary(*at)) {
        assert_eq!(
            found(&pointers, "application/json", &body, split),
            Value::Object(wanted.clone()),
            "{split}"
        );
    }
}

#[test]
fn over_a_stream_the_last_event_that_has_it_tells() {
    let pointers = ["/u/in", "/u/out"];
    let events = "data: {\"u\":{\"in\":5}}\n\ndata: {\"u\":null}\n\ndata: {\"u\":{\"out\":1}}\n\n\
        data: {\"u\":{\"out\":2,\"in\":null}}\n\ndata: [DONE]\n\n";
    for split in 0..=events.len() {
        assert_eq!(found(&pointers, "text/event-stream", events, split), json!({"/u/in": 5, "/u/out": 2}));
    }
    let lines = "{\"u\":{\"in\":5}}\n{\"u\":{\"out\":2}}\n";
    assert_eq!(found(&pointers, "application/x-ndjson", lines, 9), json!({"/u/in": 5, "/u/out": 2}));
    let array = "[{\"u\":{\"in\":5}},{\"u\":{\"out\":2}}]";
    assert_eq!(found(&pointers, "application/json", array, 9), json!({"/u/in": 5, "/u/out": 2}));
}

#[test]
fn what_is_no_json_has_no_values() {
    for body in ["", "hello", "{", "{\"a\":", "{\"a\":{\"b\":1}}", "{\"a\":[1]}", "<a>1</a>"] {
        assert_eq!(found(&["/a"], "application/json", body, 0), json!({}), "{body}");
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert_eq!(found(&["/a/b"], "application/json", &deep, 0), json!({}));
}

#[test]
fn a_zero_erases_no_earlier_value() {
    let body =
        "data: {\"u\":{\"in\":5,\"out\":\"7\"}}\n\ndata: {\"u\":{\"in\":0,\"out\":\"0\",\"cached\":0}}\n\n";
    let found = found(&["/u/in", "/u/out", "/u/cached"], "text/event-stream", body, 20);
    assert_eq!(found, json!({"/u/in": 5, "/u/out": "7", "/u/cached": 0}));
}

fn pairs(values: &Value) -> Vec<(String, Value)> {
    values.as_object().unwrap().clone().into_iter().collect()
}

#[test]
fn the_first_pointer_with_a_value_other_than_zero_counts() {
    let mut pointers = UsagePointers::default();
    for pointer in ["/a", "/b"] {
        pointers.add("total", pointer);
    }
    let usage = |values: Value, known, is_reported| {
        let usage = pointers.usage(&pairs(&values), known, is_reported);
        usage.map(|usage| usage.total)
    };
    let reported = Usage { input: 3, total: 3, ..Usage::default() };
    let delivered = Usage { input: 3, output: 4, total: 7, ..Usage::default() };
    assert_eq!(usage(json!({"/a": 5, "/b": 6}), reported, true), Some(5));
    assert_eq!(usage(json!({"/a": 0, "/b": "6"}), reported, true), Some(6));
    assert_eq!(usage(json!({"/a": true, "/b": -6}), reported, true), None);
    // A zero counts only if there is no sign that tokens were used.
    assert_eq!(usage(json!({"/a": 0}), reported, true), None);
    assert_eq!(usage(json!({"/a": 0}), delivered, false), None);
    assert_eq!(usage(json!({"/a": 0}), reported, false), Some(0));
    assert_eq!(usage(json!({}), Usage::default(), false), None);
}

#[test]
fn a_named_count_falls_back_to_the_known_usage() {
    let known = Usage { input: 10, output: 20, total: 31, cached: 4, ..Usage::default() };
    let value = |name: &str, pointers: &[&str], values: Value, is_cut| {
        let pointers = pointers.iter().map(|pointer| (*pointer).to_owned()).collect();
        PointedCount { name: name.to_owned(), pointers }.value(&pairs(&values), &known, is_cut)
    };
    let prompt = ["/usage/prompt_tokens", "/usage/input_tokens"];
    assert_eq!(value("a", &prompt, json!({"/usage/input_tokens": 2.5}), false), Some(2.5));
    assert_eq!(value("a", &prompt, json!({"/usage/input_tokens": 0}), false), Some(10.0));
    assert_eq!(value("a", &prompt, json!({}), false), Some(10.0));
    assert_eq!(value("a", &["/x", "/usageMetadata/candidatesTokenCount"], json!({}), false), Some(20.0));
    assert_eq!(value("cachedTokens", &["/x"], json!({}), false), Some(4.0));
    // Values from before a cut may be incomplete.
    assert_eq!(value("outputTokens", &["/x"], json!({"/x": 5}), true), Some(20.0));
    assert_eq!(value("outputTokens", &["/x"], json!({"/x": 50}), true), Some(50.0));
    // If the count's name is unknown, only its pointers give a value.
    assert_eq!(value("credits", &["/x"], json!({}), false), None);
    assert_eq!(value("credits", &["/x"], json!({"/x": 0}), true), Some(0.0));
    assert_eq!(value("credits", &["/x"], json!({"/x": "0.25"}), true), Some(0.25));
}
