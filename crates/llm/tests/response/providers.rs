//! Every provider has a file, a row, and an example of its responses.

use std::fs;
use std::path::Path;

/// Returns the names of a folder's entries without their extensions.
fn names(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_string_lossy().into_owned();
    entries.map(|entry| name(entry.unwrap())).collect()
}

/// The files with a `PROVIDER`. `unknown` has none.
fn providers() -> Vec<String> {
    let mut names = names("src/providers");
    names.retain(|name| name != "mod" && name != "unknown");
    names
}

#[test]
fn every_provider_has_its_row() {
    let table =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/providers/mod.rs")).unwrap();
    for name in providers() {
        // Without a `mod` line, the compiler ignores the file.
        assert!(table.contains(&format!("\nmod {name};")), "`mod {name};` is missing in providers/mod.rs");
        let row = format!("&{name}::PROVIDER,");
        assert!(table.contains(&row), "`{row}` is missing in PROVIDERS");
    }
}

#[test]
fn every_provider_has_an_example() {
    let folders = ["tests/requests", "tests/responses", "../../e2e/metering"];
    let examples: Vec<_> = folders.into_iter().flat_map(names).map(|name| name.replace('-', "")).collect();
    for name in providers() {
        let spelled = name.replace('_', "");
        assert!(
            examples.iter().any(|example| example.contains(&spelled)),
            "no request, response or exchange is named after {name}: {folders:?}"
        );
    }
}
