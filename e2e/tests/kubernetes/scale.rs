//! A thousand policies on five hundred routes are enforced, and only the policies of its own route apply to a
//! request. The test prints their cost. Tests of the crate `policy` assert that a request examines only its
//! own routes and policies.

use super::{gateway, policy, route};
use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::cluster::Cluster;
use e2e::wait;
use e2e::world::World;
use serde_json::json;
use std::time::Instant;

const ROUTES: usize = 500;
const REQUESTS: u64 = 1_000;

/// Returns the CPU time of a process in microseconds, and its memory in kilobytes.
fn used(pid: i32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (ticks * 10_000, resident.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Returns Envoy's CPU time in microseconds for a request to which no route's policy applies.
fn cost(world: &World) -> u64 {
    let before = used(world.envoy.pid()).0;
    for _ in 0..REQUESTS {
        assert_eq!(world.send(&Request::get("/nothing/here")).status, 200);
    }
    (used(world.envoy.pid()).0 - before) / REQUESTS
}

fn list(objects: impl Iterator<Item = String>) -> String {
    let items: Vec<serde_json::Value> =
        objects.map(|object| serde_json::from_str(&object).unwrap()).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

#[test]
fn a_thousand_policies_come_into_force() {
    let cluster = Cluster::start();
    let adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    cluster.apply(&gateway("llm"));
    let limits = |max: usize| {
        json!({ "limits": { "free": {
        "when": [{ "predicate": "request.path.startsWith('/team') && auth.identity.plan == 'free'" }],
        "counters": [{ "expression": "auth.identity.userid" }],
        "rates": [{ "limit": max, "window": "1h", "unit": "requests" }],
    } } })
    };
    let path = |index: usize| format!("/team-{index}/v1/chat");
    let rules =
        |index: usize| json!([{ "matches": [{ "path": { "type": "PathPrefix", "value": path(index) } }] }]);
    cluster.apply(&route("team-0", "llm", rules(0)));
    cluster.apply(&policy("team-0-a", "HTTPRoute", "team-0", limits(1_000_000)));
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(adapter);
    let who = e2e::jwt::token(&json!({ "userid": "alice", "plan": "free" }));
    let team = |index: usize| Request::get(&path(index)).token(&who);
    let met = |index: usize| world.send(&team(index)).header("x-ratelimit-limit-requests").map(str::to_owned);
    wait::until("the first policy", || (met(0).as_deref() == Some("1000000")).then_some(()));
    let few = cost(&world);
    let (adapter_before, envoy_before) = (used(world.adapter.pid()).1, used(world.envoy.pid()).1);

    let routes = (1..ROUTES).map(|index| route(&format!("team-{index}"), "llm", rules(index)));
    let policies = (1..ROUTES).flat_map(|index| {
        let name = format!("team-{index}");
        ["a", "b"]
            .map(|which| policy(&format!("{name}-{which}"), "HTTPRoute", &name, limits(1_000_000 + index)))
    });
    let applied = Instant::now();
    cluster.run_with(&["apply", "--server-side", "-f", "-"], &list(routes.chain(policies)));
    println!("{} objects were applied in {:?}", 3 * (ROUTES - 1), applied.elapsed());
    let applied = Instant::now();
    let last = ROUTES - 1;
    let all = format!("in force: {} policies", 2 * last + 1);
    wait::until("all policies in both VMs", || (world.envoy.log().matches(&all).count() >= 2).then_some(()));
    println!("all of them were in force {:?} later", applied.elapsed());
    for index in [1, ROUTES / 2, last] {
        assert_eq!(met(index), Some((1_000_000 + index).to_string()));
    }
    let many = cost(&world);
    let (adapter_after, envoy_after) = (used(world.adapter.pid()).1, used(world.envoy.pid()).1);
    println!(
        "Envoy's processor per request, no limit for the path: {few} us with one route, {many} us with {ROUTES}"
    );
    println!(
        "the adapter's memory: {adapter_before} kB, then {adapter_after} kB; Envoy's (two VMs): {envoy_before} kB, then {envoy_after} kB"
    );
}
