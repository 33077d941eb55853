//! Runs the real adapter, with its policies in a separate folder.

use crate::client::{Request, Response};
use crate::process::{Process, free_port};
use crate::{artefacts, wait};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A running (or stopped, or killed) adapter.
pub struct Adapter {
    process: Process,
    folder: TempDir,
    place: Endpoints,
}

/// The adapter's ports and arguments. `kubeconfig` is set if the policies come from a cluster.
#[derive(Clone)]
struct Endpoints {
    grpc: u16,
    http: u16,
    kubeconfig: Option<PathBuf>,
    further: Vec<String>,
}

/// A bucket in the format of `/api/counters`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Counter {
    /// "NAMESPACE/NAME".
    pub policy: String,
    pub limit: String,
    pub unit: String,
    /// The value of each counter, by its expression.
    pub counters: BTreeMap<String, String>,
    /// The maximum, or 0 if the rate is no longer in force.
    #[serde(default)]
    pub max: u64,
    /// The amount charged so far.
    pub used: u64,
    /// The amount held by running requests.
    pub held: u64,
    /// The part of `held` that is in leases.
    #[serde(default)]
    pub leased: u64,
    /// The amount granted until the window ends.
    #[serde(default)]
    pub granted: u64,
    #[serde(default)]
    pub remaining: u64,
    pub window: Option<String>,
    pub period: Option<String>,
    /// The time zone of the period, unless it is UTC.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// The time until the window ends. `None` if it has no end.
    pub resets_in_seconds: Option<u64>,
    /// Since when the storage has been counting.
    #[serde(default)]
    pub counting_since: Option<String>,
    /// The field is omitted if true.
    #[serde(default = "yes")]
    pub in_force: bool,
    /// Whether this is the limit's overflow counter. The field is omitted if false.
    #[serde(default)]
    pub overflow: bool,
    /// `Soft` if the limit never refuses requests.
    #[serde(default)]
    pub boundary: Option<String>,
}

fn yes() -> bool {
    true
}

impl Adapter {
    /// Starts an adapter with these policies, one file each, and waits until it is ready.
    pub fn start(policies: &[String]) -> Self {
        Self::start_on("memory", policies)
    }

    /// Like [`Self::start`], but with this storage.
    pub fn start_on(storage: &str, policies: &[String]) -> Self {
        Self::start_as(policies, &["--storage", storage])
    }

    /// Like [`Self::start`], but with additional arguments.
    pub fn start_as(policies: &[String], further: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join("policies")).expect("a folder can be made");
        for (index, policy) in policies.iter().enumerate() {
            let file = folder.path().join(format!("policies/{index}.yaml"));
            std::fs::write(file, policy).expect("a file can be written");
        }
        Self::start_in(folder, None, further)
    }

    /// Starts an adapter that reads its policies from a cluster with this kubeconfig, and waits until it is
    /// ready.
    pub fn start_in_cluster(kubeconfig: &Path, further: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self::start_in(folder, Some(kubeconfig.to_owned()), further)
    }

    fn start_in(mut folder: TempDir, kubeconfig: Option<PathBuf>, further: &[&str]) -> Self {
        let further: Vec<_> = further.iter().map(|&word| word.to_owned()).collect();
        // Another process may take the port before the adapter binds it.
        for _ in 0..3 {
            let (kubeconfig, further) = (kubeconfig.clone(), further.clone());
            let place = Endpoints { grpc: free_port(), http: free_port(), kubeconfig, further };
            let mut adapter = Self { process: spawn(&folder, &place), folder, place };
            if adapter.becomes_ready() {
                return adapter;
            }
            assert!(
                adapter.process.log().contains("in use"),
                "the adapter ended:\n{}",
                adapter.process.log()
            );
            folder = adapter.folder;
        }
        panic!("there is no free port for the adapter");
    }

    /// Waits until it is ready.
    pub fn wait_until_ready(&mut self) {
        assert!(self.becomes_ready(), "the adapter ended:\n{}", self.process.log());
    }

    fn becomes_ready(&mut self) -> bool {
        let address = self.http();
        wait::until("the adapter's /readyz", || {
            if self.process.ended().is_some() {
                return Some(false);
            }
            let answer = Request::get("/readyz").try_send(address).ok()?;
            (answer.status == 200).then_some(true)
        })
    }

    /// Returns the address of its gRPC server.
    pub fn grpc(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.place.grpc).into()
    }

    /// Returns the address of its HTTP server.
    pub fn http(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.place.http).into()
    }

    /// Writes a policy file atomically, as an editor does.
    pub fn write(&self, name: &str, policy: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, policy).expect("a file can be written");
        std::fs::rename(new, self.policies_folder().join(name)).expect("a file can be moved");
    }

    /// Removes a policy file.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.policies_folder().join(name)).expect("the file is there");
    }

    fn policies_folder(&self) -> PathBuf {
        self.folder.path().join("policies")
    }

    /// Sends a GET request to the HTTP server.
    pub fn get(&self, path: &str) -> Response {
        Request::get(path).send(self.http())
    }

    /// Returns all buckets.
    pub fn counters(&self) -> Vec<Counter> {
        let answer = self.get("/api/counters");
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
    }

    /// Returns the only bucket of this limit and unit that counts for `who` (any of its counter values), or
    /// zeros if there is none.
    pub fn bucket(&self, limit: &str, unit: &str, who: &str) -> (u64, u64) {
        let all = self.counters();
        let mine = all.iter().filter(|counter| counter.limit == limit && counter.unit == unit);
        let mut mine =
            mine.filter(|counter| who.is_empty() || counter.counters.values().any(|value| value == who));
        let bucket = mine.next().map_or((0, 0), |counter| (counter.used, counter.held));
        assert!(mine.next().is_none(), "several buckets of {limit} {unit} for {who}: {all:?}");
        bucket
    }

    /// Waits until that bucket has this usage and these holds.
    pub fn wait_for_bucket(&self, limit: &str, unit: &str, who: &str, used: u64, held: u64) {
        let reached =
            wait::within(wait::DEADLINE, || (self.bucket(limit, unit, who) == (used, held)).then_some(()));
        assert!(reached.is_some(), "wanted used {used} and held {held}: {:#?}", self.counters());
    }

    /// Returns the adapter's report about its policies.
    pub fn policies(&self) -> Value {
        self.get("/api/policies").json()
    }

    /// Returns the sum of the metric's series whose lines contain all these words.
    pub fn metric(&self, name: &str, words: &[&str]) -> f64 {
        let text = self.get("/metrics").text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mine = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
        let mine = mine.filter(|line| words.iter().all(|word| line.contains(word)));
        mine.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Prints the end of the log.
    pub fn show_log(&self) {
        self.process.show_log();
    }

    /// Returns the CPU time that the process has used.
    pub fn cpu(&self) -> Duration {
        self.process.cpu()
    }

    pub fn pid(&self) -> i32 {
        self.process.pid().as_raw_nonzero().get()
    }

    /// Returns the whole log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Stops the process without ending it.
    pub fn freeze(&self) {
        self.process.stop();
    }

    /// Continues a stopped process.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM and waits for the process to exit.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.process.terminate()
    }

    /// Terminates the adapter as an orchestrator would, and starts another one in its place with these
    /// additional arguments.
    pub fn replace(&mut self, further: &[&str]) {
        let status = self.terminate();
        assert!(status.success(), "{status}: {}", self.log());
        self.place.further = further.iter().map(|&word| word.to_owned()).collect();
        self.restart();
    }

    /// Restarts the adapter on the same ports, and waits until it is ready.
    pub fn restart(&mut self) {
        self.restart_soon();
        assert!(self.becomes_ready(), "the adapter does not come back:\n{}", self.process.log());
    }

    /// Like `restart`, but does not wait. An adapter without its storage does not become ready.
    pub fn restart_soon(&mut self) {
        self.process.kill();
        self.process = spawn(&self.folder, &self.place);
    }
}

fn spawn(folder: &TempDir, place: &Endpoints) -> Process {
    let mut command = Command::new(artefacts::adapter());
    command.arg("serve");
    match &place.kubeconfig {
        Some(kubeconfig) => command.arg("--kubernetes").env("KUBECONFIG", kubeconfig),
        None => command.arg("--policies").arg(folder.path().join("policies")),
    };
    let address = |port| format!("127.0.0.1:{port}");
    command.args(["--grpc-listen", &address(place.grpc), "--http-listen", &address(place.http)]);
    command.args(&place.further);
    // The default, but in a folder of its own. `--storage` takes precedence.
    command.env("WEIR_STORAGE", format!("sqlite:{}", folder.path().join("counters.db").display()));
    Process::start("the adapter", command, &folder.path().join("adapter.log"))
}
