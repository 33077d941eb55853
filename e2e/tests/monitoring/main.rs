//! The dashboard and the alerts of `manifests/monitoring/`, with a real Prometheus that scrapes Envoy and the adapter
//! under traffic. `make test-monitoring` installs Prometheus and runs this test.

mod faults;
mod files;
mod prometheus;

use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::jwt;
use e2e::upstream::Answer;
use e2e::wait;
use e2e::world::{self, Builder, World, policy};
use prometheus::{Prometheus, read};
use regex::Regex;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// A configuration with `stats_tags`. [`world::CONFIG`] has none, as the proxies of Envoy Gateway and Istio.
const TAGGED: &str = "manifests/envoy/envoy.yaml";

/// The smallest memory budget of a worker, which limits the charges and records that it keeps.
const LEAST_MEMORY: u64 = 16 << 20;

/// The maximum number of counters of a limit, and the maximum length of a counter's value.
const WIDTH: usize = 16;
const LONGEST_VALUE: usize = 512;

/// Declares a test for each fault, with the alerts that must fire.
macro_rules! faults {
    ($($fault:ident => [$($alert:literal),*];)*) => {
        /// The alerts that the tests make fire.
        const FIRED: &[&str] = &[$($($alert),*),*];

        $(#[test]
        fn $fault() {
            faults::$fault(&[$($alert),*]);
        })*
    };
}

faults! {
    adapter_away => ["WeirAdapterDown", "WeirAdapterReplicaDown", "WeirEverythingFailsOpen", "WeirFailingOpen", "WeirFailingClosed"];
    charges_dropped => ["WeirChargesDropped", "WeirUsageRecordsDropped"];
    usage_estimated => ["WeirUsageEstimated"];
    storage_full => ["WeirStorageFull", "WeirStorageNearlyFull"];
    storage_away => ["WeirStorageUnavailable"];
    storage_slow => ["WeirAdapterSlow"];
    more_users_than_counters => ["WeirCountersOverflow"];
    policy_with_errors => ["WeirPoliciesInvalid"];
    no_request_bodies => ["WeirRequestBodiesMissing"];
    webhook_rejects => ["WeirWebhookFails"];
    usage_store_away => ["WeirUsageStoreDown"];
}

/// Returns a builder for a world with [`TAGGED`]. The timeout is long, so that a busy machine is not a fault.
fn tagged() -> Builder {
    World::build().config(TAGGED).plugin(|plugin| plugin["adapter"]["timeout"] = "2s".into())
}

/// Returns the policies of these tests: one that fails open, and a stricter one for some paths.
fn policies() -> Vec<String> {
    let counters = json!([{ "expression": "auth.identity.userid" }]);
    let limit = |max: u64| {
        let rates = json!([{ "limit": max, "window": "1h" }]);
        json!({ "counters": counters, "reservation": { "amount": "100" }, "rates": rates })
    };
    let (mut warned, mut soft, mut tested, mut small) =
        (limit(1_000_000), limit(100), limit(1_000_000), limit(150));
    warned["warnAt"] = json!(["1%"]);
    soft["boundary"] = "Soft".into();
    soft["when"] = json!([{ "predicate": "request.url_path.startsWith('/soft')" }]);
    tested["when"] = json!([{ "predicate": "request.url_path.startsWith('/tested')" }]);
    tested["enforceWhen"] = "int(auth.identity.userid) > 0".into();
    small["when"] = json!([{ "predicate": "request.url_path.startsWith('/small')" }]);
    let mut wide = limit(1_000_000);
    wide["when"] = json!([{ "predicate": "request.url_path.startsWith('/wide')" }]);
    let header = |index| json!({ "expression": format!("request.headers['x-wide-{index}']") });
    wide["counters"] = (0..WIDTH).map(header).collect();
    let limits = json!({ "per-user": warned, "soft": soft, "tested": tested, "small": small, "wide": wide });
    let strict = json!({ "failureMode": "Deny", "limits": { "per-user": limit(1_000_000) },
        "when": [{ "predicate": "request.url_path.startsWith('/strict')" }] });
    vec![policy("llm", json!({ "failureMode": "Allow", "limits": limits })), policy("strict", strict)]
}

/// Starts a world with this adapter.
fn start(builder: Builder, adapter: Adapter) -> World {
    let world = builder.start_with(adapter);
    world.upstream.on("used", Answer::used(100));
    let message = json!({ "choices": [{ "message": { "content": "hello" } }] });
    world.upstream.on("unreported", Answer::json(200, &message));
    world
        .upstream
        .on("malformed", Answer::new(200).header("content-type", "application/json").bytes("{\"usage"));
    world
}

/// Starts a world with these arguments for its adapter.
fn start_as(further: &[&str]) -> World {
    start(World::build(), Adapter::start_as(&policies(), further))
}

/// Returns a user's request. Its response reports usage.
fn by(user: &str) -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": user }))).answered_by("used")
}

fn path(request: Request, prefix: &str) -> Request {
    request.path(&format!("{prefix}/v1/chat/completions"))
}

/// Sends a request that must be admitted.
fn admitted(world: &World) {
    assert_eq!(world.send(&by("alice")).status, 200);
}

/// Sends a user's requests from several connections until this is true.
fn send_until(world: &World, request: &Request, mut is_reached: impl FnMut() -> bool) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    drop(request.try_send(world.envoy.address()));
                }
            });
        }
        let end = EndClients(&ended);
        let reached = wait::within(2 * wait::DEADLINE, || is_reached().then_some(()));
        drop(end);
        assert!(reached.is_some(), "{}", world.envoy.stats("weir_"));
    });
}

/// Ends the clients even if the test fails, so that it does not wait for them.
struct EndClients<'a>(&'a AtomicBool);

impl Drop for EndClients<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Makes the filter drop charges and usage records, which needs a filter with [`LEAST_MEMORY`]. The adapter must be
/// away.
fn overflow_the_queues(world: &World) {
    // The queues contain the counters' values.
    let wide = (0..WIDTH).fold(path(by("alice"), "/wide"), |request, index| {
        request.header(&format!("x-wide-{index}"), "a".repeat(LONGEST_VALUE))
    });
    send_until(world, &wide, || {
        let dropped = |what: &str| world.envoy.stat(&format!("wasmcustom.weir_{what}_dropped"));
        dropped("commits") > 0 && dropped("usage_records") > 0
    });
}

fn with_least_memory(builder: Builder) -> Builder {
    let small = builder.reading_bodies(1 << 16);
    small.plugin(|plugin| plugin["memory"] = json!({ "maxBytes": LEAST_MEMORY }))
}

fn usage_store(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("usage.db").display())
}

#[test]
fn no_alert_fires_without_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let store = usage_store(&folder);
    let adapter = Adapter::start_as(&policies(), &["--usage", &store]);
    let world = start(tagged(), adapter);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(15, || {
        admitted(&world);
        // Refusals and requests beyond a soft limit are no faults.
        for prefix in ["/small", "/soft"] {
            world.send(&path(by("bob"), prefix));
        }
    });
    assert!(prometheus.query("sum(rate(weir_refused[5m]))")[0].value > 0.0);
}

#[test]
fn every_panel_shows_data_from_a_proxy_with_stats_tags() {
    panels(tagged());
}

#[test]
fn every_panel_shows_data_from_a_proxy_without_stats_tags() {
    panels(World::build().config(world::CONFIG));
}

/// Sends requests of every kind.
fn everything(world: &World) {
    for request in [
        by("alice"),
        path(by("bob"), "/small"),
        path(by("bob"), "/soft"),
        path(by("bob"), "/tested"),
        path(by("bob"), "/strict"),
        Request::chat(5).token(&jwt::token(&json!({ "sub": "no userid" }))).answered_by("used"),
        Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" }))).answered_by("malformed"),
        by("alice").body("{\"model\": \"gpt"),
    ] {
        drop(request.try_send(world.envoy.address()));
    }
}

fn panels(builder: Builder) {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--usage", &usage_store(&folder), "--counter-memory", "64Ki"];
    let adapter = Adapter::start_as(&policies(), &arguments);
    let mut world = start(with_least_memory(builder), adapter);
    let prometheus = Prometheus::watch(&world);
    everything(&world);
    world.adapter.kill();
    overflow_the_queues(&world);
    everything(&world);
    world.adapter.restart();
    let (mut users, mut empty) = (0.., Vec::new());
    let reached = wait::within(wait::DEADLINE, || {
        everything(&world);
        // At some point, there is no room for another counter.
        users.by_ref().take(5).for_each(|user| drop(world.send(&by(&format!("user-{user}")))));
        empty = expressions()
            .into_iter()
            .filter(|(_, expression)| !shows_data(&prometheus, expression))
            .collect();
        empty.is_empty().then_some(())
    });
    assert!(reached.is_some(), "no data: {empty:#?}");
}

/// Returns the expressions of the dashboard, with the titles of their panels.
fn expressions() -> Vec<(String, String)> {
    let panels = read("dashboard.json")["panels"].take();
    let panels = panels.as_array().expect("panels").iter();
    let of = |panel: &Value| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        targets.iter().map(|target| (text(&panel["title"]), text(&target["expr"]))).collect::<Vec<_>>()
    };
    panels.flat_map(of).collect()
}

/// Returns whether an expression has a number, with a value for each label that it groups by.
fn shows_data(prometheus: &Prometheus, expression: &str) -> bool {
    let grouped = Regex::new(r"by \(([a-z_, ]+)\)").unwrap();
    let labels = grouped.captures(expression).map(|found| found[1].replace("le, ", "")).unwrap_or_default();
    let labels = labels.split(", ").filter(|label| !label.is_empty());
    let found = prometheus.query(&expression.replace("$__rate_interval", "5m"));
    let mut found = found.iter().filter(|sample| sample.value.is_finite());
    found.any(|sample| {
        labels.clone().all(|label| sample.labels.get(label).is_some_and(|value| !value.is_empty()))
    })
}
