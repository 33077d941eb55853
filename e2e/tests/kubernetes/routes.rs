//! Which policies apply to a request on a route, and the statuses of policies that apply nowhere.

use super::{alice, gateway, policy, route};
use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::cluster::Cluster;
use e2e::wait;
use e2e::world::World;
use serde_json::{Value, json};

pub fn requests(limit: &str, max: u64) -> Value {
    json!({ "limits": { limit: { "rates": [{ "limit": max, "window": "1h", "unit": "requests" }] } } })
}

pub fn to(path: &str, headers: &[(&str, &str)]) -> Request {
    headers.iter().fold(Request::post(path, &json!({})), |request, (name, value)| request.header(name, value))
}

/// Returns the smallest request limit that applied to this request.
pub fn met(world: &World, request: &Request) -> String {
    let answer = world.send(request);
    answer.header("x-ratelimit-limit-requests").unwrap_or("none").to_owned()
}

/// Writes the status of a route's current generation, as its Gateway's controller would.
fn accept(cluster: &Cluster, route: &str) {
    let generation = cluster.get(&["httproute", route])["metadata"]["generation"].clone();
    let condition = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": generation,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let parent = json!({
        "parentRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "default", "name": "llm" },
        "controllerName": "example.com/controller",
        "conditions": [condition],
    });
    let status = json!({ "status": { "parents": [parent] } }).to_string();
    cluster.run(&["patch", "httproute", route, "--subresource=status", "--type=merge", "-p", &status]);
}

#[test]
fn a_request_meets_the_policies_of_its_gateway_route_and_rule() {
    let cluster = Cluster::start();
    let adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    cluster.apply(&gateway("llm"));
    let path = |kind: &str, value: &str| json!({ "path": { "type": kind, "value": value } });
    let beta = json!({ "path": { "type": "PathPrefix", "value": "/v1/chat" }, "headers": [{ "name": "x-beta", "value": "on" }] });
    cluster.apply(&route(
        "chat",
        "llm",
        json!([{ "matches": [path("PathPrefix", "/v1/chat")] }, { "name": "beta", "matches": [beta] }]),
    ));
    cluster.apply(&route("models", "llm", json!([{ "matches": [path("Exact", "/v1/models")] }])));
    cluster.apply(&route(
        "versions",
        "llm",
        json!([{ "matches": [path("RegularExpression", "/v[0-9]+/files/.*")] }]),
    ));
    cluster.apply(&policy("everything", "Gateway", "llm", requests("all", 10_000)));
    cluster.apply(&policy("chat", "HTTPRoute", "chat", requests("chat", 900)));
    let mut beta = requests("beta", 50);
    beta["targetRef"]["sectionName"] = json!("beta");
    cluster.apply(&policy("beta", "HTTPRoute", "chat", beta));
    cluster.apply(&policy("files", "HTTPRoute", "versions", requests("files", 70)));
    for route in ["chat", "models", "versions"] {
        accept(&cluster, route);
    }
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(adapter);
    wait::until("the plan", || (met(&world, &to("/v7/files/x", &[])) == "70").then_some(()));
    for (path, headers, wanted) in [
        ("/v1/chat/completions", [].as_slice(), "900"),
        ("/v1/chat?a=b", &[], "900"),
        ("/v1/chatter", &[], "10000"),
        ("/v1/chat/completions", &[("x-beta", "on")], "50"),
        ("/v1/chat/completions", &[("x-beta", "off")], "900"),
        ("/v1/models", &[], "10000"),
        ("/v1/files/a/b", &[], "70"),
        ("/v1/files", &[], "10000"),
    ] {
        assert_eq!(met(&world, &to(path, headers)), wanted, "{path} {headers:?}");
    }
    let all = world.upstream.calls() as u64;
    world.adapter.wait_for_bucket("all", "requests", "", all, 0);

    // A route takes no requests from another route's policy before the controller has accepted the route's
    // current generation.
    let completions = json!([{ "matches": [path("PathPrefix", "/v1/chat/completions")] }]);
    cluster.apply(&route("models", "llm", completions));
    cluster.apply(&policy("models", "HTTPRoute", "models", requests("models", 1_000)));
    wait::until("the new policy", || {
        let status = cluster.get(&["wtrlp", "models"])["status"].clone();
        (status["conditions"][1]["reason"] == "Enforced").then_some(())
    });
    assert_eq!(met(&world, &to("/v1/chat/completions", &[])), "900");
    accept(&cluster, "models");
    wait::until("the other route", || {
        (met(&world, &to("/v1/chat/completions", &[])) == "1000").then_some(())
    });
    assert_eq!(met(&world, &to("/v1/chat/other", &[])), "900");
}

#[test]
fn what_can_never_match_is_told() {
    let cluster = Cluster::start();
    let kubeconfig = cluster.install();
    cluster.apply(&policy("early", "Gateway", "llm", requests("a", 1)));
    let adapter = Adapter::start_in_cluster(&kubeconfig, &[]);
    let early = ["wtrlp", "early"];
    let told = cluster.wait_for_reason(&early, "Accepted", "TargetNotFound");
    assert!(told["message"].to_string().contains("there is no Gateway default/llm"), "{told:#}");
    cluster.apply(&gateway("llm"));
    cluster.wait_for_reason(&early, "Accepted", "Accepted");
    cluster.wait_for_reason(&early, "Enforced", "NeverMatches");
    cluster.apply(&route("chat", "llm", json!([{}])));
    cluster.wait_for_reason(&early, "Enforced", "NoFilter");
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(adapter);
    cluster.wait_for_reason(&early, "Enforced", "Enforced");

    let mut section = requests("a", 1);
    section["targetRef"]["sectionName"] = json!("nowhere");
    cluster.apply(&policy("section", "Gateway", "llm", section));
    cluster.wait_for_reason(&["wtrlp", "section"], "Accepted", "TargetNotFound");
    cluster.apply(&route("lonely", "other", json!([{}])));
    cluster.apply(&policy("lonely", "HTTPRoute", "lonely", requests("a", 1)));
    let told = cluster.wait_for_reason(&["wtrlp", "lonely"], "Enforced", "NeverMatches");
    assert!(told["message"].to_string().contains("is not attached to a Gateway"), "{told:#}");
    let twin = policy("early", "Gateway", "llm", requests("a", 5)).replace("weir.dev", "kuadrant.io");
    cluster.apply(&twin);
    cluster.wait_for_reason(&["trlp.kuadrant.io", "early"], "Accepted", "Conflicted");
    cluster.wait_for_reason(&["trlp.kuadrant.io", "early"], "Enforced", "Overridden");
    // If Kuadrant itself is installed, Weir ignores Kuadrant's policies.
    cluster.run(&["delete", "trlp.kuadrant.io", "early"]);
    drop(world);
    let adapter = Adapter::start_in_cluster(&kubeconfig, &["--ignore-kuadrant"]);
    cluster.apply(&twin);
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(adapter);
    assert_eq!(world.send(&alice()).status, 200, "the first of one");
    assert_eq!(world.send(&alice()).status, 429, "the second of one");
    assert_eq!(cluster.get(&["trlp.kuadrant.io", "early"])["status"], Value::Null);
}

#[test]
fn a_policy_of_several_routes_and_one_of_a_grpc_route_are_enforced() {
    let cluster = Cluster::start();
    let adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    cluster.apply(&gateway("llm"));
    for (name, path) in [("chat", "/v1/chat"), ("files", "/v1/files"), ("models", "/v1/models")] {
        let matches = json!([{ "path": { "type": "PathPrefix", "value": path } }]);
        cluster.apply(&route(name, "llm", json!([{ "matches": matches }])));
    }
    let rules = json!([{ "matches": [{ "method": { "service": "llm.v1.Chat", "method": "Complete" } }] }]);
    let spec = json!({ "parentRefs": [{ "name": "llm" }], "rules": rules });
    cluster.apply(&super::object("gateway.networking.k8s.io/v1", "GRPCRoute", "chat", spec));
    let target =
        |name: &str| json!({ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name });
    let mut both = requests("both", 400);
    both["targetRefs"] = json!([target("chat"), target("files")]);
    cluster.apply(&super::object("weir.dev/v1alpha1", "TokenRateLimitPolicy", "both", both));
    cluster.apply(&policy("grpc", "GRPCRoute", "chat", requests("grpc", 30)));
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(adapter);
    wait::until("the plan", || (met(&world, &to("/v1/files/x", &[])) == "400").then_some(()));
    assert_eq!(met(&world, &to("/v1/chat/completions", &[])), "400");
    assert_eq!(met(&world, &to("/v1/models", &[])), "none");
    assert_eq!(met(&world, &to("/llm.v1.Chat/Complete", &[])), "30");
    assert_eq!(met(&world, &to("/llm.v1.Chat/Other", &[])), "none");
    for policy in ["both", "grpc"] {
        cluster.wait_for_reason(&["wtrlp", policy], "Enforced", "Enforced");
    }
}
