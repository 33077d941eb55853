//! Generates the reference pages of `docs/` from the tables in the code. The test fails if a page differs.
//! `make reference` writes all pages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod blocks;
mod command_line;
mod facts;
mod filter_config;
mod metrics;
mod policy_fields;
mod providers;
mod refusals;
mod status;

use std::path::PathBuf;

fn docs() -> PathBuf {
    e2e::artefacts::root().join("docs")
}

/// Compares a page with the generated one, or writes it.
fn page(name: &str, text: &str) {
    let path = docs().join(name);
    let text = format!("{}\n", text.replace("\n\n\n", "\n\n").trim_end());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{} is not what the code gives: run `make reference`", path.display());
}

/// Returns the head of a generated page.
fn head(title: &str, intro: &str) -> String {
    format!("<!-- Generated from the code by `make reference`. Do not edit. -->\n\n# {title}\n\n{intro}\n")
}

/// Formats a Markdown table.
fn table<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&columns.map(str::to_owned));
    text += &format!("|{}\n", "---|".repeat(N));
    rows.into_iter().for_each(|row| text += &line(&row.map(|cell| cell.replace('|', "\\|"))));
    text
}

/// Formats text as code.
fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn codes<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(code).collect::<Vec<_>>().join(", ")
}
