//! How `defaults` and `overrides` of a gateway's policy combine with a route's policy.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use expression::facts::Facts;
use llm::response::Usage;
use policy::model::Policy;
use policy::plan::BodyAccess;
use policy::plan::Plan;
use serde_json::{Value, json};

/// Builds one request limit for each name.
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

/// Returns which limits apply on a route, and why the others do not.
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

/// Returns what each limit on the route counts for a response with the values 10 at `/a` and 20 at `/b`.
fn counted(gateway: Value, chat: Value) -> Vec<(String, u64)> {
    let policies =
        vec![policy("chat", "HTTPRoute", "chat", chat), policy("gateway", "Gateway", "g", gateway)];
    let plan = Plan::new(policies);
    let mut facts = Facts::default();
    facts.property(&Facts::ROUTE_NAME.map(str::to_owned), b"chat");
    let found = vec![("/a".to_owned(), json!(10)), ("/b".to_owned(), json!(20))];
    let holds = plan.judge(&mut facts, true).holds;
    let counted = holds.iter().map(|hold| {
        let compute = hold.tokens.compute.as_ref().expect("the limit has a `tokenCompute`");
        (hold.rate.limit.clone(), compute.amount(&found, &Usage::default(), false).unwrap())
    });
    counted.collect()
}

#[test]
fn merged_counts_and_their_computation_are_for_both() {
    let limit = |name: &str| json!({ name: { "rates": [{ "limit": 1, "window": "1m" }] } });
    let places = |pointer: &str| json!({ "response": { "n": [pointer] } });
    let compute = |factor: u64| json!(format!("tokens.n * {factor}.0"));
    let gateway = |kind: &str| json!({ kind: { "strategy": "merge", "limits": limit("a"), "dataExtraction": places("/a"), "tokenCompute": compute(2) } });
    let bare = json!({ "limits": limit("b") });
    let own = json!({ "limits": limit("b"), "dataExtraction": places("/b"), "tokenCompute": compute(3) });
    let places_alone = json!({ "limits": limit("b"), "dataExtraction": places("/b") });
    let both = |value| vec![("b".to_owned(), value), ("a".to_owned(), value)];
    for (case, found, wanted) in [
        ("the route says nothing", counted(gateway("defaults"), bare.clone()), 20),
        ("the route has both", counted(gateway("defaults"), own.clone()), 60),
        ("the route has only the places", counted(gateway("defaults"), places_alone.clone()), 40),
        ("overrides win", counted(gateway("overrides"), own.clone()), 20),
    ] {
        assert_eq!(found, both(wanted), "{case}");
    }
}

/// Returns which limits apply where a gateway, a route and a section of the route have policies.
fn of_three(gateway: Value, route: Value, rule: Value) -> String {
    let read = |name: &str, kind: &str, section: Option<&str>, rules: &Value| {
        let mut policy = policy(name, kind, "chat", rules.clone());
        policy.target.section = section.map(str::to_owned);
        policy
    };
    let policies = [
        read("gateway", "Gateway", None, &gateway),
        read("route", "HTTPRoute", None, &route),
        read("rule", "HTTPRoute", Some("r"), &rule),
    ];
    let applying = |order: [usize; 3]| {
        let plan = Plan::new(order.map(|at| policies[at].clone()).to_vec());
        let mut facts = Facts::default();
        facts.property(&Facts::ROUTE_NAME.map(str::to_owned), b"chat");
        let holds = plan.judge(&mut facts, true).holds;
        let mut names: Vec<_> =
            holds.iter().map(|hold| format!("{}/{}", &hold.rate.policy[8..], hold.rate.limit)).collect();
        names.sort();
        names.join(" ")
    };
    let told = applying([0, 1, 2]);
    assert_eq!(applying([2, 1, 0]), told, "in whatever order they are written");
    assert_eq!(applying([1, 2, 0]), told, "in whatever order they are written");
    told
}

#[test]
fn what_has_given_way_has_no_say_any_more() {
    let (a, b, ab) = (|| limits(&["a"]), || limits(&["b"]), || limits(&["a", "b"]));
    let atomic = |limits: Value| json!({ "defaults": { "limits": limits } });
    let merged = |limits: Value| json!({ "defaults": { "strategy": "merge", "limits": limits } });
    let over = |limits: Value| json!({ "overrides": { "limits": limits } });
    let merged_over = |limits: Value| json!({ "overrides": { "strategy": "merge", "limits": limits } });
    let plain = |limits: Value| json!({ "limits": limits });
    let table = [
        // The rule's policy has replaced the route's `a`, which therefore no longer replaces the gateway's
        // `a`.
        (merged(ab()), atomic(a()), plain(b()), "gateway/a rule/b"),
        (merged(ab()), merged(a()), plain(b()), "route/a rule/b"),
        (atomic(ab()), atomic(a()), plain(b()), "rule/b"),
        (over(a()), over(b()), plain(ab()), "gateway/a"),
        (merged_over(a()), over(ab()), plain(b()), "gateway/a route/b"),
        (merged_over(a()), merged_over(ab()), plain(ab()), "gateway/a route/b"),
        (plain(a()), over(b()), plain(ab()), "gateway/a route/b"),
    ];
    for (at, (gateway, route, rule, applying)) in table.into_iter().enumerate() {
        assert_eq!(of_three(gateway, route, rule), applying, "case {at}");
    }
}

/// Kuadrant's plain limits are implicit atomic defaults: if the route has limits, none of the gateway's
/// apply.
#[test]
fn plain_limits_of_kuadrant_s_are_defaults() {
    let read = |version: &str, name: &str, kind: &str, names: &[&str]| {
        let target = json!({ "group": "gateway.networking.k8s.io", "kind": kind, "name": "chat" });
        let document = json!({
            "apiVersion": version, "kind": "TokenRateLimitPolicy", "metadata": { "name": name },
            "spec": { "targetRef": target, "limits": limits(names) },
        });
        Policy::read(&document).unwrap()
    };
    let applying = |gateway: &str, route: &str| {
        let policies =
            [read(gateway, "gateway", "Gateway", &["a", "b"]), read(route, "route", "HTTPRoute", &["b"])];
        let mut facts = Facts::default();
        facts.property(&Facts::ROUTE_NAME.map(str::to_owned), b"chat");
        let holds = Plan::new(policies.to_vec()).judge(&mut facts, true).holds;
        holds.iter().map(|hold| format!("{}/{}", &hold.rate.policy[8..], hold.rate.limit)).collect::<Vec<_>>()
    };
    let (kuadrant, weir) = ("kuadrant.io/v1alpha1", "weir.dev/v1alpha1");
    assert_eq!(applying(kuadrant, kuadrant), ["route/b"]);
    assert_eq!(applying(kuadrant, weir), ["route/b"]);
    assert_eq!(applying(weir, kuadrant), ["gateway/a", "gateway/b", "route/b"]);
}

/// If a policy's `when` also applies to another policy's limit, the body is read for that limit.
#[test]
fn the_body_is_read_for_a_when_that_has_come_from_another_policy() {
    let gateway = json!({ "defaults": {
        "strategy": "merge",
        "when": [{ "predicate": "llm.model == 'gpt-4o'" }],
        "limits": { "a": {
            "when": [{ "predicate": "request.path == '/elsewhere'" }],
            "rates": [{ "unit": "requests", "limit": 1, "window": "1m" }],
        } },
    } });
    let policies = vec![
        policy("chat", "HTTPRoute", "chat", json!({ "limits": limits(&["b"]) })),
        policy("gateway", "Gateway", "g", gateway),
    ];
    let plan = Plan::new(policies).with_body(BodyAccess::Buffer(1000));
    let wanted_on = |route: &str| {
        let mut facts = Facts::default();
        facts.header(":path", b"/v1/chat/completions");
        facts.property(&Facts::ROUTE_NAME.map(str::to_owned), route.as_bytes());
        plan.body_wanted(&facts)
    };
    assert_eq!(wanted_on("chat"), Some(1000), "b is under the gateway's `when`");
    assert_eq!(wanted_on("another"), None, "its own limit is for another path");
}
