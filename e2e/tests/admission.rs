//! Admission: Kuadrant's announced policy, concurrent requests, several limits.

use e2e::client::Request;
use e2e::jwt::{self, kuadrant_user};
use e2e::upstream::{Answer, Gate};
use e2e::world::{World, per_user, policy};
use e2e::{wait, wire};
use serde_json::json;

fn kuadrant() -> World {
    let policy =
        std::fs::read_to_string(e2e::artefacts::root().join("examples/kuadrant/policy.yaml")).unwrap();
    let world = World::with(&policy);
    world.upstream.on("7000", Answer::used(7_000));
    world
}

fn kuadrant_token(id: &str, groups: &str) -> String {
    jwt::token(&kuadrant_user(id, groups))
}

#[test]
fn the_announced_policy_counts_exactly_and_refuses_what_exceeds_it() {
    let world = kuadrant();
    let alice = Request::chat(5).token(&kuadrant_token("alice", "free,beta")).answered_by("7000");
    for used in [7_000, 14_000, 21_000] {
        assert_eq!(world.send(&alice).status, 200);
        world.adapter.wait_for_bucket("free", "tokens", "alice", used, 0);
    }
    let refused = world.send(&alice);
    assert_eq!(refused.status, 429);
    let error = &refused.json()["error"];
    assert_eq!(error["rate_limit"]["limit"], "free", "{error}");
    assert_eq!(error["rate_limit"]["policy"], "default/llm-token-limits", "{error}");
    assert_eq!(error["rate_limit"]["max"], 20_000, "{error}");
    assert_eq!(world.upstream.calls(), 3, "a refused request never reaches the upstream");
    assert_eq!(world.adapter.bucket("free", "tokens", "alice"), (21_000, 0), "and costs nothing");
}

#[test]
fn users_are_separate_gold_is_separate_and_other_paths_are_untouched() {
    let world = kuadrant();
    let ask =
        |id: &str, groups: &str| Request::chat(5).token(&kuadrant_token(id, groups)).answered_by("7000");
    for _ in 0..3 {
        assert_eq!(world.send(&ask("alice", "free")).status, 200);
    }
    world.adapter.wait_for_bucket("free", "tokens", "alice", 21_000, 0);
    assert_eq!(world.send(&ask("alice", "free")).status, 429);
    assert_eq!(world.send(&ask("bob", "free")).status, 200, "bob has a bucket of his own");
    for _ in 0..4 {
        assert_eq!(world.send(&ask("carol", "gold")).status, 200, "gold has room for 200000");
    }
    world.adapter.wait_for_bucket("free", "tokens", "bob", 7_000, 0);
    world.adapter.wait_for_bucket("gold", "tokens", "carol", 28_000, 0);
    assert_eq!(world.send(&ask("alice", "free").path("/v1/embeddings")).status, 200, "another path");
    assert_eq!(world.send(&ask("alice", "silver")).status, 200, "in neither group");
    assert_eq!(world.adapter.counters().len(), 3, "{:#?}", world.adapter.counters());
}

#[test]
fn a_spoofed_identity_header_does_nothing() {
    use base64::Engine;
    let world = kuadrant();
    let claims = kuadrant_user("bob", "free").to_string();
    let spoofed = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
    let alice = Request::chat(5).token(&kuadrant_token("alice", "free")).answered_by("7000");
    assert_eq!(world.send(&alice.header("x-jwt-payload", &spoofed)).status, 200);
    world.adapter.wait_for_bucket("free", "tokens", "alice", 7_000, 0);
    let nobody = Request::chat(5).answered_by("7000").header("x-jwt-payload", &spoofed);
    assert_eq!(world.send(&nobody).status, 200, "without a token no limit of this policy applies");
    assert_eq!(world.adapter.counters().len(), 1, "bob has paid nothing: {:#?}", world.adapter.counters());
    for seen in world.upstream.seen() {
        assert_eq!(wire::header(&seen.headers, "x-jwt-payload"), None, "the identity stays in the gateway");
    }
}

fn sixty_four_at_once(workers: u32) {
    let policy = policy("llm", json!({ "limits": { "per-user": per_user(1_000) } }));
    let world = World::build().policy(&policy).workers(workers).start();
    let gate = Gate::default();
    world.upstream.on("slow", Answer::used(100).wait_first(&gate));
    let alice = Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" }))).answered_by("slow");
    let on_their_way: Vec<_> = (0..64).map(|_| world.open(&alice)).collect();
    wait::until("54 refusals", || {
        let answered = on_their_way.iter().filter(|request| request.answered()).count();
        (answered >= 54 && world.upstream.calls() >= 10).then_some(())
    });
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 1_000);
    assert_eq!(world.upstream.calls(), 10);
    gate.open();
    let statuses: Vec<_> = on_their_way.into_iter().map(|request| request.finish().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 54, "{statuses:?}");
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 1_000, 0);
}

#[test]
fn of_sixty_four_at_once_exactly_ten_pass() {
    sixty_four_at_once(1);
}

#[test]
fn of_sixty_four_at_once_exactly_ten_pass_over_two_workers() {
    sixty_four_at_once(2);
}

#[test]
fn of_two_limits_the_stricter_holds_and_is_named() {
    let everyone =
        json!({ "reservation": { "amount": "100" }, "rates": [{ "limit": 1_000, "window": "1h" }] });
    let spec = json!({ "limits": { "everyone": everyone, "per-user": per_user(200) } });
    let world = World::with(&policy("llm", spec));
    world.upstream.on("100", Answer::used(100));
    let ask = |id: &str| Request::chat(5).token(&jwt::token(&json!({ "userid": id }))).answered_by("100");
    for used in [100, 200] {
        assert_eq!(world.send(&ask("alice")).status, 200);
        world.adapter.wait_for_bucket("per-user", "tokens", "alice", used, 0);
    }
    let refused = world.send(&ask("alice"));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["rate_limit"]["limit"], "per-user");
    assert_eq!(refused.header("x-ratelimit-limit-tokens"), Some("200"));
    assert_eq!(world.adapter.bucket("everyone", "tokens", ""), (200, 0), "all or nothing");
    assert_eq!(world.send(&ask("bob")).status, 200);
    world.adapter.wait_for_bucket("everyone", "tokens", "", 300, 0);
}

/// Tests an authorization filter before Weir and a guardrail after it (S9, KT1, L61).
#[test]
fn who_is_turned_away_before_or_behind_the_limits_has_used_nothing() {
    let rbac = |name: &str, header: &str| {
        let refused = json!({ "header": { "name": header, "present_match": true } });
        json!({ "name": name, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": { "action": "DENY", "policies": { "refused": {
                "permissions": [refused], "principals": [{ "any": true }],
            } } },
        } })
    };
    let limit = json!({
        "counters": [{ "expression": "auth.identity.userid" }],
        "reservation": { "amount": "100" },
        "rates": [
            { "limit": 1000, "window": "1h" },
            { "limit": 10, "window": "1h", "unit": "requests" },
            { "limit": 2, "unit": "concurrency" },
        ],
    });
    let builder = World::build().policy(&policy("llm", json!({ "limits": { "per-user": limit } })));
    let world = builder
        .change(|config| {
            let filters = config.filters();
            filters.insert(0, rbac("authorisation", "x-readonly"));
            filters.insert(filters.len() - 1, rbac("guardrail", "x-harmful"));
        })
        .start();
    let alice = || Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" })));
    let refused = world.send(&alice().header("x-readonly", "1"));
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("x-ratelimit-limit-tokens"), None, "refused before any limit");
    let forged = Request::chat(5).token(&jwt::forged(&json!({ "userid": "alice" })));
    assert_eq!(world.send(&forged).status, 401);
    assert_eq!(world.adapter.counters().len(), 0, "{:#?}", world.adapter.counters());
    for _ in 0..3 {
        assert_eq!(world.send(&alice().header("x-harmful", "1")).status, 403);
        world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 0);
        world.adapter.wait_for_bucket("per-user", "concurrency", "alice", 0, 0);
    }
    assert_eq!(world.adapter.bucket("per-user", "requests", "alice"), (3, 0), "admitted, so counted");
    assert_eq!(world.upstream.calls(), 0);
}

/// The size of the call does not depend on the client's values, so no client can make the call too large to
/// be answered.
#[test]
fn a_counter_whose_value_is_endless_is_a_bucket_like_any() {
    let windows = (1..90).map(|minutes| json!({ "limit": 1_000_000, "window": format!("{minutes}m") }));
    let requests = json!({ "limit": 1, "window": "1h", "unit": "requests" });
    let limits = json!({ "all": {
        "counters": [{ "expression": "request.headers['x-thread']" }],
        "rates": windows.chain([requests]).collect::<Vec<_>>(),
    } });
    let world = World::with(&policy("llm", json!({ "limits": limits, "failureMode": "Allow" })));
    let ask = |thread: &str| world.send(&Request::chat(5).header("x-thread", thread)).status;
    let endless = "x".repeat(50_000);
    assert_eq!([ask(&endless), ask(&endless)], [200, 429]);
    assert_eq!(ask(&format!("{endless}2")), 200, "another one");
    let counters = world.adapter.counters();
    assert!(counters.iter().all(|one| one.counters.values().all(|value| value.len() < 200)), "{counters:#?}");
}

/// As in the manifests' Envoy, predicates see a normalised path, regardless of the client's spelling.
#[test]
fn a_path_s_other_spellings_evade_nothing() {
    let limit = json!({
        "when": [{ "predicate": "request.url_path == '/v1/chat/completions'" }],
        "rates": [{ "limit": 1, "window": "1h", "unit": "requests" }],
    });
    let policy = policy("llm", json!({ "limits": { "all": limit } }));
    let world = World::build().policy(&policy).config("manifests/envoy/envoy.yaml").start();
    let ask = |path: &str| {
        let alice = jwt::token(&json!({ "userid": "alice" }));
        world.send(&Request::chat(5).path(path).token(&alice)).status
    };
    assert_eq!(ask("/v1/chat/completions"), 200);
    let spellings = [
        "/v1/chat/completions?a",
        "//v1/chat/completions",
        "/v1/./chat/completions",
        "/v1/a/../chat/completions",
    ];
    assert_eq!(spellings.map(ask), [429; 4]);
    assert_eq!(ask("/v1/chat%2Fcompletions"), 307, "is to be asked for as it is");
}
