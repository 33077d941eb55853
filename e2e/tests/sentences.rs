//! Compares `e2e/scenarios/SENTENCES.md` with the stories and tests that it names. A story, a test or an
//! explanation must cover every sentence.

use e2e::artefacts;
use e2e::scenario::Story;
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The number of sentences in each source.
const SOURCES: [(&str, usize); 13] = [
    ("J", 26),
    ("K", 15),
    ("KT", 7),
    ("S", 14),
    ("T", 15),
    ("L", 72),
    ("A", 25),
    ("B", 7),
    ("M", 13),
    ("G", 5),
    ("F", 11),
    ("P", 21),
    ("R", 7),
];

/// One row of a table.
struct Sentence {
    id: String,
    cell: String,
}

fn table() -> Vec<Sentence> {
    let file = artefacts::root().join("e2e/scenarios/SENTENCES.md");
    let row = Regex::new(r"(?m)^\| ([A-Z]+[0-9]+) \| [^|]+ \|([^|]*)\|$").unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let sentence =
        |found: regex::Captures<'_>| Sentence { id: found[1].into(), cell: found[2].trim().into() };
    row.captures_iter(&text).map(sentence).collect()
}

/// Returns the stories that declare each sentence in `shows`.
fn shown() -> BTreeMap<String, BTreeSet<String>> {
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, path) in Story::all() {
        let link = match name.strip_prefix("examples/") {
            Some(_) => format!("[{name}](../../{name}/story.yaml)"),
            None => format!("[{name}]({name}.yaml)"),
        };
        for id in Story::read(&path).unwrap().shows {
            shown.entry(id).or_default().insert(link.clone());
        }
    }
    shown
}

#[test]
fn every_sentence_is_in_the_table_once() {
    let ids: Vec<_> = table().into_iter().map(|sentence| sentence.id).collect();
    let numbered = |(source, many): (&'static str, usize)| (1..=many).map(move |at| format!("{source}{at}"));
    let expected: Vec<_> = SOURCES.into_iter().flat_map(numbered).collect();
    assert_eq!(ids, expected);
}

#[test]
fn every_sentence_is_shown_by_the_stories_that_say_so_or_explained() {
    let link = Regex::new(r"\[[^\]]+\]\([^)]+\)").unwrap();
    let (mut wrong, mut shown) = (Vec::new(), shown());
    for Sentence { id, cell } in table() {
        let told: BTreeSet<_> = link.find_iter(&cell).map(|found| found.as_str().to_owned()).collect();
        let stories = shown.remove(&id).unwrap_or_default();
        if told != stories {
            wrong.push(format!("{id} should have {}", Vec::from_iter(stories).join(", ")));
        }
        if cell.is_empty() {
            wrong.push(format!("{id} is neither shown nor explained"));
        }
    }
    wrong.extend(shown.into_keys().map(|id| format!("{id} is no sentence")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let test = Regex::new(r"`([a-z0-9_/-]+\.rs)::([a-z0-9_]+)`").unwrap();
    let mut named = 0;
    for Sentence { id, cell } in table() {
        for found in test.captures_iter(&cell) {
            let (file, name) = (&found[1], &found[2]);
            let text = std::fs::read_to_string(artefacts::root().join(Path::new(file)));
            let text = text.unwrap_or_else(|error| panic!("{id}: {file}: {error}"));
            assert!(text.contains(&format!("fn {name}()")), "{id}: {file} has no {name}");
            named += 1;
        }
    }
    assert!(named > 0);
}
