use crate::{code, codes, head, page};
use limitador_adapter::kubernetes::crd::{Group, definition};
use policy::model::{
    Boundary, DEFAULT_TTL, FailureMode, OnLapse, OnMissing, Overrun, Policy, QuotaHeaders, Strategy,
    StreamUsage, Unit, WebSocketMode, ZoneName,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Policies that use every field.
const EXAMPLES: &str = include_str!("examples.yaml");

/// Returns the default of an optional field. Other fields are absent by default.
fn default(path: &str) -> Option<String> {
    let word = |word: &dyn std::fmt::Debug| Some(code(&format!("{word:?}")));
    let (_, field) = path.rsplit_once('.')?;
    match field {
        "failureMode" => word(&FailureMode::default()),
        "overrun" => word(&Overrun::default()),
        "onLapse" => word(&OnLapse::default()),
        "boundary" => word(&Boundary::default()),
        "onMissing" => word(&OnMissing::default()),
        "streamUsage" => word(&StreamUsage::default()),
        "webSocket" => word(&WebSocketMode::default()),
        "quotaHeaders" => word(&QuotaHeaders::default()),
        "strategy" => Some(code(&format!("{:?}", Strategy::default()).to_lowercase())),
        "unit" => Some(code(Unit::default().name())),
        "lease" => Some(code("Auto")),
        "outputCap" => Some(code("None")),
        "enforceWhen" => Some(code("true")),
        "ttl" => Some(code(&format!("{}m", DEFAULT_TTL.as_secs() / 60))),
        "windowType" => Some(code("Fixed")),
        "timeZone" => Some(code(ZoneName::UTC_NAME)),
        "maxShare" => Some(code("100%")),
        "amount" => Some("the estimate".into()),
        "counters" => Some("one bucket".into()),
        "enabled" | "includeDetails" => Some(code("false")),
        "status" => Some(code("429")),
        "cachedInput" | "cacheWrite" => Some(code("input")),
        "cacheWrite1h" => Some(code("cacheWrite")),
        _ => None,
    }
}

struct Reference {
    text: String,
    examples: BTreeMap<String, String>,
    missing: Vec<String>,
}

fn documents() -> Vec<Value> {
    let documents = EXAMPLES.split("\n---\n");
    documents.map(|document| serde_saphyr::from_str(document).expect("an example is YAML")).collect()
}

/// Returns the first value at each path, formatted on one line.
fn collect(
    value: &Value,
    path: &str,
    is_map: &dyn Fn(&str) -> bool,
    examples: &mut BTreeMap<String, String>,
) {
    examples.entry(path.to_owned()).or_insert_with(|| match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => value.to_string(),
        Value::Object(_) | Value::Array(_) => String::new(),
        other => other.to_string(),
    });
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = if is_map(path) { "NAME" } else { name };
                collect(value, &format!("{path}.{name}"), is_map, examples);
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| collect(item, &format!("{path}[]"), is_map, examples))
        }
        _ => {}
    }
}

fn kind(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return codes(words.iter().filter_map(Value::as_str));
    }
    if schema["description"].as_str().is_some_and(|about| about.contains("A CEL expression")) {
        return "CEL".into();
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some("object") if schema["additionalProperties"]["type"] == "string" => "map of strings".into(),
        Some("object") if schema["additionalProperties"]["type"] == "array" => {
            "map of lists of strings".into()
        }
        Some("object") if schema["additionalProperties"].is_object() => "map of objects".into(),
        Some(kind) => kind.into(),
        None => "integer or string".into(),
    }
}

fn constraints(schema: &Value) -> String {
    let bound = |name: &str| schema[name].as_u64();
    let range = |least: Option<u64>, most: Option<u64>, what: &str| match (least, most) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{what}")),
        (None, Some(most)) => Some(format!("at most {most}{what}")),
        (Some(least), None) => Some(format!("at least {least}{what}")),
        (None, None) => None,
    };
    let all: Vec<String> = [
        range(bound("minimum"), bound("maximum"), ""),
        range(bound("minLength"), bound("maxLength"), " characters"),
        range(bound("minItems"), bound("maxItems"), " items"),
        range(bound("minProperties"), bound("maxProperties"), " entries"),
        schema["pattern"].as_str().map(|pattern| format!("matches `{pattern}`")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let errors: Vec<String> = rules(schema).iter().map(|rule| format!("\"{rule}\"")).collect();
    let bounds = if all.is_empty() { String::new() } else { format!(" *Bounds: {}.*", all.join("; ")) };
    let errors = if errors.is_empty() { String::new() } else { format!(" *Errors: {}.*", errors.join("; ")) };
    bounds + &errors
}

fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["message"].as_str()).map(str::to_owned).collect()
}

/// Returns the object that a field leads to, and the path of its fields.
fn inner<'s>(schema: &'s Value, path: &str) -> Option<(&'s Value, String)> {
    match schema["type"].as_str() {
        Some("object") if schema["properties"].is_object() => Some((schema, path.to_owned())),
        Some("object") => inner(&schema["additionalProperties"], &format!("{path}.NAME")),
        Some("array") => inner(&schema["items"], &format!("{path}[]")),
        _ => None,
    }
}

impl Reference {
    fn object(&mut self, schema: &Value, path: &str) {
        self.text += &format!("\n## `{path}`\n\n");
        let rules = rules(schema);
        if !rules.is_empty() {
            self.text += "The API server refuses an object that violates one of these rules:\n\n";
            rules.iter().for_each(|rule| self.text += &format!("- {rule}\n"));
            self.text.push('\n');
        }
        self.text += "| Field | Type | Default | Example | Meaning |\n|---|---|---|---|---|\n";
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object().expect("an object has properties");
        for (name, field) in properties {
            let at = format!("{path}.{name}");
            let Some(example) = self.examples.get(&at) else {
                self.missing.push(at);
                continue;
            };
            let default =
                if required.contains(&name.as_str()) { Some("required".into()) } else { default(&at) };
            let mut about = field["description"].as_str().unwrap_or_default().to_owned();
            about += &constraints(field);
            let cells = [code(name), kind(field), default.unwrap_or_default(), code(example), about];
            let cells: Vec<_> =
                cells.into_iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
            self.text += &format!("| {} |\n", cells.join(" | "));
        }
        for (name, field) in properties {
            if let Some((schema, path)) = inner(field, &format!("{path}.{name}")) {
                // `defaults` and `overrides` have the same limits as `limits`.
                let is_known = path.starts_with("spec.overrides") || path.starts_with("spec.defaults.");
                if !is_known {
                    self.object(schema, &path);
                }
            }
        }
    }
}

#[test]
fn the_page_of_the_policy_s_fields() {
    let definition = serde_json::to_value(definition(Group::Weir).unwrap()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut examples = BTreeMap::new();
    let is_map = |path: &str| path.ends_with(".limits") || path.ends_with(".headers");
    documents().iter().for_each(|document| collect(&document["spec"], "spec", &is_map, &mut examples));
    let text = head(
        "TokenRateLimitPolicy",
        "Every field of `weir.dev/v1alpha1`. Policies of `kuadrant.io/v1alpha1` have the same fields. `spec.defaults.limits` and \
         `spec.overrides.limits` have the fields of `spec.limits`. [Facts](facts.md), [expressions](expressions.md) and \
         [units](units.md) have separate pages.\n\n\
         - A duration is up to four numbers of up to five digits, each with a unit: `ms`, `s`, `m`, `h`, `d` or `w`.\n\
         - Two rates of one limit may not count the same unit over the same window.\n",
    );
    let mut reference = Reference { text, examples, missing: Vec::new() };
    reference.object(spec, "spec");
    assert!(reference.missing.is_empty(), "examples.yaml lacks {:?}", reference.missing);
    let text = reference.text
        + &format!(
            "\n## Examples\n\nThese policies use every field once.\n\n```yaml\n{}\n```\n",
            EXAMPLES.trim()
        );
    page("reference/policy.md", &text);
}

#[test]
fn the_examples_are_good_policies() {
    for document in documents() {
        Policy::read_in_cluster(&document).unwrap_or_else(|errors| panic!("{errors:?}"));
    }
}
