//! The faults, each in a world of its own. Each function checks that no alert fires before its fault, where the fault
//! is made in a running world.

use crate::prometheus::Prometheus;
use crate::{
    admitted, by, overflow_the_queues, path, policies, start, start_as, tagged, usage_store,
    with_least_memory,
};
use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::postgres::Postgres;
use e2e::redis::Redis;
use e2e::world::World;
use serde_json::json;

/// How many scrapes of a healthy world come before a fault.
const BEFORE: usize = 3;

/// Waits for the alerts of a fault, under the traffic of one user.
fn fires(prometheus: &Prometheus, world: &World, alerts: &[&str]) {
    prometheus.fires(alerts, || drop(by("alice").try_send(world.envoy.address())));
}

pub fn adapter_away(alerts: &[&str]) {
    let mut world = start(tagged(), Adapter::start(&policies()));
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || admitted(&world));
    world.adapter.kill();
    let strict = path(by("alice"), "/strict");
    prometheus.fires(alerts, || {
        assert_eq!(world.send(&strict).status, 503);
        // Most requests fail open only once there are more of them than before the fault.
        (0..50).for_each(|_| assert_eq!(world.send(&by("alice")).status, 200));
    });
}

pub fn charges_dropped(alerts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let adapter = Adapter::start_as(&policies(), &["--usage", &usage_store(&folder)]);
    let mut world = start(with_least_memory(World::build()), adapter);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || admitted(&world));
    world.adapter.kill();
    overflow_the_queues(&world);
    fires(&prometheus, &world, alerts);
}

pub fn usage_estimated(alerts: &[&str]) {
    let world = start_as(&[]);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || admitted(&world));
    let unreported = Request::chat(5).answered_by("unreported");
    prometheus.fires(alerts, || (0..50).for_each(|_| assert_eq!(world.send(&unreported).status, 200)));
}

pub fn storage_full(alerts: &[&str]) {
    let redis = Redis::start();
    let world = start_as(&["--storage", &redis.url(0)]);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || admitted(&world));
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    fires(&prometheus, &world, alerts);
}

pub fn storage_away(alerts: &[&str]) {
    let mut redis = Redis::start();
    let world = start_as(&["--storage", &redis.url(0)]);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || admitted(&world));
    redis.kill();
    fires(&prometheus, &world, alerts);
    let up = prometheus.query("min(weir_storage_up)");
    assert_eq!(up[0].value, 0.0, "the adapter shows its metrics without its storage");
    assert!(!prometheus.firing().contains("WeirAdapterDown"));
}

pub fn storage_slow(alerts: &[&str]) {
    let redis = Redis::start();
    let world = start_as(&["--storage", &redis.url(0)]);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || admitted(&world));
    prometheus.fires(alerts, || {
        // Milliseconds. The filter of these tests waits for 2 s.
        redis.command(&["CLIENT", "PAUSE", "150", "ALL"]);
        world.send(&by("alice"));
    });
}

pub fn more_users_than_counters(alerts: &[&str]) {
    let world = start_as(&["--max-counters", "4"]);
    let prometheus = Prometheus::watch(&world);
    let mut users = 0..;
    prometheus.fires(alerts, || {
        let user = users.next().unwrap_or_default();
        assert_eq!(world.send(&by(&format!("user-{user}"))).status, 200);
    });
}

pub fn policy_with_errors(alerts: &[&str]) {
    let world = start_as(&[]);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || admitted(&world));
    world.adapter.write("invalid.yaml", "apiVersion: weir.dev/v1alpha1\nkind: TokenRateLimitPolicy\n");
    fires(&prometheus, &world, alerts);
}

pub fn no_request_bodies(alerts: &[&str]) {
    let builder = World::build().plugin(|plugin| plugin["requestBody"] = json!({ "access": "Buffer" }));
    let world = start(builder, Adapter::start(&policies()));
    let prometheus = Prometheus::watch(&world);
    fires(&prometheus, &world, alerts);
}

pub fn webhook_rejects(alerts: &[&str]) {
    // Another adapter has no such path.
    let receiver = Adapter::start(&policies());
    let url = format!("http://{}/no-webhook", receiver.http());
    let world = start_as(&["--webhook", &url]);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || {});
    // Each user reaches the threshold once.
    let mut users = 0..;
    prometheus.fires(alerts, || {
        let user = users.next().unwrap_or_default();
        (0..110).for_each(|_| drop(world.send(&by(&format!("user-{user}")))));
    });
}

pub fn usage_store_away(alerts: &[&str]) {
    let mut postgres = Postgres::start();
    let world = start_as(&["--usage", &postgres.url()]);
    let prometheus = Prometheus::watch(&world);
    prometheus.stays_quiet(BEFORE, || admitted(&world));
    postgres.kill();
    fires(&prometheus, &world, alerts);
}
