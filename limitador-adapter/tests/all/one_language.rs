//! The API server's schema and the reader accept the same language: each one knows every field, word and
//! bound that the other knows. The test walks the schema and gives the reader a wrong value at each place.

use limitador_adapter::kubernetes::crd::{Group, definition};
use policy::model::Policy;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The path of a value, as the reader writes it: `spec.limits.free.rates[0].unit`.
#[derive(Clone)]
struct Path(Vec<Part>);

#[derive(Clone)]
enum Part {
    Field(String),
    First,
}

impl Path {
    fn field(&self, name: &str) -> Self {
        self.with(Part::Field(name.to_owned()))
    }

    fn with(&self, part: Part) -> Self {
        Self(self.0.iter().cloned().chain([part]).collect())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Field(name) if text.is_empty() => text.push_str(name),
                Part::Field(name) => text.extend([".", name]),
                Part::First => text.push_str("[0]"),
            }
        }
        text
    }

    /// Returns a policy with this value at that path.
    fn policy(&self, value: Value) -> Value {
        let mut policy = json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "TokenRateLimitPolicy",
            "metadata": {"name": "p"},
            "spec": {"targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}},
        });
        let mut at = &mut policy;
        for part in &self.0 {
            at = match part {
                Part::Field(name) => {
                    if !at.is_object() {
                        *at = Value::Object(Map::new());
                    }
                    &mut at[name.as_str()]
                }
                Part::First => {
                    *at = json!([null]);
                    &mut at[0]
                }
            };
        }
        *at = value;
        policy
    }

    /// Returns the reader's message about this value at that path.
    fn errors(&self, value: Value) -> Vec<String> {
        let path = self.text();
        let errors = Policy::read(&self.policy(value)).err().unwrap_or_default();
        errors.into_iter().filter(|error| error.path == path).map(|error| error.message).collect()
    }
}

/// Returns the names in a message, which are in backticks.
fn names(message: &str) -> BTreeSet<String> {
    message.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn walk(schema: &Value, at: &Path, visited: &mut usize, differences: &mut Vec<String>) {
    *visited += 1;
    let mut differ = |what: String| differences.push(format!("{}: {what}", at.text()));
    if let Some(properties) = schema["properties"].as_object() {
        let unknown = at.field("zzzzzzzz");
        let errors: Vec<_> = Policy::read(&at.policy(json!({"zzzzzzzz": 1}))).err().unwrap_or_default();
        let told = errors.iter().find(|error| error.path == unknown.text());
        let read = told.map(|error| names(&error.message)).unwrap_or_default();
        let in_schema: BTreeSet<String> = properties.keys().cloned().collect();
        if read != in_schema {
            differ(format!("the schema has {in_schema:?}, the reader {read:?}"));
        }
        for (name, schema) in properties {
            walk(schema, &at.field(name), visited, differences);
        }
        return;
    }
    if let Some(words) = schema["enum"].as_array() {
        let in_schema: BTreeSet<String> = words.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let read: BTreeSet<String> = at.errors(json!("Zzz")).iter().flat_map(|error| names(error)).collect();
        let read: BTreeSet<String> = read.into_iter().filter(|word| word != "Zzz").collect();
        if read != in_schema {
            differ(format!("the schema has the words {in_schema:?}, the reader {read:?}"));
        }
        return;
    }
    let refuses = |value: Value| !at.errors(value).is_empty();
    for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
        if let Some(bound) = schema[bound].as_i64()
            && (refuses(json!(bound)) || !refuses(json!(bound + beyond)))
        {
            differ(format!("the schema has the bound {bound}, the reader has not"));
        }
    }
    match schema["type"].as_str() {
        // A schema without a type accepts a number or a string.
        None | Some("string" | "integer" | "number" | "boolean") => {
            if !refuses(json!([[]])) {
                differ("the reader takes a list where the schema has none".to_owned());
            }
            if schema["minLength"] == 1 && !refuses(json!("")) {
                differ("the reader takes an empty text".to_owned());
            }
        }
        Some("array") => {
            if !refuses(json!("x")) {
                differ("the reader takes a text where the schema has a list".to_owned());
            }
            if schema["minItems"] == 1 && !refuses(json!([])) {
                differ("the reader takes an empty list".to_owned());
            }
            walk(&schema["items"], &at.with(Part::First), visited, differences);
        }
        Some("object") => {
            if !refuses(json!("x")) {
                differ("the reader takes a text where the schema has a map".to_owned());
            }
            walk(&schema["additionalProperties"], &at.field("free"), visited, differences);
        }
        Some(other) => differ(format!("an unknown type, {other}")),
    }
}

#[test]
fn the_schema_and_the_reader_know_the_same_fields_words_and_bounds() {
    let definition = serde_json::to_value(definition(Group::Weir).unwrap()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let (mut visited, mut differences) = (0, Vec::new());
    walk(spec, &Path(vec![Part::Field("spec".to_owned())]), &mut visited, &mut differences);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(visited > 50, "{visited}");
}
