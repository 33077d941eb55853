//! Checks that `manifests/envoy/envoy.yaml` works as its comments describe.

use e2e::client::Request;
use e2e::jwt;
use e2e::upstream::Answer;
use e2e::wire;
use e2e::world::{World, per_user, policy};
use serde_json::json;

const MANIFEST: &str = "manifests/envoy/envoy.yaml";

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" }))).answered_by("100")
}

fn build() -> e2e::world::Builder {
    World::build().config(MANIFEST).policy(&policy("llm", json!({ "limits": { "per-user": per_user(100) } })))
}

/// Returns the users with buckets. Requests without an identity share the bucket of `null`.
fn users(world: &World) -> Vec<String> {
    let counters = world.adapter.counters().into_iter();
    counters.map(|counter| counter.counters["auth.identity.userid"].clone()).collect()
}

#[test]
fn the_module_s_metrics_have_labels() {
    let world = build().start();
    world.upstream.on("100", Answer::used(100));
    assert_eq!(world.send(&alice()).status, 200);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 100, 0);
    assert_eq!(world.send(&alice()).status, 429);
    let metrics = Request::get("/stats/prometheus").send(world.envoy.admin()).text();
    for line in [
        "weir_admitted{} 1",
        "weir_refused{weir_policy=\"default/llm\",weir_limit=\"per-user\"} 1",
        "weir_usage{weir_source=\"reported\"} 1",
        "weir_tokens_charged{} 100",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing");
    }
}

/// jwt_authn would remove the client's copy of the header, but it is disabled here.
#[test]
fn a_client_s_own_identity_never_counts_even_where_the_auth_filter_is_off() {
    let off = json!({
        "match": { "prefix": "/" },
        "route": { "cluster": "llm" },
        "typed_per_filter_config": { "envoy.filters.http.jwt_authn": {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true,
        } },
    });
    let world = build()
        .change(|config| {
            let manager = config.typed(".HttpConnectionManager");
            manager["route_config"]["virtual_hosts"][0]["routes"] = json!([off]);
        })
        .start();
    let claims = "eyJ1c2VyaWQiOiJhbGljZSJ9"; // {"userid":"alice"}
    let request = Request::chat(5).header("x-jwt-payload", claims).header("X-Jwt-Payload", claims);
    assert_eq!(world.send(&request).status, 200);
    assert_eq!(users(&world), ["null"]);
    assert_eq!(wire::header(&world.upstream.seen()[0].headers, "x-jwt-payload"), None);
}

/// An authentication filter that appends its header instead of replacing it would leave the client's copy. It
/// would then be unknown which copy is the filter's.
#[test]
fn an_identity_that_is_there_twice_is_none_and_is_counted() {
    let world = build()
        .change(|config| {
            config.filters().retain(|filter| filter["name"] != "envoy.filters.http.jwt_authn");
            let manager = config.typed(".HttpConnectionManager");
            manager.as_object_mut().unwrap().remove("early_header_mutation_extensions");
        })
        .start();
    let claims = "eyJ1c2VyaWQiOiJhbGljZSJ9"; // {"userid":"alice"}
    let request = Request::chat(5).header("x-jwt-payload", claims).header("x-jwt-payload", claims);
    assert_eq!(world.send(&request).status, 200);
    assert_eq!(users(&world), ["null"]);
    assert_eq!(world.envoy.stat("wasmcustom.weir_unidentified.cause.encoding"), 1);
    assert_eq!(wire::header(&world.upstream.seen()[0].headers, "x-jwt-payload"), None);
}
