//! Tests Envoy's own rate-limit filter with the same limits and the same adapter.

use e2e::client::Request;
use e2e::envoy::Config;
use e2e::world::{World, policy};
use serde_json::{Value, json};

/// Replaces Weir's filter with Envoy's. It counts one request of `x-user` per call.
fn envoys_own(config: &mut Config) {
    let generic = |key: &str, value: &str| json!({ "generic_key": { "descriptor_key": key, "descriptor_value": value } });
    let user = json!({ "header_name": "x-user", "descriptor_key": "auth.identity.userid" });
    let actions = json!([
        generic("limit", "default/llm/per-user"),
        generic("unit", "requests"),
        generic("window", "3600s"),
        { "request_headers": user },
    ]);
    let filter = json!({
        "name": "envoy.filters.http.ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": "weir",
            "failure_mode_deny": true,
            "timeout": "5s",
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": { "envoy_grpc": { "cluster_name": "limitador-adapter" } }
            }
        }
    });
    let filters = config.filters();
    let place = filters.iter().position(|filter| filter["name"] == "weir").unwrap();
    filters[place] = filter;
    let manager = config.typed(".HttpConnectionManager");
    let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
    route["rate_limits"] = json!([{ "actions": actions }]);
}

fn limits() -> Value {
    let per_user = json!({
        "counters": [{ "expression": "auth.identity.userid" }],
        "rates": [{ "unit": "requests", "limit": 2, "window": "1h" }]
    });
    json!({ "limits": { "per-user": per_user } })
}

#[test]
fn envoy_s_own_filter_counts_in_the_same_buckets() {
    let world = World::build().policy(&policy("llm", limits())).change(envoys_own).start();
    let ask = |user: &str| world.send(&Request::chat(5).header("x-user", user));
    assert_eq!(ask("alice").status, 200);
    let second = ask("alice");
    assert_eq!((second.status, second.header("x-ratelimit-remaining")), (200, Some("0")));
    assert_eq!(ask("alice").status, 429);
    assert_eq!(ask("bob").status, 200);
    assert_eq!(world.adapter.bucket("per-user", "requests", "alice"), (2, 0), "a refused call costs nothing");
    assert_eq!(world.adapter.bucket("per-user", "requests", "bob"), (1, 0));
}

#[test]
fn a_user_has_one_bucket_behind_either_filter() {
    let policy = policy("llm", limits());
    let world = World::build().policy(&policy).change(envoys_own).start();
    let mut ours = Config::read(e2e::world::CONFIG);
    ours.cluster("llm", world.upstream.address());
    ours.cluster("limitador-adapter", world.adapter.grpc());
    let ours = ours.start(1);
    let alice = e2e::jwt::token(&json!({ "userid": "alice" }));
    let by_ours = || Request::chat(5).token(&alice).send(ours.address());
    e2e::wait::until("an admission by our filter", || {
        by_ours();
        (ours.stat("wasmcustom.weir_admitted") > 0).then_some(())
    });
    assert_eq!(world.send(&Request::chat(5).header("x-user", "alice")).status, 200);
    assert_eq!(world.send(&Request::chat(5).header("x-user", "alice")).status, 429);
    assert_eq!(by_ours().status, 429);
}
