//! The program itself: how it starts, what it prints, and how it ends.

use crate::server::{DEADLINE, POLICY};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use tempfile::TempDir;

pub fn adapter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limitador-adapter"));
    command.env_clear();
    command
}

pub fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in files {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    folder
}

/// Returns the exit code, output and errors, without the path of the folder.
pub fn told(output: &Output, folder: &Path) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&folder.display().to_string(), "FOLDER");
    let code = output.status.code();
    format!("exit {code:?}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

/// Returns the complete response, if there is one.
pub fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn check_tells_every_mistake() {
    let twice = "apiVersion: weir.dev/v1alpha1\nkind: TokenRateLimitPolicy\nkind: again\n";
    let bad = POLICY.replace("limit: 3", "limit: three").replace("window: 1h", "window: 1 hour");
    let two = format!("{}---\n{bad}", POLICY.replace("name: llm", "name: good"));
    let folder =
        folder(&[("a.yaml", &two), ("b.json", "{\"kind\": \"Banana\"}"), ("c.yml", twice), ("d.yaml", "")]);
    let output = adapter().arg("check").arg(folder.path()).output().unwrap();
    insta::assert_snapshot!(told(&output, folder.path()));
}

#[test]
fn check_of_good_policies_and_of_nothing() {
    let folder = folder(&[("a.yaml", POLICY)]);
    let good = adapter().arg("check").arg(folder.path().join("a.yaml")).output().unwrap();
    let nothing = adapter().arg("check").arg(folder.path().join("none.yaml")).output().unwrap();
    insta::assert_snapshot!([good, nothing].map(|output| told(&output, folder.path())).join("\n"));
}

#[test]
fn check_warns_of_buckets_that_a_client_chooses() {
    let by_body = POLICY.replace("auth.identity.userid", "llm.user");
    assert_ne!(by_body, POLICY);
    let folder = folder(&[("a.yaml", POLICY), ("b.yaml", &by_body.replace("name: llm", "name: by-body"))]);
    let output = adapter().arg("check").arg(folder.path()).output().unwrap();
    insta::assert_snapshot!(told(&output, folder.path()));
}

#[test]
fn check_warns_of_exact_comparisons_of_what_a_client_chooses() {
    let one = |predicate: &str| {
        let limit = format!("{{when: [{{predicate: {predicate:?}}}], rates: [{{limit: 1, window: 1m}}]}}");
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: TokenRateLimitPolicy\nmetadata: {{name: p}}\nspec:\n  \
             targetRef: {{group: gateway.networking.k8s.io, kind: Gateway, name: g}}\n  limits: {{a: {limit}}}\n"
        )
    };
    let evaded =
        one("request.path in ['/v1/chat/completions', '/v1/responses'] && auth.identity.plan == 'free'");
    let others = "request.url_path == '/a' || request.host == 'gw' || request.path == '/c?d=e'";
    let meant = "request.url_path.startsWith('/a') && request.host != 'gw' && !(request.path in ['/c'])";
    let folder = folder(&[
        ("evaded.yaml", &evaded),
        ("meant.yaml", &one(meant).replace("name: p", "name: q")),
        ("others.yaml", &one(others).replace("name: p", "name: r")),
    ]);
    let output = adapter().arg("check").arg(folder.path()).output().unwrap();
    insta::assert_snapshot!(told(&output, folder.path()));
}

#[test]
fn what_cannot_be_served_is_told() {
    let folder = folder(&[("a.yaml", POLICY)]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |arguments: &[&str]| {
        let output = adapter().arg("serve").args(arguments).current_dir(folder.path()).output().unwrap();
        told(&output, folder.path()).replace(&address, "ADDRESS")
    };
    let all = [
        run(&["--policies", "none.yaml"]),
        run(&["--policies", "a.yaml", "--storage", "redis://one,another"]),
        run(&["--policies", "a.yaml", "--storage", "memori"]),
        run(&["--policies", "a.yaml", "--storage", "sqlite:"]),
        run(&["--policies", "a.yaml", "--grpc-listen", &address, "--http-listen", "127.0.0.1:0"]),
    ];
    let without_log = all.map(|told| {
        let lines = told.lines().filter(|line| !line.contains(" INFO "));
        lines.collect::<Vec<_>>().join("\n")
    });
    insta::assert_snapshot!(without_log.join("\n\n"));
}

/// Starts an adapter on ports that were free a moment ago.
struct Running {
    process: Child,
    http: SocketAddr,
}

impl Running {
    /// Another process may take a port before the adapter uses it. If so, the start is retried.
    fn start(policies: &Path) -> Self {
        let mut tries = (0..3).map(|_| Self::try_start(policies));
        tries.find_map(|running| running).expect("it serves")
    }

    fn try_start(policies: &Path) -> Option<Self> {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (grpc, http) = (free(), free());
        let mut command = adapter();
        command.args(["serve", "--http-listen", &http.to_string()]).env("WEIR_GRPC_LISTEN", grpc.to_string());
        command.env("WEIR_POLICIES", policies).current_dir(policies).stderr(Stdio::null());
        let mut running = Self { process: command.spawn().unwrap(), http };
        let start = Instant::now();
        while !running.is_ready() {
            assert!(start.elapsed() < DEADLINE);
            if running.process.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::yield_now();
        }
        Some(running)
    }

    fn is_ready(&self) -> bool {
        get(self.http, "/readyz").is_some_and(|answer| answer.contains(" 200 "))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn a_signal_to_end_is_obeyed_in_time_and_with_success() {
    let folder = folder(&[("a.yaml", POLICY)]);
    for signal in ["TERM", "INT"] {
        let mut running = Running::start(folder.path());
        // An idle connection must not block the drain.
        let _idle = TcpStream::connect(running.http).unwrap();
        let start = Instant::now();
        let pid = running.process.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let status = running.process.wait().unwrap();
        assert_eq!(status.code(), Some(0), "SIG{signal}");
        assert!(start.elapsed() < DEADLINE, "SIG{signal}: {:?}", start.elapsed());
    }
}
