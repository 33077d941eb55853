//! Tests how a Gateway's `defaults` and `overrides` combine with its routes' policies: which limits are
//! enforced, and which policies are reported as `Overridden`.

use super::routes::{met, requests, to};
use super::{gateway, policy, route};
use e2e::adapter::Adapter;
use e2e::cluster::Cluster;
use e2e::wait;
use e2e::world::World;
use serde_json::{Value, json};

/// Returns a policy for the Gateway with one limit in this block.
fn shared(how: &str, strategy: &str) -> String {
    let limits = requests("shared", 100)["limits"].clone();
    policy("shared", "Gateway", "llm", json!({ how: { "strategy": strategy, "limits": limits } }))
}

fn told(cluster: &Cluster, name: &str, reason: &str) -> String {
    let known = ["wtrlp", name];
    let told = cluster.wait_for_reason(&known, "Enforced", reason);
    let ancestor = cluster.get(&known)["status"]["ancestors"][0]["conditions"][1].clone();
    assert_eq!(ancestor["reason"], reason, "the Gateway's own condition: {ancestor:#}");
    told["message"].as_str().unwrap_or_default().to_owned()
}

/// Waits until requests on the two routes are limited by these maximums.
fn meet(world: &World, chat: &str, models: &str) {
    wait::until(&format!("{chat} for the chat and {models} for the models"), || {
        let now = [met(world, &to("/v1/chat", &[])), met(world, &to("/v1/models", &[]))];
        (now == [chat, models]).then_some(())
    });
}

#[test]
fn defaults_and_overrides_of_a_gateway_are_enforced_and_whom_they_leave_no_say_is_told() {
    let cluster = Cluster::start();
    let adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    cluster.apply(&gateway("llm"));
    for name in ["chat", "models"] {
        let path = json!({ "path": { "type": "PathPrefix", "value": format!("/v1/{name}") } });
        cluster.apply(&route(name, "llm", json!([{ "matches": [path] }])));
    }
    cluster.apply(&shared("defaults", "atomic"));
    cluster.apply(&policy("chat", "HTTPRoute", "chat", requests("chat", 70)));
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(adapter);
    meet(&world, "70", "100");
    told(&cluster, "shared", "Enforced");
    told(&cluster, "chat", "Enforced");

    // Once every route has a policy, the defaults apply nowhere.
    cluster.apply(&policy("models", "HTTPRoute", "models", requests("models", 90)));
    meet(&world, "70", "90");
    let message = told(&cluster, "shared", "Overridden");
    assert_eq!(message, "by default/chat, default/models, on every route");

    cluster.apply(&shared("overrides", "atomic"));
    meet(&world, "100", "100");
    told(&cluster, "shared", "Enforced");
    for name in ["chat", "models"] {
        assert_eq!(told(&cluster, name, "Overridden"), "by default/shared, on every route");
    }
    let accepted = cluster.get(&["wtrlp", "chat"])["status"]["conditions"][0].clone();
    assert_eq!(accepted["reason"], "Accepted", "{accepted:#}");

    // If limits are merged individually, all policies have an effect, and a request counts in both limits.
    cluster.apply(&shared("overrides", "merge"));
    meet(&world, "70", "90");
    for name in ["shared", "chat", "models"] {
        told(&cluster, name, "Enforced");
    }
    let used = |limit: &str| world.adapter.bucket(limit, "requests", "").0;
    let before = (used("shared"), used("chat"));
    assert_eq!(world.send(&to("/v1/chat", &[])).status, 200);
    world.adapter.wait_for_bucket("shared", "requests", "", before.0 + 1, 0);
    assert_eq!(used("chat"), before.1 + 1);

    // If the names are equal, the Gateway's limit applies.
    cluster.apply(&policy("chat", "HTTPRoute", "chat", requests("shared", 5)));
    meet(&world, "100", "90");
    assert_eq!(told(&cluster, "chat", "Overridden"), "by default/shared, on every route");
    let reasons: Vec<Value> = ["shared", "models"]
        .iter()
        .map(|name| cluster.get(&["wtrlp", name])["status"]["conditions"][1]["reason"].clone())
        .collect();
    assert_eq!(reasons, ["Enforced", "Enforced"]);
}
