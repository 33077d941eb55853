//! Replicas, their leader, and the API server are stopped and restarted.

use super::{alice, gateway, policy, route};
use e2e::adapter::Adapter;
use e2e::cluster::Cluster;
use e2e::wait;
use e2e::world::World;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn limited(max: u64) -> Value {
    json!({ "limits": { "all": { "rates": [{ "limit": max, "window": "1h", "unit": "requests" }] } } })
}

fn named(name: &str) -> [&str; 2] {
    ["wtrlp", name]
}

#[test]
fn another_replica_writes_statuses_when_the_leader_is_killed() {
    let cluster = Cluster::start();
    let kubeconfig = cluster.install();
    let mut first = Adapter::start_in_cluster(&kubeconfig, &[]);
    cluster.apply(&gateway("llm"));
    cluster.apply(&route("chat", "llm", json!([{}])));
    cluster.apply(&policy("one", "Gateway", "llm", limited(1000)));
    cluster.wait_for_reason(&named("one"), "Enforced", "NoFilter");
    // The first replica writes the statuses. It must know about a filter that is connected to the second
    // replica.
    let second = Adapter::start_in_cluster(&kubeconfig, &[]);
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(second);
    cluster.wait_for_reason(&named("one"), "Enforced", "Enforced");
    let lease = || cluster.get(&["-n", "weir-system", "lease", "limitador-adapter"])["spec"].clone();
    let leader = lease()["holderIdentity"].clone();
    first.kill();
    let killed = Instant::now();
    cluster.apply(&policy("two", "Gateway", "llm", limited(500)));
    cluster.wait_for_reason(&named("two"), "Enforced", "Enforced");
    let took = killed.elapsed();
    let promised = Duration::from_secs(lease()["leaseDurationSeconds"].as_u64().unwrap());
    println!("the status was right {took:?} after the leader was killed, its Lease lasts {promised:?}");
    assert!(took < promised, "{took:?}");
    assert_ne!(lease()["holderIdentity"], leader);
    assert_eq!(world.send(&alice()).header("x-ratelimit-limit-requests"), Some("500"));
}

#[test]
fn an_api_server_that_is_away_changes_no_answer_and_what_it_missed_is_caught_up() {
    let mut cluster = Cluster::start();
    let kubeconfig = cluster.install();
    let adapter = Adapter::start_in_cluster(&kubeconfig, &[]);
    cluster.apply(&gateway("llm"));
    cluster.apply(&route("chat", "llm", json!([{}])));
    cluster.apply(&policy("one", "Gateway", "llm", limited(5)));
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(adapter);
    cluster.wait_for_reason(&named("one"), "Enforced", "Enforced");
    cluster.kill_api_server();
    let answers: Vec<_> = (0..6).map(|_| world.send(&alice()).status).collect();
    assert_eq!(answers, [200, 200, 200, 200, 200, 429]);
    assert_eq!(world.adapter.get("/readyz").status, 200, "what is known is served");
    cluster.restart_api_server();
    cluster.apply(&policy("one", "Gateway", "llm", limited(7)));
    wait::until("the edit", || {
        (world.send(&alice()).header("x-ratelimit-limit-requests") == Some("7")).then_some(())
    });
    let reached = wait::within(wait::DEADLINE, || {
        (cluster.get(&named("one"))["status"]["observedGeneration"] == 2).then_some(())
    });
    assert!(reached.is_some(), "{:#}", cluster.get(&named("one")));
}

#[test]
fn a_leader_that_is_told_to_end_gives_the_lease_back() {
    let cluster = Cluster::start();
    let mut adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    let holder = || {
        cluster.get(&["-n", "weir-system", "lease", "limitador-adapter"])["spec"]["holderIdentity"].clone()
    };
    wait::until("a leader", || holder().as_str().is_some_and(|holder| !holder.is_empty()).then_some(()));
    assert!(adapter.terminate().success());
    assert_eq!(holder(), "");
    assert_eq!(
        cluster.get(&["-n", "weir-system", "lease"])["items"].as_array().map(Vec::len),
        Some(1),
        "its own is gone"
    );
}
