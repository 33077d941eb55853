//! An applied policy is enforced, and its status reports that.

use super::routes::requests;
use super::{alice, gateway, policy, route};
use e2e::adapter::Adapter;
use e2e::cluster::Cluster;
use e2e::upstream::Answer;
use e2e::wait;
use e2e::world::World;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const POLICY: [&str; 2] = ["trlp.kuadrant.io", "llm-token-limits"];

/// Returns the time until the first of three successful requests in a row.
fn takes_effect(world: &World, what: &str, done: impl Fn(&e2e::client::Response) -> bool) -> Duration {
    let begun = Instant::now();
    let took = wait::until(what, || {
        let answer = world.send(&alice());
        done(&answer).then(|| begun.elapsed())
    });
    println!("{what}: {took:?} after kubectl");
    took
}

fn limited_to(answer: &e2e::client::Response) -> Option<&str> {
    answer.header("x-ratelimit-limit-tokens")
}

#[test]
fn the_announced_policy_is_accepted_and_enforced_within_a_second_and_edited_and_deleted() {
    let cluster = Cluster::start();
    let adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    cluster.apply(&gateway("api-gateway"));
    cluster.apply(&route("llm", "api-gateway", json!([{}])));
    let world =
        World::build().plugin(|plugin| plugin["gateway"] = json!("default/api-gateway")).start_with(adapter);
    world.upstream.on("much", Answer::used(20_000));
    assert_eq!(limited_to(&world.send(&alice())), None);
    let machines = || world.envoy.stats("wasm.envoy.wasm.runtime.v8.created");
    let before = (machines(), world.envoy.stats("listener_manager.listener_"));

    cluster.run(&["apply", "-f", "examples/kuadrant/policy.yaml"]);
    let took = takes_effect(&world, "the policy", |answer| limited_to(answer) == Some("20000"));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(world.send(&alice().answered_by("much")).status, 200);
    let refused =
        wait::until("the refusal", || Some(world.send(&alice())).filter(|answer| answer.status == 429));
    assert!(refused.text().contains("default/llm-token-limits"), "{}", refused.text());

    cluster.wait_for_reason(&POLICY, "Accepted", "Accepted");
    cluster.wait_for_reason(&POLICY, "Enforced", "Enforced");
    let status = cluster.get(&POLICY)["status"].clone();
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["ancestors"][0]["ancestorRef"]["name"], "api-gateway");
    assert_eq!(status["ancestors"][0]["controllerName"], "weir.dev/limitador-adapter");
    assert_eq!(status["ancestors"][0]["conditions"][1]["status"], "True");
    cluster.run(&["wait", "--for=condition=Enforced", "trlp.kuadrant.io/llm-token-limits"]);
    let events = || cluster.get(&["events.events.k8s.io"])["items"].to_string();
    wait::until("an event", || events().contains("\"Enforced\"").then_some(()));

    let edit =
        |patch: Value| cluster.run(&["patch", POLICY[0], POLICY[1], "--type=json", "-p", &patch.to_string()]);
    edit(json!([{ "op": "replace", "path": "/spec/limits/free/rates/0/limit", "value": 50_000 }]));
    let took = takes_effect(&world, "the edit", |answer| limited_to(answer) == Some("50000"));
    assert!(took < Duration::from_secs(1), "{took:?}");

    edit(json!([
        { "op": "replace", "path": "/spec/limits/free/rates/0/limit", "value": 70_000 },
        { "op": "replace", "path": "/spec/limits/free/when/0/predicate", "value": "request.path ==" },
        { "op": "replace", "path": "/spec/limits/gold/counters/0/expression", "value": "nobody.knows" },
    ]));
    let told = cluster.wait_for_reason(&POLICY, "Accepted", "Invalid");
    for path in ["spec.limits.free.when[0].predicate: ", "spec.limits.gold.counters[0].expression: "] {
        assert!(told["message"].to_string().contains(path), "{told:#}");
    }
    assert_eq!(told["observedGeneration"], 3);
    cluster.wait_for_reason(&POLICY, "Enforced", "Stale");
    assert_eq!(limited_to(&world.send(&alice())), Some("50000"), "the last good version stays");

    cluster.run(&["delete", POLICY[0], POLICY[1]]);
    let took = takes_effect(&world, "the deletion", |answer| limited_to(answer).is_none());
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(
        (machines(), world.envoy.stats("listener_manager.listener_")),
        before,
        "neither a VM nor a listener is new"
    );
}

#[test]
fn a_policy_of_bodies_is_no_obstacle_to_others_where_filters_read_none_and_its_status_says_so() {
    let cluster = Cluster::start();
    let adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    cluster.apply(&gateway("llm"));
    cluster.apply(&route("chat", "llm", json!([{}])));
    let mut of_bodies = requests("model", 3);
    of_bodies["limits"]["model"]["when"] = json!([{ "predicate": "llm.model == 'gpt-4o'" }]);
    cluster.apply(&policy("bodies", "Gateway", "llm", of_bodies));
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(adapter);
    cluster.apply(&policy("plain", "Gateway", "llm", requests("plain", 700)));
    let limit =
        |answer: &e2e::client::Response| answer.header("x-ratelimit-limit-requests").map(str::to_owned);
    takes_effect(&world, "the other policy", |answer| limit(answer).as_deref() == Some("700"));
    cluster.wait_for_reason(&["wtrlp", "plain"], "Enforced", "Enforced");
    let told = cluster.wait_for_reason(&["wtrlp", "bodies"], "Enforced", "NoBodyAccess");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("spec.limits.model.when[0].predicate: `llm.model` is in the request's body"),
        "{message}"
    );
    let accepted = cluster.get(&["wtrlp", "bodies"])["status"]["conditions"][0]["reason"].clone();
    assert_eq!(accepted, "Accepted", "it may be right for other Gateways");
    drop(world);

    let adapter = Adapter::start_in_cluster(&cluster.kubeconfig_of("weir-system", "limitador-adapter"), &[]);
    let reading =
        World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).reading_bodies(65_536);
    let world = reading.start_with(adapter);
    takes_effect(&world, "both", |answer| limit(answer).as_deref() == Some("3"));
    cluster.wait_for_reason(&["wtrlp", "bodies"], "Enforced", "Enforced");
}
