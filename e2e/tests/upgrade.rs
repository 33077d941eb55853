//! Upgrades under load, in either order. No request is refused, and Redis has counted all usage that the
//! provider reported.

use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::envoy::{Config, Envoy, typed, write_listener};
use e2e::module::ModuleVersion;
use e2e::redis::Redis;
use e2e::upstream::Upstream;
use e2e::world::{CONFIG, policy};
use e2e::{jwt, load, wait};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const WORKERS: u32 = 2;

/// Two adapters on one Redis, and an Envoy with a dynamic listener and a module that the adapters serve.
struct World {
    envoy: Envoy,
    listener: Value,
    place: PathBuf,
    adapters: Vec<Adapter>,
    upstream: Arc<Upstream>,
    redis: Redis,
    old: ModuleVersion,
    new: ModuleVersion,
    _folder: TempDir,
}

impl World {
    fn start(failure_mode: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|version| ModuleVersion::new(folder.path(), version));
        let redis = Redis::start();
        let limit = json!({
            "counters": [{ "expression": "auth.identity.userid" }],
            "reservation": { "amount": "100" },
            "rates": [{ "limit": 1_000_000_000, "window": "1h" }],
        });
        let policies =
            [policy("llm", json!({ "failureMode": failure_mode, "limits": { "per-user": limit } }))];
        let start = |_| Adapter::start_as(&policies, &["--storage", &redis.url(0), "--wasm", &old.file]);
        let adapters: Vec<_> = (0..2).map(start).collect();
        let upstream = Arc::new(Upstream::start());
        let mut config = Config::read(CONFIG);
        config.cluster("llm", upstream.address());
        let endpoints = json!([{ "lb_endpoints": [] }]);
        let serving = json!({ "cluster_name": "weir-wasm", "endpoints": endpoints });
        config.add_cluster(json!({ "name": "weir-wasm", "type": "STATIC", "load_assignment": serving }));
        config.cluster("limitador-adapter", adapters[0].grpc());
        config.also("limitador-adapter", adapters[1].grpc());
        adapters.iter().for_each(|adapter| config.also("weir-wasm", adapter.http()));
        let place = folder.path().join("listeners.json");
        let listener = config.listener_from(&place);
        write_listener(&place, &with_module(&listener, &old), 1);
        let envoy = config.start(WORKERS);
        let world = Self { envoy, listener, place, adapters, upstream, redis, old, new, _folder: folder };
        world.wait_for_plans(0);
        world
    }

    fn wait_for_plans(&self, before: u64) {
        let wanted = before + u64::from(WORKERS) + 1;
        wait::until("the plan in every worker", || (self.envoy.plans() >= wanted).then_some(()));
    }

    /// Upgrades the adapters one after another. Each serves its own module and the previous one.
    fn upgrade_adapters(&mut self) {
        let (storage, new, old) = (self.redis.url(0), self.new.file.clone(), self.old.file.clone());
        for place in 0..self.adapters.len() {
            self.adapters[place].replace(&["--storage", &storage, "--wasm", &new, "--wasm-previous", &old]);
            self.some_requests();
        }
    }

    /// Updates the listener to name the new module.
    fn upgrade_manifest(&self) {
        write_listener(&self.place, &with_module(&self.listener, &self.new), 2);
        let updates = "listener_manager.lds.update_success";
        wait::until("the new listener", || (self.envoy.stat(updates) == 2).then_some(()));
    }

    fn new_module_is_in_force(&self, plans: u64) {
        wait::until("the new module", || {
            (self.envoy.stat("listener_manager.total_listeners_warming") == 0).then_some(())
        });
        self.wait_for_plans(plans);
    }

    fn some_requests(&self) {
        load::some_requests(&self.upstream);
    }
}

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" })))
}

/// Configures the listener to fetch the module from an adapter, as the manifests do.
fn with_module(listener: &Value, module: &ModuleVersion) -> Value {
    let uri = format!("http://weir/weir-{}.wasm", module.digest);
    let code = json!({ "remote": {
        "http_uri": { "uri": uri, "cluster": "weir-wasm", "timeout": "10s" },
        "sha256": module.digest,
        "retry_policy": {
            "num_retries": 1_000_000,
            "retry_back_off": { "base_interval": "0.5s", "max_interval": "3s" },
        },
    } });
    // The digest forces a new VM for a new module, because Envoy's VM key does not include the digest until
    // the code has been fetched.
    let digest =
        json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": module.digest });
    with_code(listener, &json!({ "code": code, "configuration": digest }))
}

fn with_local_module(listener: &Value, module: &ModuleVersion) -> Value {
    with_code(listener, &json!({ "code": { "local": { "filename": module.file } } }))
}

fn with_code(listener: &Value, vm_config: &Value) -> Value {
    let mut listener = listener.clone();
    let wasm = typed(&mut listener, ".wasm.v3.Wasm").unwrap();
    wasm["config"]["configuration"]["value"]["failureMode"] = "Deny".into();
    for (field, value) in vm_config.as_object().unwrap() {
        wasm["config"]["vm_config"][field] = value.clone();
    }
    listener
}

/// Upgrades under load, and checks that every token is charged.
fn under_load(world: &mut World, upgrade: impl FnOnce(&mut World)) {
    let upstream = Arc::clone(&world.upstream);
    let reported = load::during(world.envoy.address(), &upstream, "alice", || upgrade(world));
    world.adapters[0].wait_for_bucket("per-user", "tokens", "alice", reported, 0);
}

#[test]
fn the_adapters_first_then_the_module() {
    let mut world = World::start("Deny");
    under_load(&mut world, |world| {
        world.upgrade_adapters();
        let plans = world.envoy.plans();
        world.upgrade_manifest();
        world.new_module_is_in_force(plans);
    });
}

#[test]
fn the_module_first_then_the_adapters() {
    let mut world = World::start("Deny");
    under_load(&mut world, |world| {
        world.upgrade_manifest();
        // No adapter serves the module yet.
        assert_eq!(world.envoy.stat("listener_manager.total_listeners_warming"), 1);
        world.some_requests();
        let plans = world.envoy.plans();
        world.upgrade_adapters();
        world.new_module_is_in_force(plans);
    });
}

#[test]
fn a_new_module_begins_with_the_plan_of_the_old_one() {
    let mut world = World::start("Allow");
    // No adapter can provide a plan, so the `failureMode` of the filter's configuration applies, which is
    // Deny.
    world.adapters.iter_mut().for_each(Adapter::kill);
    let plans = world.envoy.plans();
    write_listener(&world.place, &with_local_module(&world.listener, &world.new), 2);
    world.new_module_is_in_force(plans);
    let answer = alice().send(world.envoy.address());
    assert_eq!(answer.status, 200, "{}", answer.text());
}
