//! How gateways behave during outages of parts of Weir, and how they recover. The outages take two minutes in
//! `make test-outages`, and seconds in `make test-envoy-gateway`.

use crate::Test;
use crate::world::{World, address};
use e2e::outage::{self, BY_POLICY, ENFORCED, MOSTLY_ENFORCED, NOT_READY, Outage};

pub const TESTS: &[Test] = &[
    ("outage_of_redis_running_and_starting_proxies_follow_the_policy", redis_away),
    ("outage_of_the_adapter_a_running_proxy_follows_the_policy", adapter_away),
    ("outage_of_one_node_few_requests_are_refused", node_silent),
    ("outage_of_the_api_server_limits_are_enforced", api_server_away),
];

fn redis_away(world: &mut World) {
    world.settle_for_outage();
    // A proxy that starts during the outage still gets the module and the plan.
    let outage = Outage::new("Redis", BY_POLICY, BY_POLICY);
    outage::play(world, outage, |world| world.redis.kill(), |world| world.redis.restart());
}

fn adapter_away(world: &mut World) {
    world.settle_for_outage();
    let outage = Outage::new("the adapter", BY_POLICY, NOT_READY);
    outage::play(world, outage, |world| world.installed.kill(), |world| world.installed.restart());
}

fn node_silent(world: &mut World) {
    world.settle_for_outage();
    let outage = Outage::new("one of two nodes, silent", MOSTLY_ENFORCED, MOSTLY_ENFORCED);
    outage::play(
        world,
        outage,
        |world| world.installed.silence_one(address()),
        |world| world.installed.unsilence(),
    );
}

fn api_server_away(world: &mut World) {
    world.settle_for_outage();
    let outage = Outage::new("the API server", ENFORCED, ENFORCED);
    outage::play(
        world,
        outage,
        |world| world.cluster.kill_api_server(),
        |world| world.cluster.restart_api_server(),
    );
}
