//! `defaults` and `overrides` of a gateway's policy beside a route's own.
// Clippy knows a test by its attribute, and so misses the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use policy::facts::Facts;
use policy::model::Policy;
use policy::plan::Plan;
use serde_json::{Value, json};

/// One limit of requests for each name.
fn limits(names: &[&str]) -> Value {
    let limit = |name: &&str| {
        ((*name).to_owned(), json!({ "rates": [{ "unit": "requests", "limit": 1, "window": "1m" }] }))
    };
    Value::Object(names.iter().map(limit).collect())
}

fn policy(name: &str, kind: &str, target: &str, rules: Value) -> Policy {
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": kind, "name": target });
    let mut document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": name },
        "spec": { "targetRef": target },
    });
    document["spec"].as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
    Policy::read(&document).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// Which limits apply on a route, and why the others do not.
fn on(route: &str, gateway: &Value, chat: &Value) -> String {
    let policies = vec![
        policy("chat", "HTTPRoute", "chat", chat.clone()),
        policy("gateway", "Gateway", "g", gateway.clone()),
    ];
    let plan = Plan::new(policies);
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header("x-plan", b"free");
    facts.property(&Facts::ROUTE_NAME.map(str::to_owned), route.as_bytes());
    let mut told: Vec<String> = Vec::new();
    let judgement = plan.judge_with(&mut facts, true, |policy, limit, why| {
        told.push(format!("{}/{limit} does not: {why:?}", policy.trim_start_matches("default/")));
    });
    let applies = judgement.holds.iter().map(|hold| {
        format!("{}/{} applies", hold.rate.policy.trim_start_matches("default/"), hold.rate.limit)
    });
    told.extend(applies);
    told.sort();
    told.join("\n")
}

fn both(gateway: Value, chat: Value) -> String {
    format!("on chat:\n{}\non another:\n{}", on("chat", &gateway, &chat), on("another", &gateway, &chat))
}

#[test]
fn plain_limits_of_both_apply() {
    let told = both(json!({ "limits": limits(&["a", "b"]) }), json!({ "limits": limits(&["b", "c"]) }));
    insta::assert_snapshot!(told);
}

#[test]
fn atomic_defaults_give_way_to_a_route_s_own_policy() {
    let gateway = json!({ "defaults": { "limits": limits(&["a", "b"]) } });
    insta::assert_snapshot!(both(gateway, json!({ "limits": limits(&["b", "c"]) })));
}

#[test]
fn merged_defaults_give_way_limit_by_limit() {
    let gateway = json!({ "defaults": { "strategy": "merge", "limits": limits(&["a", "b"]) } });
    insta::assert_snapshot!(both(gateway, json!({ "limits": limits(&["b", "c"]) })));
}

#[test]
fn atomic_overrides_take_a_route_s_place() {
    let gateway = json!({ "overrides": { "strategy": "atomic", "limits": limits(&["a", "b"]) } });
    insta::assert_snapshot!(both(gateway, json!({ "limits": limits(&["b", "c"]) })));
}

#[test]
fn merged_overrides_take_the_place_of_limits_of_the_same_name() {
    let gateway = json!({ "overrides": { "strategy": "merge", "limits": limits(&["a", "b"]) } });
    insta::assert_snapshot!(both(gateway, json!({ "limits": limits(&["b", "c"]) })));
}

#[test]
fn a_merged_when_is_for_both() {
    let gold = json!([{ "predicate": "request.headers['x-plan'] == 'gold'" }]);
    let free = json!([{ "predicate": "request.headers['x-plan'] == 'free'" }]);
    let gateway =
        |kind: &str| json!({ kind: { "strategy": "merge", "when": gold, "limits": limits(&["a"]) } });
    let chat = json!({ "limits": limits(&["b"]) });
    let with_when = json!({ "when": free, "limits": limits(&["b"]) });
    let told = [
        ("defaults, and the route says nothing", on("chat", &gateway("defaults"), &chat)),
        ("defaults, and the route has its own", on("chat", &gateway("defaults"), &with_when)),
        ("overrides, and the route has its own", on("chat", &gateway("overrides"), &with_when)),
    ];
    insta::assert_snapshot!(told.map(|(case, told)| format!("{case}:\n{told}")).join("\n"));
}
