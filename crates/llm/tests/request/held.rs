//! Compares the estimates for honest bodies in each dialect with the text that the test has put into them.

use crate::{read, weight};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Generates words.
fn text(most: usize) -> impl Strategy<Value = String> {
    (prop::sample::select(&["word ", "ä ö ü ", "# 漢 ", "a b\n"][..]), 0..most)
        .prop_map(|(words, times)| words.repeat(times))
}

/// An honest request: only text that a model reads, and settings.
#[derive(Clone, Debug)]
struct Talk {
    system: String,
    /// The turns of the user and the assistant, alternating.
    turns: Vec<String>,
    tools: Vec<Tool>,
    max: u64,
}

/// A name, a description, and the names and descriptions of parameters.
type Tool = (String, String, Vec<(String, String)>);

fn talk() -> impl Strategy<Value = Talk> {
    let tool = ("[a-z]{1,12}", text(30), prop::collection::vec(("[a-z]{1,12}", text(10)), 0..4));
    let turns = prop::collection::vec(text(200), 1..8);
    (text(100), turns, prop::collection::vec(tool, 0..4), 1u64..100_000)
        .prop_map(|(system, turns, tools, max)| Talk { system, turns, tools, max })
}

impl Talk {
    fn schema(parameters: &[(String, String)]) -> Value {
        let properties: Map<_, _> = parameters
            .iter()
            .map(|(name, description)| (name.clone(), json!({ "description": description })))
            .collect();
        json!({ "type": "object", "properties": properties })
    }

    /// Formats each tool with `render`, from its name, description and schema.
    fn tools(&self, render: impl Fn(&str, &str, Value) -> Value) -> Value {
        let tool = |(name, description, parameters): &(String, String, Vec<(String, String)>)| {
            render(name, description, Self::schema(parameters))
        };
        self.tools.iter().map(tool).collect()
    }

    /// Formats each turn with `render`, from its role and text.
    fn turns(&self, assistant: &str, render: impl Fn(&str, &str) -> Value) -> Value {
        let roles = ["user", assistant].into_iter().cycle();
        self.turns.iter().zip(roles).map(|(text, role)| render(role, text)).collect()
    }

    /// Formats the request in every dialect. Returns the path, the body, and the tools in it.
    fn written(&self) -> Vec<(&'static str, Value, Value)> {
        let function = |name: &str, description: &str, schema: Value| {
            let function = json!({ "name": name, "description": description, "parameters": schema });
            json!({ "type": "function", "function": function })
        };
        let plain = |role: &str, text: &str| json!({ "role": role, "content": text });
        let (system, max) = (&self.system, self.max);
        let openai = self.tools(function);
        let mut messages = vec![plain("system", system)];
        messages.extend(self.turns("assistant", plain).as_array().cloned().unwrap_or_default());
        let response = self.tools(|name, description, schema| {
            json!({ "type": "function", "name": name, "description": description, "parameters": schema })
        });
        let anthropic = self.tools(|name, description, schema| {
            json!({ "name": name, "description": description, "input_schema": schema })
        });
        let gemini = json!([{ "functionDeclarations": self.tools(|name, description, schema| {
            json!({ "name": name, "description": description, "parameters": schema })
        }) }]);
        let bedrock = self.tools(|name, description, schema| {
            let schema = json!({ "json": schema });
            json!({ "toolSpec": { "name": name, "description": description, "inputSchema": schema } })
        });
        let part =
            |role: &str, text: &str| json!({ "role": role, "content": [{ "type": "text", "text": text }] });
        vec![
            (
                "/v1/chat/completions",
                json!({ "model": "gpt-4o", "messages": messages, "tools": openai, "max_tokens": max }),
                openai.clone(),
            ),
            (
                "/v1/responses",
                json!({ "model": "gpt-4o", "instructions": system, "input": self.turns("assistant", plain),
                    "tools": response, "max_output_tokens": max }),
                response,
            ),
            (
                "/v1/messages",
                json!({ "model": "claude", "system": [{ "type": "text", "text": system }],
                    "messages": self.turns("assistant", part), "tools": anthropic, "max_tokens": max }),
                anthropic,
            ),
            (
                "/v1beta/models/g:generateContent",
                json!({ "systemInstruction": { "parts": [{ "text": system }] },
                    "contents": self.turns("model", |role, text| json!({ "role": role, "parts": [{ "text": text }] })),
                    "tools": gemini, "generationConfig": { "maxOutputTokens": max } }),
                gemini,
            ),
            (
                "/model/m/converse",
                json!({ "system": [{ "text": system }],
                    "messages": self.turns("assistant", |role, text| json!({ "role": role, "content": [{ "text": text }] })),
                    "toolConfig": { "tools": bedrock }, "inferenceConfig": { "maxTokens": max } }),
                bedrock,
            ),
            (
                "/v2/chat",
                json!({ "model": "command", "messages": messages, "tools": openai, "max_tokens": max }),
                openai.clone(),
            ),
            (
                "/api/chat",
                json!({ "model": "llama3", "messages": messages, "tools": openai, "options": { "num_predict": max } }),
                openai,
            ),
        ]
    }

    /// Returns the number of characters in the conversation.
    fn characters(&self) -> u64 {
        weight(&self.system) + self.turns.iter().map(|turn| weight(turn)).sum::<u64>()
    }
}

/// Returns the weight of all keys and strings of a tool.
fn all(value: &Value) -> u64 {
    match value {
        Value::String(text) => weight(text),
        Value::Array(items) => items.iter().map(all).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| weight(key) + all(value)).sum(),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn honest_bodies_are_held_exactly(talk in talk()) {
        for (path, body, tools) in talk.written() {
            let request = read(path, body.to_string());
            let characters = talk.characters() + all(&tools);
            let input = if characters == 0 { 0 } else { (characters / 4).max(1) };
            prop_assert_eq!((request.input, request.output(1024)), (input, talk.max), "{} {}", path, body);
        }
    }
}
