//! A real Prometheus with the configuration and the rules of `manifests/monitoring/`.

use e2e::artefacts::{prometheus, root};
use e2e::client::Request;
use e2e::process::{Process, free_port};
use e2e::wait;
use e2e::world::World;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// How long a condition must hold before its alert fires. One scrape that a busy machine delays is not enough.
const HOLDS: &str = "5s";

/// This alert depends on the speed of the machine.
const OF_SPEED: &str = "WeirAdapterSlow";

/// A running Prometheus that scrapes a world.
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

/// One series of an answer.
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Returns a file of `manifests/monitoring/`.
pub fn path(name: &str) -> PathBuf {
    root().join("manifests/monitoring").join(name)
}

pub fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("the file is there")
}

/// Returns a YAML or JSON file of `manifests/monitoring/`.
pub fn read(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns all alerts.
pub fn rules() -> Vec<Value> {
    let groups = read("rules.yaml")["groups"].take();
    let rules = groups.as_array().expect("groups").iter().flat_map(|group| group["rules"].as_array());
    rules.flatten().cloned().collect()
}

/// The rules with their expressions, but without the minutes for which a condition must hold.
fn impatient_rules() -> Value {
    let mut file = read("rules.yaml");
    for group in file["groups"].as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            rule["for"] = HOLDS.into();
        }
    }
    file
}

/// The configuration with other targets, and with a scrape every second.
fn configuration(world: &World, rules: &Path) -> Value {
    let mut config = read("prometheus.yaml");
    config["global"] =
        json!({ "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms" });
    config["rule_files"] = json!([rules]);
    for job in config["scrape_configs"].as_array_mut().expect("jobs") {
        let target = match job["job_name"].as_str() {
            Some("envoy") => world.envoy.admin(),
            Some("limitador-adapter") => world.adapter.http(),
            other => panic!("an unknown job: {other:?}"),
        };
        job["static_configs"] = json!([{ "targets": [target.to_string()] }]);
    }
    config
}

/// Runs promtool, which must succeed.
pub fn promtool(arguments: &[&str], file: &str) {
    let mut command = Command::new(prometheus("promtool"));
    let output = command.args(arguments).arg(path(file)).output().expect("promtool starts");
    let printed =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?} {file}:\n{printed}");
}

impl Prometheus {
    /// Starts a Prometheus, and waits until it has scraped the adapter and Envoy.
    pub fn watch(world: &World) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let write = |name: &str, value: &Value| {
            let file = folder.path().join(name);
            std::fs::write(&file, value.to_string()).expect("a file can be written");
            file
        };
        let rules = write("rules.yaml", &impatient_rules());
        let file = write("prometheus.yaml", &configuration(world, &rules));
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(prometheus("prometheus"));
        command.arg("--config.file").arg(file).arg("--storage.tsdb.path").arg(folder.path().join("data"));
        command.args(["--web.listen-address", &address.to_string(), "--log.level", "warn"]);
        let process = Process::start("Prometheus", command, &folder.path().join("log"));
        let mut started = Self { process, address, _folder: folder };
        wait::until("Prometheus", || {
            let log = started.process.log();
            assert!(started.process.ended().is_none(), "Prometheus ended:\n{log}");
            let ready = Request::get("/-/ready").try_send(address).ok()?;
            // Until the first scrape, an adapter seems to be down.
            let is_away = |alert: &String| alert == "WeirAdapterDown" || alert == "WeirAdapterReplicaDown";
            let sees = || started.query("up == 1").len() == 2 && !started.firing().iter().any(is_away);
            (ready.status == 200 && sees()).then_some(())
        });
        started
    }

    fn get(&self, path: &str) -> Value {
        Request::get(path).send(self.address).json()["data"].take()
    }

    /// Returns the result of an expression.
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let request = Request::new("POST", "/api/v1/query")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("query={encoded}"));
        let answer = request.send(self.address).json();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let found = answer["data"]["result"].as_array().expect("a vector");
        let sample = |found: &Value| Sample {
            labels: serde_json::from_value(found["metric"].clone()).expect("labels"),
            value: found["value"][1].as_str().and_then(|value| value.parse().ok()).expect("a number"),
        };
        found.iter().map(sample).collect()
    }

    /// Returns the names of the firing alerts.
    pub fn firing(&self) -> BTreeSet<String> {
        let alerts = self.get("/api/v1/alerts")["alerts"].take();
        let firing = alerts.as_array().expect("alerts").iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned()).collect()
    }

    /// Returns the rules that could not be evaluated, or not yet.
    fn unevaluated(&self) -> Vec<Value> {
        let groups = self.get("/api/v1/rules")["groups"].take();
        let groups = groups.as_array().expect("groups").iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules").clone());
        rules.filter(|rule| rule["health"] != "ok").collect()
    }

    /// Sends requests until Prometheus has scraped the world this many times. No alert may fire.
    pub fn stays_quiet(&self, scrapes: usize, mut send: impl FnMut()) {
        let scraped =
            || self.query("count_over_time(up{job=\"envoy\"}[10m])").first().map(|found| found.value);
        let before = scraped().unwrap_or_default();
        wait::until("scrapes", || {
            send();
            let firing: Vec<_> = self.firing().into_iter().filter(|alert| alert != OF_SPEED).collect();
            assert!(firing.is_empty(), "without a fault: {firing:?}");
            (scraped()? >= before + scrapes as f64 && self.unevaluated().is_empty()).then_some(())
        });
    }

    /// Sends requests until all these alerts fire.
    pub fn fires(&self, alerts: &[&str], mut send: impl FnMut()) {
        let mut silent = Vec::new();
        let reached = wait::within(wait::DEADLINE, || {
            send();
            let firing = self.firing();
            silent = alerts.iter().filter(|alert| !firing.contains(**alert)).collect();
            silent.is_empty().then_some(())
        });
        assert!(reached.is_some(), "these alerts do not fire: {silent:?}");
    }
}
