//! A gateway that listens on a separate port for each case. Clients need no special settings, because the
//! base URL identifies the case.

use e2e::process::{Process, free_port};
use e2e::upstream::Seen;
use e2e::wait;
use e2e::wire::header;
use e2e::world::{World, policy};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The timeout for a client to play all of its cases.
const PATIENCE: Duration = Duration::from_secs(240);

pub struct Gateway {
    pub world: World,
    ports: BTreeMap<String, u16>,
    folder: tempfile::TempDir,
}

impl Gateway {
    /// Starts a gateway with a separate limit for each of the cases `short`, `long` and `never`, and one
    /// limit with room for all other cases. `usage` is the policy's `usage`.
    pub fn start(cases: &[&str], usage: &Value) -> Self {
        let ports: BTreeMap<_, _> = cases.iter().map(|case| ((*case).to_owned(), free_port())).collect();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (log, listening) = (folder.path().join("requests"), ports.clone());
        let world = World::build()
            .policy(&policy("clients", json!({ "limits": limits(&ports), "usage": usage })))
            .reading_bodies(1 << 20)
            .change(move |config| {
                let format = "%DOWNSTREAM_LOCAL_PORT% %RESPONSE_CODE% %REQ(:METHOD)% %REQ(:PATH)%\n";
                // The clients' API keys are not tokens that the gateway accepts.
                let manager = config.typed(".HttpConnectionManager");
                let filters = manager["http_filters"].as_array_mut().expect("a list");
                filters.retain(|filter| filter["name"] != "envoy.filters.http.jwt_authn");
                manager["access_log"] = json!([{
                    "name": "requests",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                        "path": log, "log_format": { "text_format_source": { "inline_string": format } }
                    }
                }]);
                let address = |port: &u16| {
                    let place = json!({ "address": "127.0.0.1", "port_value": port });
                    json!({ "address": { "socket_address": place } })
                };
                let addresses: Vec<Value> = listening.values().map(address).collect();
                config.all()["static_resources"]["listeners"][0]["additional_addresses"] = addresses.into();
            })
            .start();
        Self { world, ports, folder }
    }

    pub fn base(&self, case: &str) -> String {
        format!("http://127.0.0.1:{}", self.ports[case])
    }

    /// Creates a folder for the client.
    pub fn place(&self, name: &str) -> PathBuf {
        let place = self.folder.path().join(name);
        std::fs::create_dir_all(&place).expect("a folder can be made");
        place
    }

    /// Runs a client until it exits. Returns its output, and whether it exited by itself.
    pub fn run(&self, name: &str, command: Command) -> (String, bool) {
        let mut process = Process::start(name, command, &self.folder.path().join(name));
        let ended = wait::within(PATIENCE, || process.ended()).is_some();
        process.kill();
        (process.log(), ended)
    }

    /// Returns the requests of a case that reached Envoy, as `STATUS METHOD PATH`, once all have ended.
    pub fn requests(&self, case: &str) -> Vec<String> {
        let file = self.folder.path().join("requests");
        let (active, total) = ("http.gateway.downstream_rq_active", "http.gateway.downstream_rq_total");
        let all = wait::until("the end of all requests", || {
            let lines = std::fs::read_to_string(&file).unwrap_or_default();
            let (total, logged) = (self.world.envoy.stat(total), lines.lines().count() as u64);
            (self.world.envoy.stat(active) == 0 && total == logged).then_some(lines)
        });
        let port = format!("{} ", self.ports[case]);
        all.lines().filter_map(|line| line.strip_prefix(&port)).map(str::to_owned).collect()
    }

    /// Returns the requests of a case that reached the upstream.
    pub fn seen(&self, case: &str) -> Vec<Seen> {
        let end = format!(":{}", self.ports[case]);
        let mine = |seen: &Seen| header(&seen.headers, "host").is_some_and(|host| host.ends_with(&end));
        self.world.upstream.seen().into_iter().filter(mine).collect()
    }

    /// Returns the usage that the upstream reported in a case.
    pub fn reported(&self, case: &str) -> u64 {
        self.seen(case).iter().map(|seen| seen.reported).sum()
    }

    /// Returns the charges of a case, once nothing is held.
    pub fn charged(&self, case: &str) -> u64 {
        let (limit, who) = match case {
            "short" | "long" | "never" => (case, String::new()),
            _ => ("plenty", self.ports[case].to_string()),
        };
        let settled =
            || Some(self.world.adapter.bucket(limit, "tokens", &who)).filter(|(_, held)| *held == 0);
        wait::until("the settlement", settled).0
    }
}

fn limits(ports: &BTreeMap<String, u16>) -> Value {
    let at = |ports: &[u16]| json!([{ "predicate": format!("destination.port in {ports:?}") }]);
    let others = ports.iter().filter(|(case, _)| !["short", "long", "never"].contains(&case.as_str()));
    let others: Vec<u16> = others.map(|(_, port)| *port).collect();
    let mut limits = json!({ "plenty": {
        "when": at(&others), "counters": [{ "expression": "destination.port" }],
        "rates": [{ "limit": 1_000_000, "window": "1h" }]
    } });
    for (case, window) in [("short", "3s"), ("long", "24h")] {
        if let Some(port) = ports.get(case) {
            limits[case] = json!({
                "when": at(&[*port]), "reservation": { "amount": "1" },
                "rates": [{ "limit": 10, "window": window }]
            });
        }
    }
    if let Some(port) = ports.get("never") {
        limits["never"] = json!({ "when": at(&[*port]), "rates": [{ "limit": 5, "window": "1h" }] });
    }
    limits
}
