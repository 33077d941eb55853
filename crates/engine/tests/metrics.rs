//! Every metric is where an operator looks for it.

use std::collections::BTreeSet;
use std::path::Path;

/// What begins as our metrics do.
fn names(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        rest[..end].to_owned()
    };
    text.match_indices("weir_").map(|(at, _)| word(&text[at..])).collect()
}

#[test]
fn every_metric_of_the_filter_is_told_to_operators() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let told = names(&read("manifests/envoy/README.md"));
    let counted = [names(&read("crates/engine/src/metric.rs")), names(&read("filter/src/metrics.rs"))];
    let untold: Vec<_> = counted.iter().flatten().filter(|name| !told.contains(*name)).collect();
    assert!(untold.is_empty(), "manifests/envoy/README.md does not tell of {untold:?}");
}
