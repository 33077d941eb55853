//! The corpus of bad policies: each file has one mistake, and what it is told is in the snapshot, since operators
//! act on these words.

use policy::model::Policy;
use policy::validation_error::ValidationError;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn corpus() -> std::io::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn told(mistakes: &[ValidationError]) -> String {
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

#[test]
fn each_bad_policy_is_told_its_one_mistake() {
    let mut all = String::new();
    for file in corpus().expect("the corpus") {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let yaml = std::fs::read_to_string(&file).expect("a file");
        let document: Value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mistakes = Policy::read(&document).err().unwrap_or_default();
        assert_eq!(mistakes.len(), 1, "{name} has one mistake: {mistakes:#?}");
        write!(all, "{name}\n  {}", told(&mistakes)).expect("text");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_reference() {
    let document = json!({
        "apiVersion": "weir.dev/v2",
        "kind": "TokenRateLimitPolicy",
        "metadata": {"namespace": "A"},
        "spec": {
            "targetRef": {"kind": "Service", "name": ""},
            "when": [{"predicate": ""}, {"predicate": 1}],
            "limits": {
                "a b": {
                    "rates": [
                        {"limit": -1, "window": "1x"},
                        {"limit": 1, "window": "1h"},
                        {"limit": 2, "window": "60m"},
                        {"unit": "usd", "limit": "1.00"},
                    ],
                    "counters": [{}, {"expression": "request.path"}, {"expression": "request.path"}],
                    "reservation": {"amount": "", "ttl": "soon"},
                    "outputCap": "None",
                },
                "free": {},
            },
            "failureMode": "Maybe",
            "onExceeded": {},
        },
    });
    insta::assert_snapshot!(told(&Policy::read(&document).expect_err("mistakes")));
}
