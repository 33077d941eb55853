//! The definitions that are committed are those that the types give.

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
