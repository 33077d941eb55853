//! The code blocks of README and `docs/`: policies are checked, commands are parsed, and the names in them
//! must exist. `e2e/tests/docs.rs` runs the blocks that can run on one machine.

use crate::docs;
use clap::CommandFactory;
use e2e::artefacts::root;
use engine::metric::table::METRICS as OF_FILTER;
use limitador_adapter::cli::Cli;
use limitador_adapter::metrics::METRICS as OF_ADAPTER;
use policy::model::Policy;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fenced block: the text after the fence, and its content.
struct Block {
    page: PathBuf,
    info: String,
    text: String,
}

impl Block {
    fn language(&self) -> &str {
        self.info.split(' ').next().unwrap_or_default()
    }

    fn title(&self) -> Option<&str> {
        self.info.split_once("title=\"")?.1.split('"').next()
    }
}

fn pages() -> Vec<PathBuf> {
    let list = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect::<Vec<_>>()
    };
    let mut pages = [list(docs()), list(docs().join("reference")), vec![root().join("README.md")]].concat();
    pages.sort();
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

fn blocks_of(page: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut lines = text.lines();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let text: String =
            lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        blocks.push(Block { page: page.to_owned(), info: info.to_owned(), text });
    }
    blocks
}

fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| blocks_of(page)).collect()
}

#[test]
fn every_block_is_of_a_kind_that_is_tested() {
    // `e2e/tests/warnings.rs` runs the Python program.
    let known = ["yaml", "json", "sh", "console", "http", "python", ""];
    for block in blocks() {
        assert!(known.contains(&block.language()), "{}: {}", block.page.display(), block.info);
    }
}

#[test]
fn policies_in_the_documents_are_good() {
    let mut policies = 0;
    for block in blocks().iter().filter(|block| block.language() == "yaml") {
        for document in block.text.split("\n---\n") {
            let document: Value = serde_saphyr::from_str(document)
                .unwrap_or_else(|error| panic!("{}: {error}", block.page.display()));
            if document["kind"] == "TokenRateLimitPolicy" {
                Policy::read_in_cluster(&document)
                    .unwrap_or_else(|errors| panic!("{}: {errors:?}\n{}", block.page.display(), block.text));
                policies += 1;
            }
        }
    }
    assert!(policies > 12, "{policies}");
}

#[test]
fn recipes_are_the_files_that_the_stories_play() {
    let mut shown = BTreeSet::new();
    for block in blocks_of(&docs().join("recipes.md")) {
        let Some(title) = block.title() else { continue };
        let file =
            std::fs::read_to_string(docs().join(title)).unwrap_or_else(|error| panic!("{title}: {error}"));
        assert_eq!(block.text, file, "docs/recipes.md and docs/{title} differ");
        assert!(docs().join(title.replace(".yaml", ".story.yaml")).exists(), "docs/{title} has no story");
        shown.insert(title.to_owned());
    }
    let files = std::fs::read_dir(docs().join("recipes")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let policies: BTreeSet<_> =
        names.filter(|name| !name.ends_with(".story.yaml")).map(|name| format!("recipes/{name}")).collect();
    assert_eq!(shown, policies);
}

#[test]
fn filter_configurations_in_the_documents_are_good() {
    for block in blocks().iter().filter(|block| block.language() == "json") {
        let value: Value = serde_json::from_str(&block.text).unwrap();
        if value.get("adapter").is_some() {
            engine::config::PluginConfig::read(block.text.as_bytes())
                .unwrap_or_else(|errors| panic!("{errors:?}"));
        }
    }
}

fn commands() -> Vec<Block> {
    blocks().into_iter().filter(|block| ["sh", "console"].contains(&block.language())).collect()
}

#[test]
fn commands_in_the_documents_parse() {
    for block in commands().iter().filter(|block| block.language() == "sh") {
        let output = Command::new("bash").args(["-n", "-c", &block.text]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {told}\n{}", block.page.display(), block.text);
    }
}

/// The manifests, examples, make targets, and adapter commands and flags in the documents exist.
#[test]
fn what_the_commands_name_exists() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let cli = Cli::command();
    for block in commands() {
        let page = block.page.display();
        for line in block.text.replace("\\\n", " ").lines() {
            let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || "()'".contains(c)).collect();
            for (at, word) in words.iter().enumerate() {
                let path = word.strip_prefix("dist/manifests").map(|rest| format!("manifests{rest}"));
                let path = path.or_else(|| word.starts_with("examples/").then(|| (*word).to_owned()));
                if let Some(path) = path.filter(|path| path != "manifests") {
                    assert!(root().join(&path).exists(), "{page}: {word} does not exist");
                }
                let next = words.get(at + 1).copied().unwrap_or_default();
                if *word == "make" {
                    assert!(makefile.contains(&format!("\n{next}:")), "{page}: make {next}");
                }
                let Some(command) = cli.find_subcommand(next).filter(|_| word.ends_with("limitador-adapter"))
                else {
                    continue;
                };
                let further = words.get(at + 2).copied().unwrap_or_default();
                let command = command.find_subcommand(further).unwrap_or(command);
                let flags = words[at..].iter().take_while(|word| !["|", "&", "#"].contains(word));
                for flag in flags.filter_map(|word| word.strip_prefix("--")) {
                    let known = command.get_arguments().any(|argument| argument.get_long() == Some(flag));
                    assert!(known, "{page}: {next} has no --{flag}");
                }
            }
        }
    }
}

#[test]
fn metrics_in_the_documents_are_declared() {
    let declared: Vec<&str> = OF_FILTER
        .iter()
        .map(|metric| metric.name)
        .chain(OF_ADAPTER.iter().map(|metric| metric.name))
        .collect();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for part in
            text.split('`').skip(1).step_by(2).filter(|part| part.starts_with("weir_") && *part != "weir_")
        {
            let name = part.split(['.', '{', ' ']).next().unwrap_or_default();
            assert!(declared.contains(&name), "{}: `{part}`", page.display());
        }
    }
}

/// The text of all scripts.
fn scripts() -> String {
    let folder = std::fs::read_dir(root().join("scripts")).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|end| end == "sh"));
    scripts.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// The variables and statuses in the documents exist in the code or in a script, so a rename cannot leave an old
/// name behind.
#[test]
fn variables_in_the_documents_are_known() {
    let cli = Cli::command();
    let of = |command: &clap::Command| {
        command.get_arguments().filter_map(|it| it.get_env()?.to_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut known: Vec<String> = cli.get_subcommands().flat_map(of).collect();
    known.extend(["WEIR_LOG", "WEIR_GATEWAY"].map(str::to_owned));
    let scripts = scripts();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for (at, _) in text.match_indices("WEIR_") {
            let rest = &text[at..];
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
            let name = &rest[..end];
            let is_known = known.iter().any(|it| it == name) || scripts.contains(&format!("${{{name}:-"));
            assert!(is_known || name == "WEIR_", "{}: {name}", page.display());
        }
    }
}
