//! For any body, the estimate covers at least half of the text that the most generous reader could find in
//! it.

use crate::{CHAT, read};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// The number of free characters: those in tags, names and known keys, and those in metadata.
const FREE: u64 = 4096 + (16 << 10);
/// The maximum number of other characters per held token: half of them count, at four characters per token.
const PART: u64 = 8;

const PATHS: [&str; 12] = [
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
];

/// Keys that lead to known places, and some that do not.
fn key() -> impl Strategy<Value = String> {
    let names = [
        "messages",
        "content",
        "role",
        "name",
        "type",
        "text",
        "model",
        "modelId",
        "user",
        "metadata",
        "session_id",
        "user_id",
        "tools",
        "function",
        "description",
        "parameters",
        "tool_calls",
        "arguments",
        "id",
        "tool_call_id",
        "image_url",
        "url",
        "image",
        "images",
        "source",
        "data",
        "media_type",
        "format",
        "document",
        "file",
        "file_id",
        "file_data",
        "inlineData",
        "mimeType",
        "input_audio",
        "prompt",
        "input",
        "inputs",
        "system",
        "contents",
        "parts",
        "response_format",
        "reasoning",
        "stream",
        "stream_options",
        "max_tokens",
        "n",
        "stop",
        "generationConfig",
        "maxOutputTokens",
        "toolConfig",
        "conversation",
        "container",
        "previous_response_id",
        "detail",
        "MODEL",
        "Max_Tokens",
        "background",
        "variables",
        "version",
        "instances",
        "options",
        "s3Location",
        "uri",
        "",
    ];
    prop_oneof![8 => prop::sample::select(names.to_vec()).prop_map(str::to_owned), 1 => "[a-z ]{1,60}"]
}

/// Generates prose, which is mostly short.
fn prose() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "weir ",
        "a low wall, ",
        "n\u{e4}mlich ",
        "\u{1f600} ",
        "\"quoted\" ",
        "\\ ",
    ]);
    prop_oneof![
        (words.clone(), 0usize..8).prop_map(|(word, times)| word.repeat(times)),
        (words, 100usize..6000).prop_map(|(word, times)| word.repeat(times)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i16>().prop_map(Value::from)],
        4 => prose().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

fn body() -> impl Strategy<Value = Value> {
    prop::collection::vec((key(), value()), 0..8)
        .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into())
}

/// Returns all characters of all strings and keys.
fn characters(value: &Value) -> u64 {
    let of = crate::weight;
    match value {
        Value::String(text) => of(text),
        Value::Array(items) => items.iter().map(characters).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| of(key) + characters(value)).sum(),
        _ => 0,
    }
}

/// Returns the number of objects in a value.
fn object<'v>(value: &'v mut Value, number: &mut usize) -> Option<&'v mut Map<String, Value>> {
    match value {
        Value::Object(members) => {
            if *number == 0 {
                return Some(members);
            }
            *number -= 1;
            members.values_mut().find_map(|value| object(value, number))
        }
        Value::Array(items) => items.iter_mut().find_map(|value| object(value, number)),
        _ => None,
    }
}

fn objects(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(objects).sum::<usize>(),
        Value::Array(items) => items.iter().map(objects).sum(),
        _ => 0,
    }
}

/// Reverses the members of all objects.
fn render(value: &Value, order: u64) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| render(item, order)).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let mut pairs: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), render(value, order)))
                .collect();
            let turn = usize::try_from(order).unwrap() % pairs.len().max(1);
            pairs.rotate_left(turn);
            if order % 2 == 1 {
                pairs.reverse();
            }
            format!("{{{}}}", pairs.join(","))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_fair_part_of_all_text_counts(body in body(), path in prop::sample::select(PATHS.to_vec())) {
        let read = read(path, body.to_string());
        let least = characters(&body).saturating_sub(FREE) / PART;
        prop_assert!(read.input >= least, "{} < {least}", read.input);
    }

    #[test]
    fn more_text_never_costs_less(
        body in body(), path in prop::sample::select(PATHS.to_vec()),
        at in any::<prop::sample::Index>(), more in prose(),
    ) {
        let before = read(path, body.to_string()).input;
        let mut body = body;
        let mut number = at.index(objects(&body));
        if let Some(members) = object(&mut body, &mut number) {
            members.insert("what nobody knows".to_owned(), more.into());
        }
        prop_assert!(read(path, body.to_string()).input >= before);
    }

    #[test]
    fn the_order_of_keys_changes_nothing(
        body in body(), path in prop::sample::select(PATHS.to_vec()), order in 0u64..8,
    ) {
        let plain = read(path, body.to_string());
        let turned = read(path, render(&body, order));
        prop_assert_eq!((plain.input, plain.output(9)), (turned.input, turned.output(9)));
    }

    #[test]
    fn a_repeated_key_counts_with_its_largest_reading(
        key in key(), one in value(), other in value(), path in prop::sample::select(PATHS.to_vec()),
    ) {
        let both = format!("{{{key}:{one},{key}:{other}}}", key = Value::from(key.as_str()));
        let both = read(path, both);
        for alone in [&one, &other] {
            let alone = read(path, json!({ key.as_str(): alone }).to_string());
            if alone.condition == both.condition && alone.operation == both.operation {
                prop_assert!(both.input >= alone.input && both.output(9) >= alone.output(9));
            }
        }
    }
}
