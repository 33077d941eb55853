//! The corpus of bad policies. Each file has one error. The `.expected` file has the error's message, because
//! operators rely on its text.

use policy::model::Policy;
use policy::validation_error::ValidationError;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn corpus(extension: &str) -> std::io::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|is| is == extension));
    files.sort();
    Ok(files)
}

fn told(mistakes: &[ValidationError]) -> String {
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

/// After an intended change of a message, run `UPDATE_EXPECT=1 cargo test -p policy --test mistakes` and
/// review the diff.
#[test]
fn each_bad_policy_is_refused_with_its_one_error() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for file in corpus("yaml").expect("the corpus") {
        let name = file.display();
        let yaml = std::fs::read_to_string(&file).expect("a file");
        let document: Value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mistakes = Policy::read(&document).err().unwrap_or_default();
        assert_eq!(mistakes.len(), 1, "{name} has one mistake: {mistakes:#?}");
        let (now, expected) = (told(&mistakes), file.with_extension("expected"));
        if update {
            std::fs::write(&expected, now).expect("a file that can be written");
        } else if let wanted = std::fs::read_to_string(&expected).unwrap_or_default()
            && wanted != now
        {
            wrong.push(format!("{name}:\n  expected {wanted}  but got  {now}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for file in corpus("expected").expect("the corpus") {
        assert!(file.with_extension("yaml").exists(), "{} is about no policy", file.display());
    }
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
