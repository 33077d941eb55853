//! What a plain Envoy does while a part of Weir is away for two minutes, and how it finds back: an Envoy that ran before, and one
//! that starts meanwhile. Their module is a file. What Istio and Envoy Gateway do is in `istio/outages.rs` and
//! `envoy_gateway.rs`, and the table of all in `manifests/OUTAGES.md`.

use e2e::adapter::Adapter;
use e2e::cluster::Cluster;
use e2e::envoy::{Config, Envoy};
use e2e::probe::{self, HEALED, LIMITED};
use e2e::redis::Redis;
use e2e::upstream::Upstream;
use e2e::world::CONFIG;
use serde_json::json;
use std::time::{Duration, Instant};

const OUTAGE: Duration = Duration::from_secs(120);

/// How a request is answered: its status, and the limit that it was told.
type Told = (u16, Option<&'static str>);

/// An Envoy, and what it needs besides what is away.
struct World {
    config: Config,
    running: Envoy,
    _upstream: Upstream,
}

impl World {
    fn start(adapter: &Adapter) -> Self {
        let upstream = Upstream::start();
        let mut config = Config::read(CONFIG);
        config.cluster("llm", upstream.address());
        config.cluster("limitador-adapter", adapter.grpc());
        config.plugin(|plugin| {
            plugin["gateway"] = "default/gateway".into();
            plugin["adapter"]["timeout"] = "200ms".into();
        });
        let running = config.start(2);
        probe::becomes(running.address(), LIMITED);
        Self { config, running, _upstream: upstream }
    }

    /// Something has gone, and comes back: looks at both Envoys until they limit again.
    fn outage(&self, what: &str, [running, starting]: [Told; 2], back: impl FnOnce()) {
        let end = Instant::now() + OUTAGE;
        probe::becomes(self.running.address(), running);
        let started = self.config.start(2);
        probe::becomes(started.address(), starting);
        while Instant::now() < end {
            probe::stays(self.running.address(), running, 5);
            probe::stays(started.address(), starting, 5);
            std::thread::sleep(Duration::from_millis(500));
        }
        back();
        let returned = Instant::now();
        for (which, envoy) in [("running", &self.running), ("starting", &started)] {
            probe::becomes(envoy.address(), LIMITED);
            let took = returned.elapsed();
            println!(
                "{what}: running {running:?}, starting {starting:?}; the {which} one limits {took:?} after its return"
            );
            assert!(took < HEALED, "{what}, {which}: {took:?}");
        }
    }
}

fn told(mode: &str) -> Told {
    (if mode == "Allow" { 200 } else { 503 }, None)
}

fn redis(mode: &str) {
    let mut redis = Redis::start();
    let adapter = Adapter::start_on(&redis.url(0), &[probe::policy("gateway", mode)]);
    let world = World::start(&adapter);
    redis.kill();
    world.outage(&format!("Redis, {mode}"), [told(mode); 2], || redis.restart());
}

fn adapter(mode: &str) {
    let mut adapter = Adapter::start(&[probe::policy("gateway", mode)]);
    let world = World::start(&adapter);
    adapter.kill();
    // One that starts has no plan, so its own failureMode decides.
    world.outage(&format!("the adapter, {mode}"), [told(mode), told("Allow")], || adapter.restart());
}

#[test]
fn without_redis_allow_passes() {
    redis("Allow");
}

#[test]
fn without_redis_deny_refuses() {
    redis("Deny");
}

#[test]
fn without_the_adapter_allow_passes() {
    adapter("Allow");
}

#[test]
fn without_the_adapter_deny_refuses_where_the_plan_is_known() {
    adapter("Deny");
}

#[test]
fn without_the_api_server_limits_stay() {
    let mut cluster = Cluster::start();
    let kubeconfig = cluster.install();
    let listeners = json!([{ "name": "http", "protocol": "HTTP", "port": 80 }]);
    cluster.apply(
        &json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": { "name": "gateway", "namespace": "default" },
            "spec": { "gatewayClassName": "class", "listeners": listeners },
        })
        .to_string(),
    );
    cluster.apply(&probe::policy("gateway", "Deny"));
    let adapter = Adapter::start_in_cluster(&kubeconfig, &[]);
    let world = World::start(&adapter);
    cluster.kill_api_server();
    world.outage("the API server", [LIMITED; 2], || cluster.restart_api_server());
}
