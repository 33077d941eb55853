//! Warnings through a real Envoy, with the receiver of `docs/warnings.md`.

use e2e::adapter::Adapter;
use e2e::artefacts::root;
use e2e::client::Request;
use e2e::process::{Process, free_port};
use e2e::upstream::Answer;
use e2e::world::{World, policy};
use e2e::{jwt, wait};
use serde_json::json;
use std::net::TcpStream;
use std::process::Command;
use tempfile::TempDir;

/// The program in the page, and its port.
struct Receiver {
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl Receiver {
    fn start() -> Self {
        let page = std::fs::read_to_string(root().join("docs/warnings.md")).unwrap();
        let (_, program) = page.split_once("```python title=\"receiver.py\"\n").unwrap();
        let (program, _) = program.split_once("```").unwrap();
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = folder.path().join("receiver.py");
        std::fs::write(&file, program).unwrap();
        let mut command = Command::new("python3");
        command.arg(&file).arg(port.to_string());
        let process = Process::start("the receiver", command, &folder.path().join("log"));
        let receiver = Self { process, port, _folder: folder };
        wait::until("the receiver", || TcpStream::connect(("127.0.0.1", receiver.port)).ok());
        receiver
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/warnings", self.port)
    }
}

fn by(user: &str, answer: &str) -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": user }))).answered_by(answer)
}

#[test]
fn a_warning_reaches_the_client_the_metrics_and_the_webhook_once() {
    let receiver = Receiver::start();
    let limit = json!({
        "warnAt": ["80%"],
        "counters": [{ "expression": "auth.identity.userid" }],
        "reservation": { "amount": "10" },
        "rates": [{ "limit": 1000, "window": "1h" }],
    });
    let policy = policy("llm", json!({ "limits": { "per-user": limit } }));
    let adapter = Adapter::start_as(&[policy], &["--webhook", &receiver.url()]);
    let world = World::build().workers(2).start_with(adapter);
    world.upstream.on("790", Answer::used(790));
    world.upstream.on("20", Answer::used(20));
    let sent = |user: &str, answer: &str| {
        let response = world.send(&by(user, answer));
        (response.status, response.header("x-ratelimit-warning").map(str::to_owned))
    };
    let warned = || world.adapter.metric("weir_warnings_total", &["limit=\"per-user\"", "at=\"80%\""]);
    let warning = Some("per-user;at=80%".to_owned());

    assert_eq!(sent("alice", "790"), (200, None));
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 790, 0);
    assert_eq!(warned(), 0.0);
    assert_eq!(sent("alice", "20"), (200, None));
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 810, 0);
    for used in [830, 850, 870] {
        assert_eq!(sent("alice", "20"), (200, warning.clone()));
        world.adapter.wait_for_bucket("per-user", "tokens", "alice", used, 0);
    }
    assert_eq!(sent("bob", "20"), (200, None));
    assert_eq!(sent("alice", "790"), (200, warning.clone()));
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 1660, 0);
    assert_eq!(sent("alice", "20"), (429, warning));
    assert_eq!(warned(), 1.0);

    let delivered = ["outcome=\"delivered\""];
    wait::until("the call of the webhook", || {
        (world.adapter.metric("weir_webhook_deliveries_total", &delivered) == 1.0).then_some(())
    });
    let line = "per-user 80% {'auth.identity.userid': 'alice'} 810 of 1000 tokens\n";
    wait::until("the receiver's line", || receiver.process.log().contains(line).then_some(()));
    assert_eq!(receiver.process.log(), line);
}
