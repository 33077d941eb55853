//! A request's facts rule out exactly the policies that would not have applied. With hundreds of policies,
//! the index finds the same policies as an evaluation of each of them.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use expression::facts::Facts;
use policy::model::Policy;
use policy::plan::{Judgement, Plan};
use policy::routes::Routes;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use protocol::wire::weir::v1::Placement;
use serde_json::{Value, json};

const PREDICATES: [&str; 26] = [
    "request.path == '/a'",
    "'/b' == request.path",
    "request.path.startsWith('/a/')",
    "request.path.startsWith('/')",
    "request.url_path == '/a' || request.path == '/c'",
    "request.host in ['a.example', 'b.example']",
    "request.host in []",
    "request.method == 'POST'",
    "request.headers['x-team'] == 'red'",
    "request.headers['x-team'] == 'red' || auth.identity.plan == 'gold'",
    "auth.identity.plan == 'gold'",
    "auth.identity.plan == 'free' && request.path == '/a'",
    "request.path == '/a' && auth.identity.plan == 'free'",
    "auth.identity.plan == 'free' && metadata.filter_metadata.a.b == 'c'",
    "metadata.filter_metadata.a.b == 'c' && request.path == '/b'",
    "has(auth.identity) && auth.identity.plan == 'gold'",
    "!has(auth.identity)",
    "request.path != '/a'",
    "request.path.endsWith('a') || request.path == '/b'",
    "auth.identity.groups.exists(g, g == 'red')",
    "request.path == '/a' && (request.method == 'GET' || request.method == 'POST')",
    "metadata.filter_metadata.a.b == 'c'",
    // A predicate that fails.
    "int(request.path) == 1",
    "int(request.headers['x-team']) == 1",
    "int(auth.identity.plan) == 1",
    "request.method == 'POST' && int(request.host) == 1",
];

const RULES: [&str; 5] = ["limits", "limits", "limits", "defaults", "overrides"];

fn when() -> impl Strategy<Value = Value> {
    subsequence(PREDICATES.to_vec(), 0..3).prop_shuffle().prop_map(|predicates| {
        predicates.into_iter().map(|predicate| json!({ "predicate": predicate })).collect()
    })
}

/// Generates a policy. `kinds` is the number of kinds of rules.
fn policy(kinds: usize) -> impl Strategy<Value = (Value, bool)> {
    let limits = prop::collection::vec(when(), 1..3);
    (when(), limits, select(&RULES[..kinds]), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(when, limits, rules, merge, on_route, deny)| {
            let limit = |(index, when): (usize, Value)| {
                (
                    format!("l{index}"),
                    json!({ "when": when, "rates": [{ "limit": 5, "window": "1m", "unit": "requests" }] }),
                )
            };
            let limits: serde_json::Map<String, Value> = limits.into_iter().enumerate().map(limit).collect();
            let mut spec = match rules {
                "limits" => json!({ "limits": limits, "when": when }),
                _ => {
                    let strategy = if merge { "merge" } else { "atomic" };
                    json!({ rules: { "limits": limits, "when": when, "strategy": strategy } })
                }
            };
            spec["failureMode"] = if deny { "Deny" } else { "Allow" }.into();
            (spec, on_route)
        },
    )
}

fn read(index: usize, (mut spec, on_route): (Value, bool)) -> Policy {
    let (kind, name) =
        if on_route { ("HTTPRoute", format!("route-{}", index % 3)) } else { ("Gateway", "g".into()) };
    spec["targetRef"] = json!({ "group": "gateway.networking.k8s.io", "kind": kind, "name": name });
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy",
        "metadata": { "name": format!("p{index}") }, "spec": spec,
    });
    Policy::read(&document).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn facts() -> impl Strategy<Value = Facts> {
    let identity = select(vec![
        None,
        Some(json!({})),
        Some(json!({ "identity": { "plan": "gold" } })),
        Some(json!({ "identity": { "plan": "free", "groups": ["red"] } })),
        Some(json!({ "identity": { "plan": 5, "groups": "red" } })),
        Some(json!({ "identity": "gold" })),
        Some(json!({ "identity": null })),
    ]);
    let paths = select(vec!["/a", "/b", "/c", "/a/x", "/a?b", "", "/é"]);
    let team = select(vec![None, Some("red"), Some("blue")]);
    let host = select(vec![None, Some("a.example"), Some("c.example")]);
    (paths, select(vec!["GET", "POST"]), team, host, identity, 0..4_usize).prop_map(
        |(path, method, team, host, identity, route)| {
            let mut facts = Facts::default();
            facts.header(":path", path.as_bytes());
            facts.header(":method", method.as_bytes());
            team.into_iter().for_each(|team| facts.header("x-team", team.as_bytes()));
            host.into_iter().for_each(|host| facts.header(":authority", host.as_bytes()));
            identity.into_iter().for_each(|identity| facts.auth(identity));
            facts.property(&Facts::ROUTE_NAME.map(str::to_owned), format!("route-{route}").as_bytes());
            facts
        },
    )
}

fn told(judgement: &Judgement) -> String {
    let holds = judgement.holds.iter();
    let holds: Vec<_> = holds.map(|hold| format!("{} {}", hold.rate.policy, hold.rate.limit)).collect();
    format!("{holds:?} {:?} {:?}", judgement.failures, judgement.estimate)
}

fn compare(plan: &Plan, facts: &Facts) {
    let found = plan.judge(&mut facts.clone(), true);
    let asked = plan.judge_with(&mut facts.clone(), true, |_, _, _| {});
    assert_eq!(told(&found), told(&asked));
    let goes_on = plan.rounds().iter().all(|round| round.is_open(facts));
    assert!(goes_on || (asked.holds.is_empty() && asked.failures.is_empty()), "{}", told(&asked));
}

/// Builds a plan in which every policy applies to all routes, like a Gateway's policy.
fn everywhere(policies: Vec<Policy>) -> Plan {
    let all = 0..u32::try_from(policies.len()).unwrap();
    let placement = Placement { everywhere: all.collect(), ..Placement::default() };
    let routes = Routes::compile(&placement, policies.len()).unwrap();
    Plan::placed(policies, routes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_found_is_what_asking_each_policy_gives(
        policies in prop::collection::vec(policy(3), 1..60),
        requests in prop::collection::vec(facts(), 12),
    ) {
        let policies: Vec<Policy> = policies.into_iter().enumerate().map(|(index, one)| read(index, one)).collect();
        let plans = [Plan::new(policies.clone()), everywhere(policies)];
        for (plan, facts) in plans.iter().flat_map(|plan| requests.iter().map(move |facts| (plan, facts))) {
            compare(plan, facts);
        }
    }

    #[test]
    fn the_same_beside_defaults_and_overrides(
        policies in prop::collection::vec(policy(5), 1..40),
        requests in prop::collection::vec(facts(), 12),
    ) {
        let policies = policies.into_iter().enumerate().map(|(index, one)| read(index, one)).collect();
        let plan = Plan::new(policies);
        requests.iter().for_each(|facts| compare(&plan, facts));
    }
}
