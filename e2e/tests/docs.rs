//! Follows those pages of `docs/` that need only one machine. Writes their files, runs their commands, and
//! compares the output with the page. The gateway is the one that `make demo POLICY=..` starts.

use e2e::client::Request;
use e2e::process::{Process, free_port};
use e2e::readme::session;
use e2e::{artefacts, wait};
use regex::Regex;
use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The ports in the pages, and the ports that replace them.
struct PortMap(HashMap<&'static str, u16>);

impl PortMap {
    const KNOWN: [&str; 4] = ["10000", "9901", "8080", "8081"];

    fn choose() -> Self {
        Self(Self::KNOWN.iter().map(|port| (*port, free_port())).collect())
    }

    fn at(&self, port: &str) -> String {
        format!("127.0.0.1:{}", self.0[port])
    }

    fn moved(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for port in Self::KNOWN {
            text = text.replace(&format!("localhost:{port}"), &self.at(port));
        }
        text
    }
}

/// The reader's folder, and the gateway.
struct Newcomer {
    here: TempDir,
    ports: PortMap,
    gateway: Option<Process>,
}

/// A fenced block of a page.
struct Fenced {
    info: String,
    text: String,
}

fn page(name: &str) -> Vec<Fenced> {
    let text = std::fs::read_to_string(artefacts::root().join("docs").join(name)).unwrap();
    let mut lines = text.lines();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let text = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        blocks.push(Fenced { info: info.to_owned(), text });
    }
    blocks
}

impl Drop for Newcomer {
    /// Ends the demo as Ctrl-C does. If it was killed, its adapter and its Envoy would go on.
    fn drop(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            gateway.terminate();
        }
    }
}

impl Newcomer {
    fn new() -> Self {
        let here = tempfile::tempdir().unwrap();
        symlink(artefacts::root().join("examples"), here.path().join("examples")).unwrap();
        Self { here, ports: PortMap::choose(), gateway: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    fn start(&mut self, policy: &str) {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
        demo.arg("--policy").arg(self.file(policy)).current_dir(self.here.path());
        demo.env("WEIR_ADAPTER", artefacts::adapter())
            .env("WEIR_LLM_LISTEN", format!("127.0.0.1:{}", free_port()));
        for (variable, port) in [
            ("WEIR_DEMO_LISTEN", "10000"),
            ("WEIR_DEMO_ADMIN", "9901"),
            ("WEIR_HTTP_LISTEN", "8080"),
            ("WEIR_GRPC_LISTEN", "8081"),
        ] {
            demo.env(variable, self.ports.at(port));
        }
        let gateway = Process::start("the demo", demo, &self.file("demo.log"));
        wait::until("the gateway", || gateway.log().contains("The gateway is ready").then_some(()));
        self.gateway = Some(gateway);
    }

    fn plans(&self) -> u64 {
        let stats = Request::get("/stats").send(self.ports.at("9901").parse().unwrap()).text();
        let plans = stats.lines().find_map(|line| line.strip_prefix("wasmcustom.weir_plans: "));
        plans.and_then(|plans| plans.parse().ok()).unwrap_or_default()
    }

    /// Writes a file. If the file is the active policy, waits until it is in force in the worker and in
    /// Envoy's main thread.
    fn write(&self, name: &str, text: &str) {
        let before = self.gateway.as_ref().map(|_| self.plans());
        std::fs::write(self.file(name), text).unwrap();
        if let Some(before) = before {
            wait::until("the edit in force", || (self.plans() >= before + 2).then_some(()));
        }
    }

    fn run(&self, command: &str) -> (bool, String) {
        let command = self.ports.moved(command);
        let adapter = artefacts::adapter().display().to_string();
        let command = Regex::new(r"(target/demo/|\b)limitador-adapter (check|explain)")
            .unwrap()
            .replace_all(&command, |found: &regex::Captures<'_>| format!("{adapter} {}", &found[2]));
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("exec 2>&1\n{command}")]).current_dir(self.here.path());
        let output = bash.output().unwrap();
        let mut printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        for port in PortMap::KNOWN {
            printed = printed.replace(&self.ports.at(port), &format!("localhost:{port}"));
        }
        (output.status.success(), printed)
    }

    /// Runs a command that waits for a request, and sends requests until the command has seen one.
    fn watched(&self, command: &str) -> (bool, String) {
        let (envoy, token) =
            (self.ports.at("10000").parse().unwrap(), self.file("examples/people/alice.jwt"));
        let request = Request::chat(1).token(std::fs::read_to_string(token).unwrap().trim());
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| self.run(command));
            while !watching.is_finished() {
                request.send(envoy);
            }
            watching.join().unwrap()
        })
    }

    /// Waits until charges are counted. A person types slowly enough for that to happen before the next
    /// command.
    fn settled(&self) {
        let Some(_) = &self.gateway else { return };
        let adapter = self.ports.at("8080").parse().unwrap();
        wait::until("the settlement", || {
            let counters = Request::get("/api/counters").send(adapter).json();
            counters.as_array()?.iter().all(|counter| counter["held"] == 0).then_some(())
        });
    }
}

fn title(info: &str) -> Option<&str> {
    info.split_once("title=\"")?.1.split('"').next()
}

#[test]
fn get_started() {
    let mut newcomer = Newcomer::new();
    let mut followed = 0;
    for block in page("get-started.md") {
        match block.info.split(' ').next() {
            Some("yaml") => newcomer.write(title(&block.info).expect("a file's name"), &block.text),
            Some("sh") => {
                let policy =
                    block.text.trim().strip_prefix("make demo POLICY=").expect("the command of the demo");
                newcomer.start(policy);
            }
            Some("console") => {
                for step in session(&block.text) {
                    let (_, printed) = newcomer.run(&step.command);
                    assert!(
                        step.accepts(&printed),
                        "$ {}\n--- printed:\n{printed}\n--- the page says:\n{}",
                        step.command,
                        step.prints
                    );
                    newcomer.settled();
                    followed += 1;
                }
            }
            other => panic!("a block of {other:?}"),
        }
    }
    assert!(followed > 5, "{followed}");
}

/// Checks that every endpoint in the page's commands answers, and that every file is accepted.
#[test]
fn troubleshoot() {
    let mut newcomer = Newcomer::new();
    let example =
        |name: &str| std::fs::read_to_string(artefacts::root().join("examples").join(name)).unwrap();
    for (name, from) in [
        ("my-policy.yaml", "two-limits/policy.yaml"),
        ("request.http", "two-limits/request.http"),
        ("response.http", "two-limits/response.http"),
        ("alice.json", "people/alice.json"),
    ] {
        newcomer.write(name, &example(from));
    }
    newcomer.start("my-policy.yaml");
    let curl = Regex::new(r"curl -s '?(localhost:[^ ']+)'?").unwrap();
    let (mut asked, mut ran) = (0, 0);
    for block in page("troubleshoot.md") {
        for line in block.text.lines().filter(|line| !line.starts_with("kubectl")) {
            if let Some(found) = curl.captures(line) {
                let url = &found[1];
                let (_, status) = newcomer.run(&format!("curl -s -o /dev/null -w '%{{http_code}}' '{url}'"));
                assert_eq!(status, "200", "{line}");
                asked += 1;
            } else if line.starts_with("limitador-adapter explain --watch") {
                let (succeeds, printed) = newcomer.watched(line);
                assert!(succeeds && printed.contains("the request was admitted"), "{line}\n{printed}");
                ran += 1;
            } else if line.starts_with("limitador-adapter ") && !line.contains("FILE") {
                let (succeeds, printed) = newcomer.run(line);
                assert!(succeeds, "{line}\n{printed}");
                ran += 1;
            }
        }
    }
    assert!(asked > 8 && ran > 2, "{asked} {ran}");
}

/// Checks that every page that has commands with output is tested here.
#[test]
fn no_page_has_a_session_that_nobody_follows() {
    let pages = std::fs::read_dir(artefacts::root().join("docs")).unwrap();
    let is_page = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
    for path in pages.map(|entry| entry.unwrap().path()).filter(|path| is_page(path)) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let sessions = page(&name).iter().filter(|block| block.info == "console").count();
        assert!(sessions == 0 || name == "get-started.md", "{name}");
    }
}
