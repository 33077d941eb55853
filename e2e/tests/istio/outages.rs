//! How gateways behave during outages of parts of Weir, and how they recover. The outages take two minutes in
//! `make test-outages`, and seconds in `make test-istio`. All backoffs are shorter than that, except those
//! that have asserted bounds.

use crate::Test;
use crate::world::{GATEWAY, World, address};
use e2e::outage::{self, BY_POLICY, ENFORCED, MOSTLY_ENFORCED, NOT_READY, Outage};
use e2e::probe::{self, HEALED, LIMITED};
use e2e::wait;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_proxy_that_starts_before_the_adapter_heals_by_itself", starts_first),
    ("a_module_that_is_not_served_yet_leaves_the_old_one_in_force", another_module),
    ("an_upgrade_of_the_module_takes_effect_and_refuses_nobody", upgrade),
    ("outage_of_redis_running_and_starting_proxies_follow_the_policy", redis_away),
    ("outage_of_the_adapter_a_running_proxy_follows_the_policy", adapter_away),
    ("outage_of_one_node_few_requests_are_refused", node_silent),
    ("outage_of_the_api_server_a_running_proxy_enforces_limits", api_server_away),
];

/// Longer than the longest backoff of Istio's agent and its Envoy.
const AGENT: Duration = Duration::from_secs(90);
/// Longer than the longest backoff of everything else.
const AWHILE: Duration = Duration::from_secs(12);

fn starts_first(world: &mut World) {
    world.settle("Deny");
    world.stop_proxy();
    world.installed.kill();
    world.start_proxy(GATEWAY);
    // The proxy is not ready, so it receives no requests.
    let ready = wait::within(AWHILE, || world.is_ready().then_some(()));
    assert!(ready.is_none(), "it is ready without its module");
    world.installed.restart();
    let back = Instant::now();
    world.is_ready_within(HEALED);
    println!("a starting proxy is ready {:?} after the adapter's return", back.elapsed());
    probe::heals("the adapter, for a starting proxy", address());
}

/// The filter's configuration arrives before any adapter serves its module.
fn another_module(world: &mut World) {
    world.settle("Allow");
    let ours = world.installed.adapter().get("/weir.wasm.sha256").text();
    let manifest = world.installed.manifest("istio/envoyfilter.yaml", GATEWAY);
    world.cluster.apply(&manifest.replace(ours.trim(), &"ab".repeat(32)));
    wait::until("the new listener", || {
        world.admin("/config_dump?resource=dynamic_listeners").text().contains("warming_state").then_some(())
    });
    // Without the filter, Envoy itself would answer 503. On a busy machine, the adapter's reply may arrive
    // too late.
    let (end, mut limited) = (Instant::now() + AWHILE, 0);
    while Instant::now() < end {
        let answer = probe::alice().send(address());
        assert_eq!(answer.status, 200, "{}", answer.text());
        limited += usize::from(probe::told(&answer) == LIMITED);
    }
    assert!(limited > 0);
    assert!(world.is_ready());
    world.apply_filter();
    wait::until("the end of that listener", || {
        let dump = world.admin("/config_dump?resource=dynamic_listeners").text();
        (!dump.contains("warming_state")).then_some(())
    });
    probe::becomes(address(), LIMITED);
}

fn upgrade(world: &mut World) {
    world.settle("Deny");
    let vms = |world: &World| {
        let stats = world.admin("/stats?filter=wasm.envoy.wasm.runtime.v8.created").text();
        stats.trim().rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or_default()
    };
    let before = vms(world);
    let ours = world.installed.adapter().get("/weir.wasm.sha256").text();
    let manifest = world.installed.manifest("istio/envoyfilter.yaml", GATEWAY);
    world.cluster.apply(&manifest.replace(ours.trim(), &world.other.digest));
    wait::until("VMs of the other module", || {
        probe::stays(address(), LIMITED, 1);
        (vms(world) > before).then_some(())
    });
    wait::until("the other module", || {
        probe::stays(address(), LIMITED, 1);
        let dump = world.admin("/config_dump?resource=dynamic_listeners").text();
        (dump.contains(&world.other.digest) && !dump.contains("warming_state")).then_some(())
    });
    probe::stays(address(), LIMITED, 50);
    world.apply_filter();
}

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
    // Istio's control plane asks the API server whether a pod's token is valid, and its agent retries with
    // backoffs, regardless of the gateway's filters.
    let outage = Outage { starts_within: AGENT, ..Outage::new("the API server", ENFORCED, NOT_READY) };
    outage::play(
        world,
        outage,
        |world| world.cluster.kill_api_server(),
        |world| world.cluster.restart_api_server(),
    );
}
