//! The committed definitions match the Rust types.

use limitador_adapter::kubernetes::crd::{Group, definition};
use limitador_adapter::policies::yaml;
use std::path::Path;

#[test]
fn the_committed_definitions_are_up_to_date() {
    for (group, file) in [
        (Group::Weir, "tokenratelimitpolicies.yaml"),
        (Group::Kuadrant, "kuadrant/tokenratelimitpolicies.yaml"),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds").join(file);
        let committed = std::fs::read_to_string(&path).unwrap();
        let now = yaml::render(&definition(group).unwrap()).unwrap();
        assert!(committed == now, "{} is not what the types give: run `make crds`", path.display());
    }
}

/// Argo CD reports drift if the API server stores more than was applied.
#[test]
fn the_definitions_write_nothing_into_what_is_applied() {
    fn walk(schema: &serde_json::Value, is_schema: bool) {
        let Some(members) = schema.as_object() else { return };
        assert!(
            !(is_schema && members.contains_key("default")),
            "a default is written into policies: {schema}"
        );
        members.iter().for_each(|(key, value)| walk(value, !(is_schema && key == "properties")));
    }
    for group in [Group::Weir, Group::Kuadrant] {
        let definition = serde_json::to_value(definition(group).unwrap()).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert!(schema["properties"]["spec"].is_object());
        walk(&schema["properties"]["spec"], true);
    }
}
