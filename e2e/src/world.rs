//! The whole system: an upstream, the adapter with some policies, and Envoy between a client and both.

use crate::adapter::Adapter;
use crate::client::{InFlight, Request, Response};
use crate::envoy::{Config, Envoy};
use crate::upstream::Upstream;
use crate::wait;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The default Envoy configuration for tests.
pub const CONFIG: &str = "e2e/envoy.yaml";

/// Returns a policy for the gateway as JSON, which is also YAML. `spec` excludes the target.
pub fn policy(name: &str, mut spec: Value) -> String {
    spec["targetRef"] = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway" });
    let kind = "TokenRateLimitPolicy";
    json!({ "apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
        .to_string()
}

/// Returns a limit of this many tokens per hour and user. Each request holds 100.
pub fn per_user(max: u64) -> Value {
    json!({
        "counters": [{ "expression": "auth.identity.userid" }],
        "reservation": { "amount": "100" },
        "rates": [{ "limit": max, "window": "1h" }]
    })
}

/// The running parts. Envoy is dropped first, so that the parts that it needs outlive it.
pub struct World {
    /// Envoy with the filter.
    pub envoy: Envoy,
    pub adapter: Adapter,
    /// A second Envoy between Envoy and the adapter, if the test needs one.
    pub between: Option<Envoy>,
    pub upstream: Upstream,
    workers: u32,
}

/// The configuration of a world.
pub struct Builder {
    policies: Vec<String>,
    config: Config,
    between: Option<Config>,
    workers: u32,
    storage: String,
    others: Vec<SocketAddr>,
}

impl World {
    /// Starts a world with this policy. The YAML may contain several documents.
    pub fn with(policy: &str) -> World {
        Self::build().policy(policy).start()
    }

    /// Returns a builder for a world with more settings.
    pub fn build() -> Builder {
        let (storage, others) = ("memory".to_owned(), Vec::new());
        Builder {
            policies: Vec::new(),
            config: Config::read(CONFIG),
            between: None,
            workers: 1,
            storage,
            others,
        }
    }

    /// Edits a policy file and waits until the edit is in force in every worker.
    pub fn edit(&self, file: &str, policy: &str) {
        let before = self.envoy.plans();
        self.adapter.write(file, policy);
        self.wait_for_plans(before);
    }

    /// Waits until every worker and Envoy's main thread have put another plan into force. `before` is the
    /// number of plans before the edit.
    fn wait_for_plans(&self, before: u64) {
        let wanted = before + u64::from(self.workers) + 1;
        wait::until("the plan in every worker", || (self.envoy.plans() >= wanted).then_some(()));
    }

    /// Sends a request through Envoy and reads the response.
    pub fn send(&self, request: &Request) -> Response {
        request.send(self.envoy.address())
    }

    /// Sends a request through Envoy without waiting for the response.
    pub fn open(&self, request: &Request) -> InFlight {
        request.open(self.envoy.address())
    }
}

impl Builder {
    /// Adds a policy file.
    pub fn policy(mut self, policy: &str) -> Self {
        self.policies.push(policy.to_owned());
        self
    }

    /// Uses another Envoy configuration, by its path in the repository.
    pub fn config(mut self, path: &str) -> Self {
        self.config = Config::read(path);
        self
    }

    /// Edits Envoy's configuration.
    pub fn change(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Edits the filter's configuration.
    pub fn plugin(self, change: impl FnOnce(&mut Value)) -> Self {
        self.change(|config| config.plugin(change))
    }

    /// Puts another Envoy between Envoy and the adapter.
    pub fn between(mut self, config: Config) -> Self {
        self.between = Some(config);
        self
    }

    /// Makes the filter buffer request bodies and read up to this many bytes of each.
    pub fn reading_bodies(self, most: usize) -> Self {
        let reading = self.plugin(|plugin| {
            plugin["requestBody"] = json!({ "access": "Buffer", "maxBytes": most });
        });
        reading.change(|config| config.wasm()["config"]["allow_on_headers_stop_iteration"] = true.into())
    }

    /// Sets the number of Envoy's worker threads.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the adapter's storage.
    pub fn storage(mut self, storage: &str) -> Self {
        self.storage = storage.to_owned();
        self
    }

    /// Adds another adapter for Envoy to use.
    pub fn also_asks(mut self, adapter: &Adapter) -> Self {
        self.others.push(adapter.grpc());
        self
    }

    /// Starts everything and waits until it is ready.
    pub fn start(self) -> World {
        let adapter = Adapter::start_on(&self.storage, &self.policies);
        self.start_with(adapter)
    }

    /// Like `start`, but with an adapter that is already running.
    pub fn start_with(mut self, adapter: Adapter) -> World {
        let upstream = Upstream::start();
        self.config.cluster("llm", upstream.address());
        if self.config.has_cluster("small-llm") {
            self.config.cluster("small-llm", upstream.address());
        }
        let between = self.between.map(|mut config| {
            config.cluster("limitador-adapter", adapter.grpc());
            config.start(1)
        });
        self.config.cluster("limitador-adapter", between.as_ref().map_or(adapter.grpc(), Envoy::address));
        for other in self.others {
            self.config.also("limitador-adapter", other);
        }
        let has_weir = self.config.filters().iter().any(|filter| filter["name"] == "weir");
        let envoy = self.config.start(self.workers);
        let world = World { envoy, adapter, between, upstream, workers: self.workers };
        if has_weir {
            world.wait_for_plans(0);
        }
        world
    }
}
