//! Any request can be read, and an edit changes only its target.

use crate::{CHAT, difference, read};
use llm::request::{Condition, edit};
use proptest::prelude::*;
use serde_json::{Value, json};

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        CHAT,
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1beta/models/g:generateContent",
        "/model/m/converse",
        "/model/meta.llama3/invoke",
        "/api/chat",
        "/v2/chat",
        "/generate",
        "/elsewhere",
    ])
}

/// Relevant and irrelevant keys.
fn key() -> impl Strategy<Value = String> {
    let names = [
        "stream",
        "stream_options",
        "include_usage",
        "messages",
        "content",
        "model",
        "max_tokens",
        "n",
        "max_completion_tokens",
        "generationConfig",
        "maxOutputTokens",
        "inferenceConfig",
        "options",
        "num_predict",
        "metadata",
        "session_id",
        "image",
        "source",
        "data",
        "prompt",
        "type",
    ];
    prop_oneof![4 => prop::sample::select(names.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        (1u64..100).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            object(inner).prop_map(Value::from),
        ]
    })
}

fn object(values: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    prop::collection::hash_map(key(), values, 0..6).prop_map(|members| members.into_iter().collect())
}

/// Generates a body, sometimes streaming, sometimes with options.
fn body() -> impl Strategy<Value = Value> {
    (object(value()), any::<Option<bool>>(), prop::option::of(value())).prop_map(
        |(mut body, stream, options)| {
            if let Some(stream) = stream {
                body.insert("stream".into(), stream.into());
            }
            if let Some(options) = options {
                body.insert("stream_options".into(), options);
            }
            body.into()
        },
    )
}

/// Formats a value with whitespace and escapes in all places where JSON allows them.
fn render(value: &Value, dice: &mut impl FnMut() -> u8) -> String {
    let space = |dice: &mut dyn FnMut() -> u8| ["", "", " ", "\n\t", "\r\n  "][usize::from(dice() % 5)];
    let string = |text: &str, dice: &mut dyn FnMut() -> u8| {
        let escaped = text.chars().map(|c| match c {
            '"' | '\\' | '\0'..='\u{1f}' => format!("\\u{:04x}", u32::from(c)),
            _ if dice().is_multiple_of(6) => {
                c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04X}")).collect()
            }
            c => c.to_string(),
        });
        format!("\"{}\"", escaped.collect::<String>())
    };
    let text = match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| render(item, dice)).collect();
            format!("[{}{}]", space(dice), items.join(","))
        }
        Value::Object(members) => {
            let mut pairs = Vec::new();
            for (key, value) in members {
                pairs.push(format!(
                    "{}{}{}:{}",
                    space(dice),
                    string(key, dice),
                    space(dice),
                    render(value, dice)
                ));
            }
            format!("{{{}{}}}", pairs.join(","), space(dice))
        }
        Value::String(text) => string(text, dice),
        other => other.to_string(),
    };
    format!("{}{text}{}", space(dice), space(dice))
}

fn text() -> impl Strategy<Value = (Value, String)> {
    (body(), prop::collection::vec(any::<u8>(), 64)).prop_map(|(body, dice)| {
        let mut dice = dice.into_iter().cycle();
        let text = render(&body, &mut || dice.next().unwrap());
        (body, text)
    })
}

/// Sets the value at a path, creating missing objects.
fn put(body: &Value, path: &[&str], value: Value) -> Value {
    let mut body = body.clone();
    let mut at = &mut body;
    for name in path {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*name];
    }
    *at = value;
    body
}

/// Returns the text of `stream_options`.
fn options(text: &str) -> Option<&str> {
    let members: std::collections::HashMap<String, &serde_json::value::RawValue> =
        serde_json::from_str(text).unwrap();
    members.get("stream_options").map(|value| value.get())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_bytes_are_read_and_left_alone(bytes in prop::collection::vec(any::<u8>(), 0..200), path in path()) {
        let request = read(path, &bytes);
        prop_assert_eq!(edit::ask_for_usage(&request, &bytes), Ok(edit::UsageRequest::default()));
        prop_assert!(!matches!(edit::cap_output(&request, &bytes, 9), Ok(Some(_))));
        prop_assert!(request.completions >= 1 && request.max_output != Some(0));
    }

    #[test]
    fn what_is_almost_json_is_read_and_left_alone(
        (_, text) in text(), at in any::<prop::sample::Index>(), byte in any::<u8>(), path in path(),
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let request = read(path, &bytes);
        let valid = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
        let usage = edit::ask_for_usage(&request, &bytes).unwrap_or_default();
        let capped = edit::cap_output(&request, &bytes, 9).unwrap_or_default();
        for edited in [usage.body, capped].into_iter().flatten() {
            // If a parser accepts the original, it accepts the edited text, too.
            let still_valid = serde_json::from_slice::<serde::de::IgnoredAny>(&edited).is_ok();
            prop_assert!(still_valid || !valid);
        }
    }

    #[test]
    fn usage_is_asked_for_and_nothing_else_changes((body, text) in text(), path in path()) {
        let request = read(path, text.as_bytes());
        let usage = edit::ask_for_usage(&request, text.as_bytes()).unwrap();
        let applies = request.stream && [CHAT, "/v1/completions"].contains(&path);
        let asked = body["stream_options"]["include_usage"] == true;
        prop_assert_eq!(usage.body.is_some(), applies && !asked);
        let Some(edited) = usage.body else { return Ok(()) };
        let value: Value = serde_json::from_slice(&edited).unwrap();
        prop_assert_eq!(value, put(&body, &["stream_options", "include_usage"], true.into()));
        // Everything except the edited value is unchanged.
        let (_, old, new) = difference(text.as_bytes(), &edited);
        let longest = r#""stream_options":{"include_usage":true},"#.len();
        prop_assert!(new.len() <= longest && old.len() <= options(&text).map_or(0, |options| options.len()));
    }

    #[test]
    fn an_output_is_capped_and_nothing_else_changes((body, text) in text(), cap in 1u64..100_000) {
        let request = read("/v1/responses", text.as_bytes());
        let capped = edit::cap_output(&request, text.as_bytes(), cap).unwrap();
        prop_assert_eq!(capped.is_some(), request.max_output.is_none());
        let Some(edited) = capped else { return Ok(()) };
        let value: Value = serde_json::from_slice(&edited).unwrap();
        let each = (cap / request.completions).max(1);
        prop_assert_eq!(value, put(&body, &["max_output_tokens"], each.into()));
        prop_assert_eq!(read("/v1/responses", &edited).max_output, Some(each));
    }

    #[test]
    fn a_nested_field_is_set_and_nothing_else_changes((body, text) in text(), cap in 1u64..100_000) {
        let path = "/v1beta/models/g:generateContent";
        let request = read(path, text.as_bytes());
        let Some(edited) = edit::cap_output(&request, text.as_bytes(), cap).unwrap() else { return Ok(()) };
        let value: Value = serde_json::from_slice(&edited).unwrap();
        let each = (cap / request.completions).max(1);
        prop_assert_eq!(value, put(&body, &["generationConfig", "maxOutputTokens"], each.into()));
    }

    #[test]
    fn the_facts_do_not_depend_on_how_json_is_written((body, text) in text(), path in path()) {
        let plain = read(path, body.to_string().as_bytes());
        let mut written = read(path, text.as_bytes());
        if plain.condition == Condition::Silent {
            written.input = plain.input;
        }
        prop_assert_eq!(plain, written);
    }
}
