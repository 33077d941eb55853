//! Facts from Envoy's filter state, which other filters set.

use e2e::client::Request;
use e2e::wait;
use e2e::world::{World, policy};
use serde_json::json;

#[test]
fn filter_state_is_a_fact() {
    let limit = |max: u64, when: &str| {
        json!({
            "when": [{ "predicate": when }],
            "counters": [{ "expression": "filter_state[\"weir_Tenant\"]" }],
            "rates": [{ "limit": max, "window": "1h", "unit": "requests" }],
        })
    };
    let limits = json!({ "limits": {
        "blue": limit(5, "has(filter_state.weir_Tenant) && filter_state.weir_Tenant.startsWith('b')"),
        "red": limit(7, "filter_state[\"weir_Tenant\"] == 'red'"),
        "nobody": limit(9, "has(filter_state.nothing)"),
    } });
    let set = json!({
        "name": "tenant",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
            "on_request_headers": [{
                "object_key": "weir_Tenant",
                "factory_key": "envoy.string",
                "format_string": { "text_format_source": { "inline_string": "%REQ(x-tenant)%" } },
            }],
        },
    });
    let world = World::build()
        .policy(&policy("llm", limits))
        .change(|config| {
            let filters = &mut config.typed(".HttpConnectionManager")["http_filters"];
            filters.as_array_mut().unwrap().insert(0, set);
        })
        .start();
    let met = |tenant: &str| {
        let answer = world.send(&Request::chat(5).header("x-tenant", tenant));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.header("x-ratelimit-limit-requests").map(str::to_owned)
    };
    assert_eq!(met("blue").as_deref(), Some("5"));
    assert_eq!(met("red").as_deref(), Some("7"));
    assert_eq!(met("green"), None);
    wait::until("the counters", || (world.adapter.counters().len() == 2).then_some(()));
    world.adapter.wait_for_bucket("blue", "requests", "blue", 1, 0);
    world.adapter.wait_for_bucket("red", "requests", "red", 1, 0);
}
