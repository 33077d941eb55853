//! Starts and uses every example with the commands in its README, and compares the output with the README.

use e2e::client::Request;
use e2e::envoy::Config;
use e2e::process::{Process, free_port};
use e2e::readme::{blocks, session};
use e2e::{artefacts, jwt, wait};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn cheaper_model() {
    follow("cheaper-model");
}

#[test]
fn hierarchy() {
    follow("hierarchy");
}

#[test]
fn jac_scale() {
    follow("jac-scale");
}

#[test]
fn kuadrant() {
    follow("kuadrant");
}

#[test]
fn litellm() {
    follow("litellm");
}

#[test]
fn per_user_requests() {
    follow("per-user-requests");
}

#[test]
fn truefoundry() {
    follow("truefoundry");
}

#[test]
fn two_limits() {
    follow("two-limits");
}

#[test]
fn every_example_is_followed() {
    let folders = std::fs::read_dir(artefacts::root().join("examples")).unwrap();
    let mut examples: Vec<_> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    examples.sort();
    let followed = [
        "cheaper-model",
        "hierarchy",
        "jac-scale",
        "kuadrant",
        "litellm",
        "people",
        "per-user-requests",
        "truefoundry",
        "two-limits",
    ];
    assert_eq!(examples, followed);
}

/// Checks that curl sends the same claims that `explain` reads.
#[test]
fn the_tokens_of_the_examples_have_the_claims_beside_them() {
    for who in ["alice", "ana", "ben", "bob", "cleo", "key"] {
        let file = |extension| artefacts::root().join(format!("examples/people/{who}.{extension}"));
        let read = |extension| std::fs::read_to_string(file(extension)).unwrap();
        let claims: Value = serde_json::from_str(&read("json")).unwrap();
        assert_eq!(jwt::claims(read("jwt").trim()), jwt::claims(&jwt::token(&claims)), "{who}");
    }
}

/// The README's ports, and the ports that replace them, so that examples can run next to other programs.
struct Ports(HashMap<&'static str, u16>);

impl Ports {
    const KNOWN: [&str; 5] = ["10000", "9901", "8081", "8080", "8000"];

    fn choose() -> Self {
        Self(Self::KNOWN.iter().map(|port| (*port, free_port())).collect())
    }

    fn at(&self, port: &str) -> String {
        format!("127.0.0.1:{}", self.0[port])
    }

    fn moved(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (port, instead) in &self.0 {
            text = text.replace(&format!("localhost:{port}"), &format!("127.0.0.1:{instead}"));
        }
        text
    }
}

fn follow(example: &str) {
    let folder = PathBuf::from("examples").join(example);
    let readme = artefacts::root().join(&folder).join("README.md");
    let ports = Ports::choose();
    let here = tempfile::tempdir().unwrap();
    let _started = start(&folder, &blocks(&readme, "sh")[0], &ports, here.path());
    let mut followed = 0;
    for block in blocks(&readme, "console") {
        for step in session(&block) {
            let mut bash = Command::new("bash");
            // The output includes errors, as in a terminal.
            let command = with_artefacts(&ports.moved(&step.command));
            bash.args(["-c", &format!("exec 2>&1\n{command}")]).current_dir(artefacts::root());
            let output = bash.output().unwrap();
            let printed = ports_back(&ports, &String::from_utf8_lossy(&output.stdout).replace('\r', ""));
            assert!(
                step.accepts(&printed),
                "$ {}\n--- printed:\n{printed}\n--- the README says:\n{}",
                step.command,
                step.prints
            );
            settled(&ports);
            followed += 1;
        }
    }
    assert!(followed > 0, "{} has no console block", readme.display());
}

fn ports_back(ports: &Ports, text: &str) -> String {
    let mut text = text.to_owned();
    for (port, instead) in &ports.0 {
        text = text.replace(&format!("127.0.0.1:{instead}"), &format!("localhost:{port}"));
    }
    text
}

/// Runs the README's commands, each in a separate process, and waits until Envoy enforces limits.
fn start(folder: &Path, commands: &str, ports: &Ports, here: &Path) -> Vec<Process> {
    let config = here.join("envoy.json");
    let mut envoy = Config::read(folder.join("envoy.yaml"));
    envoy.listen(ports.0["10000"], ports.0["9901"]);
    // The same simulator serves as every provider.
    for cluster in ["llm", "small-llm"] {
        if envoy.has_cluster(cluster) {
            envoy.cluster(cluster, ports.at("8000").parse().unwrap());
        }
    }
    envoy.cluster("limitador-adapter", ports.at("8081").parse().unwrap());
    envoy.write(&config);
    let written = folder.join("envoy.yaml").display().to_string();
    let run = |(index, line): (usize, &str)| {
        let command = line.trim_end_matches('&').replace(&written, &config.display().to_string());
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("exec {}", with_artefacts(&command))]).current_dir(artefacts::root());
        bash.env("WEIR_LLM_LISTEN", ports.at("8000")).env("WEIR_GRPC_LISTEN", ports.at("8081"));
        bash.env("WEIR_HTTP_LISTEN", ports.at("8080"));
        Process::start(line, bash, &here.join(format!("{index}.log")))
    };
    let started = commands.lines().filter(|line| line.ends_with('&')).enumerate().map(run).collect();
    let admin = ports.at("9901").parse().unwrap();
    wait::until("Envoy's first plan", || {
        let stats = Request::get("/stats").try_send(admin).ok()?.text();
        let plans = stats.lines().find_map(|line| line.strip_prefix("wasmcustom.weir_plans: "))?;
        (plans.parse::<u64>().ok()? >= 1).then_some(())
    });
    started
}

/// Waits until charges are counted. A person types slowly enough for that to happen before the next command.
fn settled(ports: &Ports) {
    let adapter = ports.at("8080").parse().unwrap();
    wait::until("the settlement", || {
        let counters = Request::get("/api/counters").send(adapter).json();
        counters.as_array()?.iter().all(|counter| counter["held"] == 0).then_some(())
    });
}

/// Replaces the README's file names with the paths of the artefacts.
fn with_artefacts(command: &str) -> String {
    let simulator = env!("CARGO_BIN_EXE_llm-simulator");
    command
        .replace("cargo run -q -p e2e --bin llm-simulator", simulator)
        .replace("dist/limitador-adapter", &artefacts::adapter().display().to_string())
        .replace(
            "envoy -c",
            &format!("{} --disable-hot-restart --concurrency 1 -l warning -c", artefacts::envoy().display()),
        )
}
