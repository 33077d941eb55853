//! The examples in `check` and `explain`: why a limit applies, what it holds and what it charges.

use crate::binary::{adapter, told};
use e2e::artefacts;

/// Each example and the user who sends its request.
const EXAMPLES: [(&str, &str); 8] = [
    ("cheaper-model", "alice"),
    ("hierarchy", "ana"),
    ("jac-scale", "alice"),
    ("kuadrant", "alice"),
    ("litellm", "key"),
    ("per-user-requests", "alice"),
    ("truefoundry", "bob"),
    ("two-limits", "alice"),
];

fn run(arguments: &[&str]) -> String {
    let root = artefacts::root();
    told(&adapter().args(arguments).current_dir(&root).output().unwrap(), &root)
}

#[test]
fn every_example_is_explained() {
    let folders = std::fs::read_dir(artefacts::root().join("examples")).unwrap();
    let mut names: Vec<_> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "people");
    names.sort();
    assert_eq!(names, EXAMPLES.map(|(name, _)| name));
    for (name, who) in EXAMPLES {
        let file = |file: &str| format!("examples/{name}/{file}");
        let envoy = std::fs::read_to_string(artefacts::root().join(file("envoy.yaml"))).unwrap();
        let (policy, identity) = (file("policy.yaml"), format!("examples/people/{who}.json"));
        let (request, response) = (file("request.http"), file("response.http"));
        let mut arguments = vec!["explain", "--policies", &policy, "--identity", &identity];
        arguments.extend(["--request", &request, "--response", &response]);
        arguments.extend(envoy.contains("access: Buffer").then_some("--reads-bodies"));
        insta::assert_snapshot!(format!("explained_{name}"), run(&arguments));
    }
}

#[test]
fn every_example_is_good() {
    let policies = EXAMPLES.map(|(name, _)| format!("examples/{name}/policy.yaml"));
    let arguments = [vec!["check"], policies.iter().map(String::as_str).collect()].concat();
    insta::assert_snapshot!(run(&arguments));
}
