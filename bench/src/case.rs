//! The benchmark cases. They differ in the filters that Envoy runs between client and upstream.

use anyhow::{Context, Result};
use e2e::artefacts;
use e2e::envoy::Config;
use protocol::call::{DOMAIN, Entries, Item, commit, reserve};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The filter of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// No filter.
    None,
    /// Envoy's rate-limit filter, with a check, and optionally a report at the end of the stream.
    RateLimit { report: bool },
    /// A Wasm filter that does nothing.
    Empty,
    /// A Wasm filter that reads one header.
    Header,
    /// A Wasm filter that sets the same response headers as Weir.
    Told,
    /// A Wasm filter that makes two calls with constant bytes.
    Floor,
    /// Weir with this gateway's policies. With `header`, the identity is in a header, which Weir removes.
    Weir { gateway: &'static str, header: bool },
}

/// A case and its name in the table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub filter: Filter,
    /// Whether to use the module in `BENCH_BEFORE`.
    pub before: bool,
}

pub const fn case(name: &'static str, filter: Filter) -> Case {
    Case { name, filter, before: false }
}

/// Returns the case with the identity in a header.
pub const fn weir(gateway: &'static str) -> Filter {
    Filter::Weir { gateway, header: true }
}

/// Returns the cases in the order of the table.
pub const CASES: [Case; 12] = [
    case("Envoy alone", Filter::None),
    case("Envoy's rate-limit filter, one call", Filter::RateLimit { report: false }),
    case("the same, check on request and report on stream end", Filter::RateLimit { report: true }),
    case("empty Wasm filter", Filter::Empty),
    case("Wasm filter that asks for the path", Filter::Header),
    case("Wasm floor: two calls of constant bytes", Filter::Floor),
    case("Weir, no policy", Filter::Weir { gateway: "nothing", header: false }),
    case(
        "Weir, no limit for the path, no header to take out",
        Filter::Weir { gateway: "elsewhere", header: false },
    ),
    case("Weir, no limit for the path", weir("elsewhere")),
    case("Weir, no limit for who is asking", weir("none")),
    case("Weir, one limit", weir("one")),
    case("Weir, eight limits", weir("eight")),
];

/// The addresses of the other processes.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub upstream: SocketAddr,
    pub adapter: SocketAddr,
}

impl Case {
    /// Returns the case. If `BENCH_BEFORE` names another module and this is a case of Weir, also returns the same case
    /// with that module.
    pub fn with_before(self) -> impl Iterator<Item = Case> {
        let twin = matches!(self.filter, Filter::Weir { .. }) && before().is_some();
        std::iter::once(self).chain(twin.then_some(Case { before: true, ..self }))
    }

    /// Returns the name in the table.
    pub fn title(&self) -> String {
        if self.before { format!("{}, the module before", self.name) } else { self.name.into() }
    }

    /// Returns Envoy's whole configuration.
    pub fn config(&self, ends: Ends) -> Result<Config> {
        let mut config = Config::read("bench/envoy.yaml");
        config.cluster("llm", ends.upstream);
        config.cluster("limitador-adapter", ends.adapter);
        if let Some(filter) = self.http_filter() {
            config.filters().insert(0, filter);
        }
        if let Filter::RateLimit { report } = self.filter {
            let route = config.all().pointer_mut(ROUTE).and_then(Value::as_object_mut);
            let mut limits = vec![json!({ "actions": actions(), "hits_addend": { "number": 1 } })];
            if report {
                limits.push(
                    json!({ "actions": actions(), "hits_addend": { "number": 99 }, "apply_on_stream_done": true }),
                );
            }
            route.context("bench/envoy.yaml has no route")?.insert("rate_limits".into(), limits.into());
        }
        Ok(config)
    }

    /// Returns the module that the case loads.
    pub fn module(&self) -> Option<PathBuf> {
        match self.filter {
            Filter::None | Filter::RateLimit { .. } => None,
            Filter::Empty | Filter::Header | Filter::Told => {
                Some(artefacts::root().join("dist/bench/empty_filter.wasm"))
            }
            Filter::Floor => Some(artefacts::root().join("dist/bench/floor_filter.wasm")),
            Filter::Weir { .. } => before().filter(|_| self.before).or_else(|| Some(artefacts::wasm())),
        }
    }

    /// Returns whether a response shows that the case works.
    pub fn is_ready(&self, head: &str) -> bool {
        match self.filter {
            Filter::Weir { gateway: "none" | "elsewhere" | "nothing", .. } => true,
            Filter::Weir { .. } => head.to_ascii_lowercase().contains("x-ratelimit-remaining-tokens"),
            _ => true,
        }
    }

    fn http_filter(&self) -> Option<Value> {
        match self.filter {
            Filter::None => None,
            Filter::RateLimit { .. } => Some(rate_limit()),
            Filter::Empty => Some(self.wasm(&"".into())),
            Filter::Header => Some(self.wasm(&":path".into())),
            Filter::Told => Some(self.wasm(&TOLD.into())),
            Filter::Floor => Some(self.wasm(&floor().into())),
            Filter::Weir { gateway, header } => {
                let mut configuration = json!({
                    "adapter": { "cluster": "limitador-adapter", "timeout": "1s" },
                    "gateway": format!("bench/{gateway}"),
                });
                let identity = json!({ "header": "x-identity", "encoding": "json" });
                if let Some(fields) = configuration.as_object_mut().filter(|_| header) {
                    fields.insert("identity".into(), identity);
                }
                Some(self.wasm(&configuration))
            }
        }
    }

    fn wasm(&self, configuration: &Value) -> Value {
        let configuration = match configuration {
            Value::String(text) => {
                json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": text })
            }
            value => json!({ "@type": "type.googleapis.com/google.protobuf.Struct", "value": value }),
        };
        json!({
            "name": "wasm",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": "wasm",
                    "root_id": "wasm",
                    "vm_config": {
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": { "local": { "filename": self.module() } },
                    },
                    "configuration": configuration,
                },
            },
        })
    }
}

/// Returns the module in `BENCH_BEFORE`, for comparison.
fn before() -> Option<PathBuf> {
    std::env::var_os("BENCH_BEFORE").map(PathBuf::from)
}

const ROUTE: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config\
    /virtual_hosts/0/routes/0/route";

/// The descriptors of the case "Weir, one limit".
const ENTRIES: [(&str, &str); 4] = [
    ("limit", "bench/one/free"),
    ("unit", "tokens"),
    ("window", "86400s"),
    ("auth.identity.userid", "alice"),
];

/// The response headers of that case.
const TOLD: &str = "x-ratelimit-limit-tokens: 1000000000000
x-ratelimit-remaining-tokens: 999999999900
x-ratelimit-reset-tokens: 23h59m50s
ratelimit-policy: \"bench/one/free\";q=1000000000000;w=86400
ratelimit: \"bench/one/free\";r=999999999900;t=86390";

fn rate_limit() -> Value {
    json!({
        "name": "envoy.filters.http.ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": DOMAIN,
            "failure_mode_deny": true,
            "timeout": "1s",
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": { "envoy_grpc": { "cluster_name": "limitador-adapter" } },
            },
        },
    })
}

fn actions() -> Vec<Value> {
    let action =
        |(key, value)| json!({ "generic_key": { "descriptor_key": key, "descriptor_value": value } });
    ENTRIES.map(action).to_vec()
}

/// Returns the floor filter's configuration. The hold expires after a second, because a constant commit cannot name it.
fn floor() -> String {
    let mut entries = Entries::default();
    for (key, value) in ENTRIES {
        entries.push(key, value);
    }
    let item = |amount, ttl| {
        [Item { entries: &entries, amount, ttl, max: None, unenforced: false, draw: None }].into_iter()
    };
    let reserve = reserve("", item(100, Duration::from_secs(1)));
    let commit = commit("", item(100, Duration::ZERO));
    format!("limitador-adapter\n{}\n{}", hex(&reserve), hex(&commit))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
