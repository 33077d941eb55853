//! The files by themselves, and what the documents say about them.

use crate::prometheus::{promtool, read, rules, text};
use crate::{FIRED, TAGGED, expressions};
use e2e::artefacts::root;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;

fn document(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn found(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    promtool(&["check", "rules"], "rules.yaml");
    promtool(&["check", "config"], "prometheus.yaml");
    promtool(&["test", "rules"], "rules-test.yaml");
}

#[test]
fn every_metric_in_an_expression_is_declared() {
    let mut declared = found(r"(?m)^\| `(weir_[a-z_]+)` \|", &document("docs/reference/metrics.md"));
    declared.insert("weir_grpc_seconds_bucket".to_owned());
    let labels = found("tag_name: (weir_[a-z]+)", &document(TAGGED));
    let rules = rules();
    let alerts = rules.iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let panels = expressions().into_iter().map(|(_, expression)| expression);
    let all: String = alerts.chain(panels).map(|expression| expression + "\n").collect();
    let used = found(r"\b(weir_[a-z_]+)", &all);
    let unknown: Vec<_> =
        used.iter().filter(|name| !declared.contains(*name) && !labels.contains(*name)).collect();
    assert!(used.len() > 30 && unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_panel_uses_the_selected_data_source() {
    let dashboard = read("dashboard.json");
    let variable = &dashboard["templating"]["list"][0];
    assert_eq!((&variable["name"], &variable["type"]), (&"datasource".into(), &"datasource".into()));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
        assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
    }
}

/// Returns the anchors of a document's headings in GitHub's format.
fn anchors(document: &str) -> BTreeSet<String> {
    let others = Regex::new(r"[^\w\- ]").unwrap();
    let titles = document.lines().filter(|line| line.starts_with('#'));
    titles.map(|title| others.replace_all(&title.to_lowercase(), "").trim().replace(' ', "-")).collect()
}

#[test]
fn every_alert_says_what_to_do() {
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        for annotation in ["summary", "description", "runbook"] {
            assert!(
                rule["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {annotation}"
            );
        }
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        let (path, anchor) = runbook.split_once('#').unwrap_or((runbook, ""));
        let page = document(path);
        assert!(
            anchor.is_empty() || anchors(&page).contains(anchor),
            "{name}: {path} has no heading {anchor}"
        );
    }
}

#[test]
fn every_alert_is_tested_and_documented() {
    let rules = rules();
    let name = |rule: &Value| rule["alert"].as_str().unwrap().to_owned();
    let all: BTreeSet<_> = rules.iter().map(name).collect();
    assert_eq!(all.len(), rules.len());
    let computed = found("alertname: (Weir[A-Za-z]+)", &text("rules-test.yaml"));
    let tested: BTreeSet<_> = FIRED.iter().map(|&name| name.to_owned()).chain(computed).collect();
    assert_eq!(tested, all);
    let documented = found(r"(?m)^\| `(Weir[A-Za-z]+)` \|", &document("docs/operate.md"));
    assert_eq!(documented, all);
}
