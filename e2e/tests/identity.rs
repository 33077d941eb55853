//! The sources of `auth`: a header of the authentication filter, or its dynamic metadata.

use e2e::client::Request;
use e2e::envoy::Config;
use e2e::jwt::{self, kuadrant_user};
use e2e::upstream::Answer;
use e2e::wire;
use e2e::world::World;
use serde_json::json;

fn kuadrant(change: impl FnOnce(&mut Config)) -> World {
    let policy =
        std::fs::read_to_string(e2e::artefacts::root().join("examples/kuadrant/policy.yaml")).unwrap();
    let world = World::build().policy(&policy).change(change).start();
    world.upstream.on("100", Answer::used(100));
    world
}

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&kuadrant_user("alice", "free"))).answered_by("100")
}

#[test]
fn claims_can_come_from_jwt_authn_s_metadata() {
    let world = kuadrant(|config| {
        let provider = &mut config.typed(".JwtAuthentication")["providers"]["people"];
        provider.as_object_mut().unwrap().remove("forward_payload_header");
        config.plugin(|plugin| {
            plugin["identity"] = json!({ "metadata": "envoy.filters.http.jwt_authn", "key": "identity" });
        });
    });
    assert_eq!(world.send(&alice()).status, 200);
    world.adapter.wait_for_bucket("free", "tokens", "alice", 100, 0);
    assert_eq!(world.send(&Request::chat(5).answered_by("100")).status, 200, "without a token: no identity");
    assert_eq!(world.adapter.counters().len(), 1);
}

/// Stores the result of an external authorization in the same place as Envoy's ext_authz filter.
const AUTH_FILTER: &str = r#"
function envoy_on_request(handle)
  local id = handle:headers():get("x-user")
  if id ~= nil then
    local identity = {userid = id, level = 7, admin = true,
                      metadata = {annotations = {["kuadrant.io/groups"] = "free,beta"}}}
    handle:streamInfo():dynamicMetadata():set("envoy.filters.http.ext_authz", "identity", identity)
  end
end
"#;

#[test]
fn identity_can_come_from_ext_authz_s_metadata() {
    let world = kuadrant(|config| {
        let lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
        let source = json!({ "inline_string": AUTH_FILTER });
        let filter =
            json!({ "name": "auth", "typed_config": { "@type": lua, "default_source_code": source } });
        config.filters().insert(0, filter);
        config.plugin(|plugin| plugin["identity"] = json!({ "metadata": "envoy.filters.http.ext_authz" }));
    });
    assert_eq!(world.send(&Request::chat(5).header("x-user", "alice").answered_by("100")).status, 200);
    world.adapter.wait_for_bucket("free", "tokens", "alice", 100, 0);
}

#[test]
fn without_identity_a_predicate_on_it_is_false() {
    let world = kuadrant(|config| {
        config.plugin(|plugin| drop(plugin.as_object_mut().unwrap().remove("identity")));
    });
    assert_eq!(world.send(&alice()).status, 200);
    assert!(world.adapter.counters().is_empty(), "{:#?}", world.adapter.counters());
}

/// Any bytes in the header lead to a defined outcome, and the module does not trap.
#[test]
fn an_identity_header_may_hold_anything() {
    let world =
        kuadrant(|config| config.filters().retain(|filter| filter["name"] == "weir" || is_router(filter)));
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let values: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"%%%".to_vec(),
        b"\xff\xfe\x80".to_vec(),
        base64_of(b"not json"),
        base64_of(b"[1,2]"),
        base64_of(b"null"),
        base64_of(b"{\"userid\":\"\xff\"}"),
        base64_of(deep.as_bytes()),
        vec![b'A'; 40_000],
    ];
    let count = values.len();
    for value in values {
        let request = Request::chat(5).header("x-jwt-payload", &value).answered_by("100");
        let status = world.send(&request).status;
        assert_eq!(status, 200, "{:?}", String::from_utf8_lossy(&value[..value.len().min(40)]));
    }
    assert_eq!(world.upstream.calls(), count);
    for seen in world.upstream.seen() {
        assert_eq!(wire::header(&seen.headers, "x-jwt-payload"), None, "it never goes upstream");
    }
    let good = base64_of(kuadrant_user("alice", "free").to_string().as_bytes());
    assert_eq!(world.send(&Request::chat(5).header("x-jwt-payload", good).answered_by("100")).status, 200);
    world.adapter.wait_for_bucket("free", "tokens", "alice", 100, 0);
    assert!(!world.envoy.log().contains("Wasm VM failed"), "{}", world.envoy.log());
    let counted = world.envoy.stats("weir_unidentified");
    let sum: usize = counted.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
    assert_eq!(sum, count, "each is counted, by its cause: {counted}");
}

fn is_router(filter: &serde_json::Value) -> bool {
    filter["name"] == "envoy.filters.http.router"
}

fn base64_of(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).into_bytes()
}
