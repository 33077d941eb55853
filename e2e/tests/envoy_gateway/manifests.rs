//! Tests the manifests in Envoy Gateway without outages.

use crate::Test;
use crate::world::{World, address, object};
use e2e::client::{Request, Response};
use e2e::probe::{self, LIMITED, alice, certificates, told};
use e2e::{jwt, wait};
use serde_json::{Value, json};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("the_objects_are_accepted", accepted),
    ("the_filter_enforces_a_policy_behind_envoy_gateway_s_own_control_plane", enforces),
    ("a_body_of_two_megabytes_is_read", reads_bodies),
    ("a_route_with_its_own_extension_is_limited_too", extended_route),
    ("callers_read_their_own_limits", usage),
    ("a_renewed_certificate_is_used_without_a_restart", renewal),
];

const POLICY: [&str; 2] = ["trlp.kuadrant.io", "llm-token-limits"];
const WEIR: &str = "weir.dev/v1alpha1";

fn accepted(world: &mut World) {
    for (kind, name, condition) in [
        ("gatewayclass", "envoy-gateway", "Accepted"),
        ("gateway", "api-gateway", "Accepted"),
        ("securitypolicy", "people", "Accepted"),
        ("envoyextensionpolicy", "weir", "Accepted"),
        ("envoypatchpolicy", "weir", "Accepted"),
        ("envoypatchpolicy", "weir", "Programmed"),
        ("clienttrafficpolicy", "weir", "Accepted"),
    ] {
        world.holds(kind, name, condition);
    }
}

/// Kuadrant's announced policy is enforced without changes.
fn enforces(world: &mut World) {
    let alice = Request::chat(15_000).token(&jwt::token(&jwt::kuadrant_user("alice", "free")));
    let answer = wait::until("an answer of the proxy", || {
        alice.try_send(address()).ok().filter(|answer| answer.status == 200)
    });
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), None, "no policy yet");
    others(world);
    let applied = Instant::now();
    world.cluster.run(&["apply", "-f", "examples/kuadrant/policy.yaml"]);
    let admitted = wait::until("the policy", || {
        Some(alice.send(address())).filter(|answer| answer.header("x-ratelimit-limit-tokens").is_some())
    });
    println!("in force {:?} after kubectl", applied.elapsed());
    assert_eq!((admitted.status, admitted.header("x-ratelimit-limit-tokens")), (200, Some("20000")));
    let refused =
        wait::until("the refusal", || Some(alice.send(address())).filter(|answer| answer.status == 429));
    assert!(refused.text().contains("default/llm-token-limits"), "{}", refused.text());
    assert!(is_admitted(&of("bob", 25_000).send(address())));
    world.cluster.wait_for_reason(&POLICY, "Accepted", "Accepted");
    world.cluster.wait_for_reason(&POLICY, "Enforced", "Enforced");
    world.cluster.wait_for_reason(&["wtrlp", "other"], "Enforced", "NoFilter");
    world.cluster.run(&["delete", "wtrlp/other", "trlp.kuadrant.io/llm-token-limits"]);
}

/// Limits may use facts from the body, and bodies above Envoy's own limit of 1 MiB are read.
fn reads_bodies(world: &mut World) {
    world.cluster.run(&["apply", "-f", "examples/kuadrant/policy.yaml"]);
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "api-gateway" });
    let when = json!([{ "predicate": "llm.model == 'gpt-4o'" }]);
    let rates = json!([{ "limit": 0, "window": "1h", "unit": "requests" }]);
    let spec = json!({ "targetRef": target, "limits": { "none": { "when": when, "rates": rates } } });
    world.cluster.apply(&object(WEIR, "TokenRateLimitPolicy", "model", spec));
    let chat = of("carol", 5);
    wait::until("the model's refusal", || (chat.send(address()).status == 413).then_some(()));
    let other = chat.clone().body(json!({ "model": "another", "messages": [], "max_tokens": 5 }).to_string());
    wait::until("the announced policy", || is_admitted(&other.send(address())).then_some(()));
    let padding = " ".repeat(2 << 20);
    let long = json!({ "padding": padding, "model": "gpt-4o", "messages": [], "max_tokens": 5 }).to_string();
    assert_eq!(chat.body(long).send(address()).status, 413);
    world.cluster.run(&["delete", "wtrlp/model", "trlp.kuadrant.io/llm-token-limits"]);
}

/// An EnvoyExtensionPolicy on a route replaces Weir's EnvoyExtensionPolicy on the Gateway.
fn extended_route(world: &mut World) {
    world.settle("Allow");
    let rules = json!([{ "matches": [{ "path": { "type": "PathPrefix", "value": "/team" } }],
        "backendRefs": [{ "name": "llm", "port": 8000 }] }]);
    let route = json!({ "parentRefs": [{ "name": "api-gateway" }], "rules": rules });
    world.cluster.apply(&object("gateway.networking.k8s.io/v1", "HTTPRoute", "team", route));
    let target = json!([{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "team" }]);
    let script = "function envoy_on_response(handle) handle:headers():add('x-team', 'yes') end";
    let spec = json!({ "targetRefs": target, "lua": [{ "type": "Inline", "inline": script }] });
    world.cluster.apply(&object("gateway.envoyproxy.io/v1alpha1", "EnvoyExtensionPolicy", "team", spec));
    let request = alice().path("/team/v1/chat/completions");
    let answer = wait::until("the route's own extension", || {
        request.try_send(address()).ok().filter(|answer| answer.header("x-team").is_some())
    });
    world.cluster.run(&["delete", "envoyextensionpolicy/team", "httproute/team"]);
    assert_eq!(told(&answer), LIMITED, "{}", answer.text());
}

fn of(user: &str, max_tokens: u64) -> Request {
    Request::chat(max_tokens).token(&jwt::token(&jwt::kuadrant_user(user, "gold")))
}

fn is_admitted(answer: &Response) -> bool {
    answer.status == 200 && answer.header("x-ratelimit-limit-tokens") == Some("200000")
}

/// A policy that refuses all requests of another Gateway does not apply to this proxy.
fn others(world: &World) {
    let (gateway_api, listeners) =
        ("gateway.networking.k8s.io/v1", json!([{ "name": "http", "protocol": "HTTP", "port": 80 }]));
    let class = json!({ "gatewayClassName": "another", "listeners": listeners });
    world.cluster.apply(&object(gateway_api, "Gateway", "other", class));
    let rules = json!([{ "backendRefs": [{ "name": "llm", "port": 8000 }] }]);
    let route = json!({ "parentRefs": [{ "name": "other" }], "rules": rules });
    world.cluster.apply(&object(gateway_api, "HTTPRoute", "other", route));
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "other" });
    let limits = json!({ "none": { "rates": [{ "limit": 0, "window": "1h", "unit": "requests" }] } });
    let spec = json!({ "targetRef": target, "limits": limits });
    world.cluster.apply(&object(WEIR, "TokenRateLimitPolicy", "other", spec));
}

fn usage(world: &mut World) {
    world.settle("Allow");
    probe::reads_usage(address());
}

fn renewal(world: &mut World) {
    world.settle("Deny");
    let before = used(world);
    assert_eq!(before.len(), 1, "{before:?}");
    world.renew_certificate();
    wait::until("the renewed certificate", || {
        let now = used(world);
        (now.len() == 1 && now != before).then_some(())
    });
    probe::stays(address(), LIMITED, 1);
}

fn used(world: &World) -> Vec<Value> {
    certificates(&world.admin("/certs").json(), "weir-proxy")
}
