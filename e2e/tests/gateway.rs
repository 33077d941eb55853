//! The filter requests the plan of its gateway. Unless the configuration names the gateway, the filter
//! derives it from Envoy's node.

use e2e::client::Request;
use e2e::world::{World, policy};
use serde_json::json;

fn limited(name: &str, gateway: &str, max: u64) -> String {
    let limits = json!({ "all": { "rates": [{ "limit": max, "window": "1h", "unit": "requests" }] } });
    policy(name, json!({ "limits": limits }))
        .replace("\"name\":\"gateway\"", &format!("\"name\":\"{gateway}\""))
}

#[test]
fn the_node_says_which_gateway_this_is_unless_the_configuration_does() {
    let istio = json!({ "id": "a", "cluster": "b", "metadata": {
        "NAMESPACE": "default", "LABELS": { "gateway.networking.k8s.io/gateway-name": "one" },
    } });
    let envoy_gateway = json!({ "id": "a", "cluster": "default/two" });
    let unnamed = json!({ "id": "a", "cluster": "b" });
    for (node, written, wanted) in [
        (&istio, None, "30"),
        (&envoy_gateway, None, "20"),
        (&envoy_gateway, Some("default/one"), "30"),
        (&unnamed, None, "10"),
    ] {
        let world = World::build()
            .policy(&limited("first", "one", 30))
            .policy(&limited("second", "two", 20))
            .policy(&limited("third", "three", 10))
            .change(|config| config.all()["node"] = node.clone())
            .plugin(|plugin| match written {
                Some(gateway) => plugin["gateway"] = json!(gateway),
                None => drop(plugin.as_object_mut().unwrap().remove("gateway")),
            })
            .start();
        let answer = world.send(&Request::chat(5));
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some(wanted), "{node} {written:?}");
    }
}
