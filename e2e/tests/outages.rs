//! How a plain Envoy behaves during outages of parts of Weir, and how it recovers. Its module is a file.
//! Other tests cover Istio and Envoy Gateway, and `manifests/OUTAGES.md` has a table of all three.

use e2e::adapter::Adapter;
use e2e::cluster::Cluster;
use e2e::envoy::{Config, Envoy};
use e2e::network::Service;
use e2e::outage::{self, BY_FILTER, BY_POLICY, ENFORCED, MOSTLY_ENFORCED, Outage, Proxies};
use e2e::redis::Redis;
use e2e::upstream::Upstream;
use e2e::world::CONFIG;
use serde_json::json;
use std::net::SocketAddr;

/// An Envoy and the parts that it needs. Any of these parts may be unavailable.
struct World {
    config: Config,
    running: Envoy,
    another: Option<Envoy>,
    adapters: Vec<Adapter>,
    redis: Option<Redis>,
    cluster: Option<Cluster>,
    service: Option<Service>,
    _upstream: Upstream,
}

impl World {
    /// The Envoy uses the adapter cluster from our manifest, but without TLS.
    fn start(adapters: Vec<Adapter>, to: SocketAddr) -> Self {
        let upstream = Upstream::start();
        let mut config = Config::read(CONFIG);
        config.cluster("llm", upstream.address());
        config.adapter_as_shipped(to);
        config.plugin(|plugin| {
            plugin["gateway"] = "default/gateway".into();
            plugin["adapter"]["timeout"] = "200ms".into();
        });
        let running = config.start(2);
        Self {
            config,
            running,
            another: None,
            adapters,
            redis: None,
            cluster: None,
            service: None,
            _upstream: upstream,
        }
    }

    fn with(adapter: Adapter) -> Self {
        let to = adapter.grpc();
        Self::start(vec![adapter], to)
    }
}

impl Proxies for World {
    const NAME: &'static str = "plain Envoy";

    fn running(&self) -> SocketAddr {
        self.running.address()
    }

    fn start_another(&mut self) -> SocketAddr {
        let another = self.config.start(2);
        self.another.insert(another).address()
    }

    /// `start_another` has already waited until the proxy is ready.
    fn other_is_ready(&self) -> bool {
        self.another.is_some()
    }

    fn end_other(&mut self) {
        drop(self.another.take());
    }
}

#[test]
fn without_redis_the_policy_decides() {
    let redis = Redis::start();
    let adapter = Adapter::start_on(&redis.url(0), &outage::policies("gateway"));
    let mut world = World { redis: Some(redis), ..World::with(adapter) };
    let redis = |world: &mut World, change: fn(&mut Redis)| world.redis.iter_mut().for_each(change);
    let outage = Outage::new("Redis", BY_POLICY, BY_POLICY);
    outage::play(&mut world, outage, |world| redis(world, Redis::kill), |world| redis(world, Redis::restart));
}

#[test]
fn without_the_adapter_the_policy_decides_where_the_plan_is_known() {
    let mut world = World::with(Adapter::start(&outage::policies("gateway")));
    let outage = Outage::new("the adapter", BY_POLICY, BY_FILTER);
    let adapter = |world: &mut World, change: fn(&mut Adapter)| world.adapters.iter_mut().for_each(change);
    outage::play(
        &mut world,
        outage,
        |world| adapter(world, Adapter::kill),
        |world| adapter(world, Adapter::restart),
    );
}

/// Two adapters are behind one address. One of them suddenly stops answering, but its connections stay open.
#[test]
fn a_silent_node_costs_few_requests() {
    let redis = Redis::start();
    let start = |_| Adapter::start_on(&redis.url(0), &outage::policies("gateway"));
    let adapters: Vec<Adapter> = (0..2).map(start).collect();
    let ports = adapters.iter().map(|adapter| adapter.grpc().port()).collect();
    let service = Service::new("10.0.0.21", &[(8081, ports)]);
    let world = World::start(adapters, ([10, 0, 0, 21], 8081).into());
    let mut world = World { redis: Some(redis), service: Some(service), ..world };
    let outage = Outage::new("one of two nodes, silent", MOSTLY_ENFORCED, MOSTLY_ENFORCED);
    outage::play(
        &mut world,
        outage,
        |world| {
            let silent = outage::busiest(&world.adapters, world.running());
            let silent = world.adapters[silent].grpc().port();
            world.service.iter().for_each(|service| service.silence(&[silent]));
        },
        |world| world.service.iter().for_each(Service::unsilence),
    );
}

#[test]
fn without_the_api_server_limits_stay() {
    let cluster = Cluster::start();
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
    outage::policies("gateway").iter().for_each(|policy| cluster.apply(policy));
    let adapter = Adapter::start_in_cluster(&kubeconfig, &[]);
    let mut world = World { cluster: Some(cluster), ..World::with(adapter) };
    let outage = Outage::new("the API server", ENFORCED, ENFORCED);
    let cluster = |world: &mut World, change: fn(&mut Cluster)| world.cluster.iter_mut().for_each(change);
    outage::play(
        &mut world,
        outage,
        |world| cluster(world, Cluster::kill_api_server),
        |world| cluster(world, Cluster::restart_api_server),
    );
}
