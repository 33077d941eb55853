//! Callers' questions about their own usage: the call to the adapter, and the answer.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::refusal::Denial;
use engine::usage::{UsageCall, UsagePath, UsageQuestion, without_plan};
use expression::facts::Facts;
use llm::memory::MemoryBudget;
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::call::CallFailure;
use protocol::wire::weir::v1::{BucketUsage, GetUsageRequest, GetUsageResponse};
use serde_json::{Value, json};

fn plan(limits: Value) -> Plan {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "p" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" },
            "limits": limits,
        },
    });
    Plan::new(vec![Policy::read(&document).expect("a good policy")]).with_body(BodyAccess::Buffer(1 << 20))
}

/// Returns the facts of Alice's request, with the headers that the question replaces.
fn facts(question: &UsageQuestion) -> Facts {
    let mut facts = Facts::default();
    for (name, value) in question.headers() {
        value.iter().for_each(|value| facts.header(name, value.as_bytes()));
    }
    facts.auth(json!({ "identity": { "userid": "alice" } }));
    facts
}

fn ask(plan: &Plan, target: &str) -> Result<(UsageCall, GetUsageRequest), Denial> {
    let question = UsageQuestion::parse("GET", target)?;
    let facts = facts(&question);
    let (call, message) = question.ask(plan, facts, &MemoryBudget::default())?;
    Ok((call, GetUsageRequest::decode(&*message).unwrap()))
}

fn entries(request: &GetUsageRequest) -> Vec<Vec<(&str, &str)>> {
    let of_each = request.descriptors.iter().map(|descriptor| {
        descriptor.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect()
    });
    of_each.collect()
}

fn body(answer: &Denial) -> Value {
    let find = |name: &str| answer.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    assert_eq!((find("content-type"), find("cache-control")), (Some("application/json"), Some("no-store")));
    serde_json::from_slice(&answer.body).unwrap()
}

fn refused(result: Result<(UsageCall, GetUsageRequest), Denial>) -> (u16, String) {
    let answer = result.map(drop).expect_err("there is nothing to ask");
    (answer.status, body(&answer)["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn per_user() -> Value {
    json!({
        "counters": [{ "expression": "auth.identity.userid" }],
        "rates": [{ "limit": 1000, "window": "1h" }],
    })
}

#[test]
fn a_path_is_answered_in_every_spelling_and_no_other_is() {
    let path = UsagePath::parse("/weir/usage").unwrap();
    let is = |target: &str| {
        let mut facts = Facts::default();
        facts.header(":path", target.as_bytes());
        path.is(&facts)
    };
    for target in [
        "/weir/usage",
        "/weir/usage?path=/v1/x",
        "/weir/usage/",
        "//weir/usage",
        "/weir/%75sage",
        "/v1/../weir/usage",
        "/v1/%2e%2e/weir%2Fusage",
        "/weir/usage;a=b",
    ] {
        assert!(is(target), "{target}");
    }
    for target in [
        "/",
        "/weir",
        "/weir/usages",
        "/weir/usage/x",
        "/weir/usage/../../v1/chat/completions",
        "/v1/chat/completions?/weir/usage",
        "/v1/chat/completions?x=/../weir/usage",
        "/WEIR/usage",
        "/weir/usage%3F",
    ] {
        assert!(!is(target), "{target}");
    }
    assert!(!path.is(&Facts::default()));
    for wrong in ["", "/", "weir", "/a?b", "/a#b", "/a/", "/a//b", "/%61", "/a;b", "/a/../b", "/ä", "/a b"] {
        assert_eq!(UsagePath::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn the_adapter_is_asked_for_the_buckets_of_the_described_request() {
    let plan = plan(json!({
        "chat": { "when": [{ "predicate": "request.url_path == '/v1/chat/completions'" }],
            "counters": [{ "expression": "auth.identity.userid" }],
            "rates": [{ "limit": 1000, "window": "1h" }, { "limit": 3, "unit": "concurrency" }] },
        "mini": { "when": [{ "predicate": "llm.model == 'mini'" }],
            "rates": [{ "limit": 5, "unit": "requests", "period": "Day", "timeZone": "Europe/Berlin" }] },
        "posts": { "when": [{ "predicate": "request.method == 'POST' && request.url_path == '/v1/messages'" }],
            "rates": [{ "limit": 9, "unit": "requests", "window": "1h", "windowType": "Sliding" }] },
        "dry": { "enforceWhen": "false", "rates": [{ "limit": 1, "window": "1h" }] },
    }));
    let names = |target: &str| {
        let (_, request) = ask(&plan, target).expect("a call");
        let named: Vec<_> = entries(&request).iter().map(|entries| entries[0].1.to_owned()).collect();
        assert!(
            request.descriptors.iter().all(|descriptor| descriptor.hits_addend == Some(0)),
            "{request:?}"
        );
        named
    };
    assert_eq!(names("/u"), ["default/p/chat", "default/p/chat"]);
    assert_eq!(names("/u?path=/v1/messages&model=mini"), ["default/p/mini", "default/p/posts"]);
    assert_eq!(names("/u?path=%2Fv1%2Fx%2F..%2Fmessages"), ["default/p/posts"]);
    let (_, request) = ask(&plan, "/u").unwrap();
    let wanted = [
        ("limit", "default/p/chat"),
        ("unit", "tokens"),
        ("window", "3600s"),
        ("auth.identity.userid", "alice"),
    ];
    assert_eq!(entries(&request)[0], wanted);
}

#[test]
fn the_answer_names_what_each_rate_has() {
    let plan = plan(json!({
        "a": { "rates": [{ "limit": 1000, "window": "1h" }, { "limit": "5.00", "unit": "usd", "period": "Month", "cost": "1" }] },
        "b": { "rates": [{ "limit": 9, "unit": "requests", "window": "90s", "windowType": "Sliding" },
            { "limit": 7, "unit": "requests", "period": "Lifetime" }, { "limit": 3, "unit": "concurrency" }] },
        "gone": { "rates": [{ "limit": 9, "unit": "requests", "window": "1h" }] },
    }));
    let (call, request) = ask(&plan, "/u?model=mini").unwrap();
    let bucket = |max, used, held, reset_ms| {
        let remaining = u64::saturating_sub(max, used + held);
        BucketUsage { known: true, max, used, held, remaining, reset_ms }
    };
    assert_eq!(request.descriptors.len(), 6);
    let buckets = vec![
        bucket(1000, 1200, 30, 59_001),
        bucket(5_000_000, 1, 2, 1000),
        bucket(9, 1, 0, 90_000),
        bucket(7, 7, 0, 1 << 50),
        bucket(3, 0, 2, 1000),
        BucketUsage::default(),
    ];
    let answer = call.answer(Ok(GetUsageResponse { buckets }));
    assert_eq!(answer.status, 200);
    assert_eq!(
        body(&answer),
        json!({ "path": "/v1/chat/completions", "model": "mini", "limits": [
            { "policy": "default/p", "limit": "a", "unit": "tokens", "window": "1h",
              "max": 1000, "used": 1200, "held": 30, "remaining": 0, "resetsInSeconds": 60 },
            { "policy": "default/p", "limit": "a", "unit": "usd", "period": "Month", "timeZone": "UTC",
              "max": 5_000_000, "used": 1, "held": 2, "remaining": 4_999_997, "resetsInSeconds": 1 },
            { "policy": "default/p", "limit": "b", "unit": "requests", "window": "90s", "windowType": "Sliding",
              "max": 9, "used": 1, "held": 0, "remaining": 8, "resetsInSeconds": 90 },
            { "policy": "default/p", "limit": "b", "unit": "requests", "period": "Lifetime",
              "max": 7, "used": 7, "held": 0, "remaining": 0, "resetsInSeconds": null },
            { "policy": "default/p", "limit": "b", "unit": "concurrency",
              "max": 3, "used": 0, "held": 2, "remaining": 1, "resetsInSeconds": null },
        ] })
    );
}

#[test]
fn the_bucket_of_those_who_send_no_such_field_is_nobody_s_own() {
    let plan = plan(json!({
        "by-body-user": { "counters": [{ "expression": "llm.user" }], "rates": [{ "limit": 10, "window": "1h" }] },
        "by-model": { "counters": [{ "expression": "llm.model" }], "rates": [{ "limit": 20, "window": "1h" }] },
        "per-user": per_user(),
    }));
    let (_, request) = ask(&plan, "/u?model=mini").unwrap();
    let of_model = entries(&request).into_iter().find(|one| one[0].1 == "default/p/by-model").unwrap();
    assert_eq!(of_model.last(), Some(&("llm.model", "mini")));
    let (call, request) = ask(&plan, "/u").unwrap();
    assert_eq!(request.descriptors.len(), 1, "only the user's own: {request:?}");
    let bucket = BucketUsage { known: true, max: 1000, remaining: 1000, ..BucketUsage::default() };
    let answer = body(&call.answer(Ok(GetUsageResponse { buckets: vec![bucket] })));
    let used = |limit: &str| {
        let all = answer["limits"].as_array().unwrap();
        let one = all.iter().find(|one| one["limit"] == limit).unwrap();
        (one["max"].clone(), one["used"].clone())
    };
    assert_eq!(used("by-body-user"), (json!(10), Value::Null));
    assert_eq!(used("by-model"), (json!(20), Value::Null));
    assert_eq!(used("per-user"), (json!(1000), json!(0)));
}

#[test]
fn a_soft_limit_is_shown_as_one_and_a_dry_run_is_not_shown() {
    let rates = json!([{ "limit": 10, "window": "1h" }]);
    let signal = json!({ "headers": [{ "name": "x-budget", "value": "exceeded" }] });
    let plan = plan(json!({
        "soft": { "boundary": "Soft", "softSignal": signal, "rates": rates },
        "dry-soft": { "boundary": "Soft", "softSignal": signal, "enforceWhen": "false", "rates": rates },
        "dry": { "enforceWhen": "false", "rates": rates },
    }));
    let (call, request) = ask(&plan, "/u").unwrap();
    assert_eq!(request.descriptors.len(), 1);
    let bucket = BucketUsage { known: true, max: 10, used: 12, ..BucketUsage::default() };
    let answer = body(&call.answer(Ok(GetUsageResponse { buckets: vec![bucket] })));
    let soft = &answer["limits"][0];
    assert_eq!(
        (&soft["limit"], &soft["boundary"], &soft["used"]),
        (&json!("soft"), &json!("Soft"), &json!(12))
    );
}

#[test]
fn what_cannot_be_asked_is_answered_at_once() {
    let plan = plan(json!({ "per-user": per_user() }));
    let invalid = (400, "invalid_parameter".to_owned());
    for query in [
        "path=v1/chat",
        "path=",
        "path=/a%0d%0ab",
        "path=/a%20b",
        "path=/%c3%a4",
        "path=/a%23b",
        "path=http://other/x",
        "model=",
        "path=/a&path=/b",
        "model=a&model=a",
        &format!("path=/{}", "a".repeat(2048)),
        &format!("model={}", "a".repeat(257)),
    ] {
        assert_eq!(refused(ask(&plan, &format!("/u?{query}"))), invalid, "{query}");
    }
    for query in ["", "x=y&path", "&&=", "path=/v1/chat/completions?a=b%26c", "model=%22%7D%5C%00"] {
        assert!(ask(&plan, &format!("/u?{query}")).is_ok(), "{query}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get", ""] {
        let answer = UsageQuestion::parse(method, "/u").expect_err(method);
        assert_eq!(answer.status, 405);
        assert!(answer.headers.contains(&("allow".into(), "GET, HEAD".to_owned())));
        body(&answer);
    }
    assert!(UsageQuestion::parse("HEAD", "/u").is_ok());
    assert_eq!(without_plan().status, 503);
    body(&without_plan());
}

#[test]
fn without_a_limit_the_list_is_empty() {
    let nothing = Plan::new(Vec::new());
    let elsewhere = plan(json!({ "x": { "when": [{ "predicate": "request.url_path == '/x'" }],
        "rates": [{ "limit": 1, "window": "1h" }] } }));
    for plan in [nothing, elsewhere] {
        let answer = ask(&plan, "/u").map(drop).expect_err("there is nothing to ask");
        assert_eq!((answer.status, &body(&answer)["limits"]), (200, &json!([])));
    }
}

#[test]
fn an_adapter_that_does_not_answer_is_a_503() {
    let plan = plan(json!({ "per-user": per_user() }));
    let failures = [CallFailure::Timeout, CallFailure::Unavailable, CallFailure::Status(12)];
    for reply in failures.map(Err).into_iter().chain([Ok(GetUsageResponse::default())]) {
        let (call, _) = ask(&plan, "/u").unwrap();
        let answer = call.answer(reply);
        assert_eq!((answer.status, &body(&answer)["error"]["code"]), (503, &json!("usage_unavailable")));
    }
}

#[test]
fn a_maximum_that_cannot_be_determined_is_a_503_and_one_that_is_null_is_no_rate() {
    let with = |from: &str| {
        plan(json!({ "x": { "rates": [{ "limitFrom": from, "window": "1h" }] }, "per-user": per_user() }))
    };
    let broken = with("auth.identity.userid");
    assert_eq!(refused(ask(&broken, "/u")), (503, "usage_unavailable".to_owned()));
    let (_, request) = ask(&with("auth.identity.quota"), "/u").unwrap();
    assert_eq!(entries(&request).len(), 1);
}

#[test]
fn an_answer_is_bounded() {
    let many: Vec<String> = (0..300).map(|number| format!("g{number}")).collect();
    let limits: serde_json::Map<_, _> = many.into_iter().map(|name| (name, per_user())).collect();
    let (call, request) = ask(&plan(limits.into()), "/u").unwrap();
    assert_eq!(request.descriptors.len(), 256);
    let buckets = vec![BucketUsage { known: true, ..BucketUsage::default() }; 256];
    assert_eq!(body(&call.answer(Ok(GetUsageResponse { buckets })))["omitted"], 44);
    let question = UsageQuestion::parse("GET", "/u").unwrap();
    let facts = facts(&question);
    let full = question.ask(&plan(json!({ "per-user": per_user() })), facts, &MemoryBudget::new(64));
    assert_eq!(full.map(drop).expect_err("there is no memory").status, 503);
}
