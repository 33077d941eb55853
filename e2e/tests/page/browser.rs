//! Plays a scenario of `e2e/page/` in Chromium, and does what it asks for.

use e2e::adapter::Adapter;
use e2e::{artefacts, wait};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A scenario's process. It ends with the test.
struct Playing(Child);

impl Drop for Playing {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Plays a scenario against this adapter. `answer` does what the scenario asks for, and returns what it should know.
pub fn play(
    name: &str,
    adapter: &Adapter,
    settings: (Option<&str>, Option<&Path>),
    answer: impl FnMut(&str) -> String,
) {
    play_at(name, adapter.http(), settings, answer);
}

/// Like [`play`], with the address of the adapter's HTTP port.
pub fn play_at(
    name: &str,
    http: SocketAddr,
    (token, folder): (Option<&str>, Option<&Path>),
    mut answer: impl FnMut(&str) -> String,
) {
    let settings = json!({ "url": format!("http://{http}"), "token": token, "folder": folder });
    let mut command = Command::new("node");
    command.arg(artefacts::root().join("e2e/page/run.mjs")).arg(name).arg(settings.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut playing = Playing(command.spawn().expect("node starts; run `make test-page`"));
    let mut stdin = playing.0.stdin.take().expect("a pipe");
    let stdout = BufReader::new(playing.0.stdout.take().expect("a pipe"));
    let mut has_passed = false;
    for line in stdout.lines() {
        let line = line.expect("a line of text");
        match line.strip_prefix("ask ") {
            Some(what) => writeln!(stdin, "{}", answer(what)).expect("the scenario reads the answer"),
            None => println!("{line}"),
        }
        has_passed |= line == "passed";
    }
    let status = wait::until("the end of the scenario", || playing.0.try_wait().ok().flatten());
    assert!(status.success() && has_passed, "{name}: {status}");
}
