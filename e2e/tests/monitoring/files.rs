//! The files by themselves, and what the documents say about them.

use crate::prometheus::{promtool, read, rules, text};
use crate::{FIRED, TAGGED, expressions};
use e2e::artefacts::root;
use regex::Regex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

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

/// A metric of the filter with labels, as Envoy names it.
struct LabelledMetric {
    name: String,
    labels: Vec<(String, &'static str)>,
}

impl LabelledMetric {
    /// Returns those in the reference, each with values that could be mistaken for other parts of the name.
    fn all() -> Vec<Self> {
        let reference = document("docs/reference/metrics.md");
        let (of_filter, _) = reference.split_once("## The adapter").unwrap();
        let rows = Regex::new(r"(?m)^\| `(weir_[a-z_]+)` \| [a-z]+ \| (`[^|]+`) \|").unwrap();
        let value = |label: &str| match label {
            "policy" => "default/the-limit-policy",
            "limit" => "because-of",
            "cause" => "counter_too_long",
            "part" => "enforceWhen",
            "method" => "GetPlan",
            "source" => "estimated",
            "for" => "request_body",
            other => panic!("a new label: {other}"),
        };
        let labels = |text: &str| {
            let names = text.split(", ").map(|name| name.trim_matches('`').to_owned());
            names.map(|name| (name.clone(), value(&name))).collect()
        };
        let all: Vec<_> = rows
            .captures_iter(of_filter)
            .map(|row| Self { name: row[1].to_owned(), labels: labels(&row[2]) })
            .collect();
        assert!(all.len() > 10);
        all
    }

    fn dotted(&self) -> String {
        self.labels.iter().fold(self.name.clone(), |name, (label, value)| format!("{name}.{label}.{value}"))
    }

    /// Returns the labels that Prometheus must have, with the metric's name.
    fn wanted(&self, value: impl Fn(&str) -> String) -> BTreeMap<String, String> {
        let labels = self.labels.iter().map(|(label, written)| (format!("weir_{label}"), value(written)));
        labels.chain([("__name__".to_owned(), self.name.clone())]).collect()
    }
}

#[test]
fn stats_tags_find_every_label() {
    let config: Value = serde_saphyr::from_str(&document(TAGGED)).unwrap();
    let tags = config["stats_config"]["stats_tags"].as_array().unwrap();
    for metric in LabelledMetric::all() {
        let mut name = format!("wasmcustom.{}", metric.dotted());
        let mut labels = BTreeMap::new();
        let (written, mut removed) = (name.clone(), Vec::new());
        for tag in tags {
            let pattern = Regex::new(tag["regex"].as_str().unwrap()).unwrap();
            let Some(found) = pattern.captures(&written) else { continue };
            labels.insert(tag["tag_name"].as_str().unwrap().to_owned(), found[2].to_owned());
            removed.push(found[1].to_owned());
        }
        removed.iter().for_each(|part| name = name.replacen(part.as_str(), "", 1));
        labels.insert("__name__".to_owned(), name.replace("wasmcustom.", ""));
        assert_eq!(labels, metric.wanted(str::to_owned));
    }
}

/// What Prometheus does with `metric_relabel_configs`, for the one kind of rule that the file has.
#[test]
fn relabelling_finds_every_label() {
    let config = read("prometheus.yaml");
    let jobs = config["scrape_configs"].as_array().unwrap();
    let rules = jobs.iter().find(|job| job["job_name"] == "envoy").unwrap()["metric_relabel_configs"]
        .as_array()
        .unwrap();
    let sanitised = |text: &str| text.replace(['.', '/', '-'], "_");
    for metric in LabelledMetric::all() {
        let mut labels = BTreeMap::from([("__name__".to_owned(), sanitised(&metric.dotted()))]);
        for rule in rules {
            assert_eq!(rule["source_labels"], json!(["__name__"]));
            let pattern = Regex::new(&format!("^(?:{})$", rule["regex"].as_str().unwrap())).unwrap();
            let name = labels["__name__"].clone();
            if let Some(found) = pattern.captures(&name) {
                labels.insert(rule["target_label"].as_str().unwrap().to_owned(), found[1].to_owned());
            }
        }
        assert_eq!(labels, metric.wanted(sanitised));
    }
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
