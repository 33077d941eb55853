//! Tests the manifests in Istio without outages.

use crate::Test;
use crate::world::{GATEWAY, World, address};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use e2e::client::Request;
use e2e::probe::{self, LIMITED, alice, certificates, told};
use e2e::{jwt, wait};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("the_filter_enforces_a_policy_behind_istio_s_own_control_plane", enforces),
    ("a_body_of_three_megabytes_is_read", reads_bodies),
    ("the_identity_is_what_istio_has_verified", identity),
    ("callers_read_their_own_limits", usage),
    ("a_renewed_certificate_is_used_without_a_restart", renewal),
    ("a_gateway_that_lacks_the_certificate_keeps_working", without_certificate),
    ("another_gateway_of_the_mesh_is_left_alone", another_gateway),
];

const POLICY: [&str; 2] = ["trlp.kuadrant.io", "llm-token-limits"];

/// Kuadrant's announced policy is enforced without changes.
fn enforces(world: &mut World) {
    world.settle("Allow");
    assert_eq!(world.rejections(), Vec::<String>::new());
    world.cluster.run(&["delete", "wtrlp", "per-user"]);
    let applied = Instant::now();
    world.cluster.run(&["apply", "-f", "examples/kuadrant/policy.yaml"]);
    let alice = Request::chat(15_000).token(&jwt::token(&jwt::kuadrant_user("alice", "free")));
    let bob = Request::chat(10).token(&jwt::token(&jwt::kuadrant_user("bob", "gold")));
    wait::until("the policy", || (told(&alice.send(address())) == (200, Some("20000"))).then_some(()));
    println!("in force {:?} after kubectl", applied.elapsed());
    let refused =
        wait::until("the refusal", || Some(alice.send(address())).filter(|answer| answer.status == 429));
    assert!(refused.text().contains("default/llm-token-limits"), "{}", refused.text());
    assert_eq!(told(&bob.send(address())), (200, Some("200000")));
    world.cluster.wait_for_reason(&POLICY, "Enforced", "Enforced");
    // Each response is charged once.
    let used = || world.installed.adapter().bucket("gold", "tokens", "bob").0;
    let before = wait::until("bob's first charge", || Some(used()).filter(|used| *used > 0));
    assert_eq!(bob.send(address()).status, 200);
    wait::until("bob's second charge", || (used() == 2 * before).then_some(()));
    world.cluster.run(&["delete", "-f", "examples/kuadrant/policy.yaml"]);
}

fn reads_bodies(world: &mut World) {
    world.settle("Allow");
    let padding = " ".repeat(3 << 20);
    let long = json!({ "padding": padding, "model": "gpt-4o", "messages": [], "max_tokens": 5 }).to_string();
    for _ in 0..3 {
        assert_eq!(told(&alice().body(long.clone()).send(address())), LIMITED);
    }
}

/// A client's own copy of a header is not an identity, with or without a RequestAuthentication.
fn identity(world: &mut World) {
    world.settle("Allow");
    let adapter = world.installed.adapter();
    let claims = jwt::kuadrant_user("mallory", "gold").to_string();
    let forged = Request::chat(5).header("x-jwt-payload", BASE64.encode(claims));
    let is_nobody = || {
        let before = adapter.bucket("per-user", "tokens", "null").0;
        assert_eq!(told(&forged.send(address())), LIMITED);
        wait::until("the charge", || (adapter.bucket("per-user", "tokens", "null").0 > before).then_some(()));
        assert_eq!(adapter.bucket("per-user", "tokens", "mallory"), (0, 0));
    };
    is_nobody();
    world.cluster.run(&["delete", "requestauthentication", "people"]);
    wait::until("the end of authentication", || {
        (!world.filters().iter().any(|filter| filter.contains("jwt_authn"))).then_some(())
    });
    assert!(world.filters().iter().any(|filter| filter == "weir"), "{:?}", world.filters());
    is_nobody();
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
    assert_eq!(told(&alice().send(address())), LIMITED);
}

fn used(world: &World) -> Vec<Value> {
    certificates(&world.admin("/certs").json(), "weir-proxy")
}

/// If the Secret is missing, `failureMode` applies, but the proxy still becomes ready.
fn without_certificate(world: &mut World) {
    world.settle("Deny");
    world.start_proxy_without_certificate();
    let took = world.is_ready_within(wait::DEADLINE);
    println!("ready after {took:?}");
    let answer = alice().send(address());
    assert_eq!((told(&answer), world.rejections()), ((200, None), Vec::new()));
    world.stop_proxy();
}

fn another_gateway(world: &mut World) {
    world.settle("Allow");
    let of = |kind: &str, spec: Value| {
        let version = "gateway.networking.k8s.io/v1";
        json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "other", "namespace": "default" }, "spec": spec })
            .to_string()
    };
    let listeners = json!([{ "name": "http", "protocol": "HTTP", "port": 80 }]);
    world.cluster.apply(&of("Gateway", json!({ "gatewayClassName": "istio", "listeners": listeners })));
    let rules = json!([{ "backendRefs": [{ "name": "llm", "port": 8000 }] }]);
    world.cluster.apply(&of("HTTPRoute", json!({ "parentRefs": [{ "name": "other" }], "rules": rules })));
    world.start_proxy("other");
    world.is_ready_within(Duration::from_secs(30));
    let answer =
        wait::until("an answer", || alice().try_send(address()).ok().filter(|answer| answer.status == 200));
    assert_eq!(told(&answer), (200, None));
    assert!(!world.filters().iter().any(|filter| filter == "weir"), "{:?}", world.filters());
    assert_eq!(world.rejections(), Vec::<String>::new());
    world.stop_proxy();
    world.cluster.run(&["delete", "gateway", "other"]);
    world.cluster.run(&["delete", "httproute", "other"]);
    // The Gateway with the filter is unaffected.
    world.start_proxy(GATEWAY);
    probe::becomes(address(), LIMITED);
}
