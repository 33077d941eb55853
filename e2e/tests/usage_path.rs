//! `usagePath` through Envoy: callers read their own limits, which costs nothing and never reaches the provider.

use e2e::artefacts;
use e2e::client::{Request, Response};
use e2e::jwt;
use e2e::redis::Redis;
use e2e::upstream::{Answer, Gate};
use e2e::world::{Builder, World, policy};
use serde_json::{Value, json};

const PATH: &str = "/weir/usage";

fn limits() -> Value {
    let user = json!([{ "expression": "auth.identity.userid" }]);
    let chat = json!([{ "predicate": "request.url_path == '/v1/chat/completions'" }]);
    json!({
        "tokens": { "when": chat, "counters": user, "reservation": { "amount": "100" },
            "rates": [{ "limit": 150, "window": "1h" }] },
        "sliding": { "when": chat, "counters": user,
            "rates": [{ "limit": 20, "unit": "requests", "window": "1h", "windowType": "Sliding" }] },
        "month": { "when": chat, "counters": user, "reservation": { "amount": "100" },
            "rates": [{ "limit": 9000, "period": "Month", "timeZone": "America/New_York" }] },
        "at-once": { "when": chat, "counters": user, "rates": [{ "limit": 4, "unit": "concurrency" }] },
        "mini": { "when": [{ "predicate": "llm.model == 'mini'" }], "counters": user,
            "rates": [{ "limit": 7, "unit": "requests", "window": "1m" }] },
        "elsewhere": { "when": [{ "predicate": "request.url_path == '/v1/messages'" }],
            "counters": [{ "expression": "request.headers['x-team']" }],
            "rates": [{ "limit": 5, "unit": "requests", "window": "1m" }] },
    })
}

fn build(path: Option<&str>) -> Builder {
    let build = World::build().policy(&policy("llm", json!({ "limits": limits() }))).reading_bodies(1 << 20);
    build.plugin(|plugin| {
        path.iter().for_each(|path| plugin["usagePath"] = json!(path));
    })
}

fn of(who: &str, request: Request) -> Request {
    request.token(&jwt::token(&json!({ "userid": who })))
}

fn usage(world: &World, who: &str, query: &str) -> Value {
    let answer = world.send(&of(who, Request::get(&format!("{PATH}{query}"))));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Returns the limit, maximum, used, held and remaining amounts.
fn numbers(usage: &Value) -> Vec<(String, u64, u64, u64, u64)> {
    let limits = usage["limits"].as_array().unwrap();
    let number = |limit: &Value, name: &str| limit[name].as_u64().unwrap();
    let row = |limit: &Value| {
        let [max, used, held, remaining] =
            ["max", "used", "held", "remaining"].map(|name| number(limit, name));
        (limit["limit"].as_str().unwrap().to_owned(), max, used, held, remaining)
    };
    let mut rows: Vec<_> = limits.iter().map(row).collect();
    rows.sort();
    rows
}

fn row(limit: &str, max: u64, used: u64, held: u64) -> (String, u64, u64, u64, u64) {
    (limit.to_owned(), max, used, held, max.saturating_sub(used + held))
}

fn shows_a_caller_its_own(world: &World) {
    world.upstream.on("60", Answer::used(60));
    let chat = |who: &str| of(who, Request::chat(5).answered_by("60"));
    let fresh = [
        row("at-once", 4, 0, 0),
        row("month", 9000, 0, 0),
        row("sliding", 20, 0, 0),
        row("tokens", 150, 0, 0),
    ];
    assert_eq!(numbers(&usage(world, "alice", "")), fresh);

    assert_eq!(world.send(&chat("alice")).status, 200);
    let used = [
        row("at-once", 4, 0, 0),
        row("month", 9000, 60, 0),
        row("sliding", 20, 1, 0),
        row("tokens", 150, 60, 0),
    ];
    // Exchanges that have ended are charged first, so the test need not wait.
    let shown = usage(world, "alice", "");
    assert_eq!(numbers(&shown), used);
    let of_limit = |name: &str| {
        let all = shown["limits"].as_array().unwrap();
        all.iter().find(|limit| limit["limit"] == name).unwrap().clone()
    };
    let seconds = |name: &str| of_limit(name)["resetsInSeconds"].as_u64().unwrap();
    assert_eq!((&shown["path"], &shown["model"]), (&json!("/v1/chat/completions"), &Value::Null));
    assert_eq!(
        (&of_limit("tokens")["policy"], &of_limit("tokens")["unit"]),
        (&json!("default/llm"), &json!("tokens"))
    );
    assert_eq!(
        (&of_limit("tokens")["window"], &of_limit("sliding")["windowType"]),
        (&json!("1h"), &json!("Sliding"))
    );
    let month = of_limit("month");
    assert_eq!((&month["period"], &month["timeZone"]), (&json!("Month"), &json!("America/New_York")));
    assert!(
        (3580..=3600).contains(&seconds("tokens")) && (3580..=3600).contains(&seconds("sliding")),
        "{shown}"
    );
    assert!((1..=31 * 86_400 + 3600).contains(&seconds("month")), "{shown}");
    assert!(of_limit("at-once")["resetsInSeconds"].is_null());

    // The path works while the caller is over the limit, for any number of requests.
    assert_eq!(world.send(&chat("alice")).status, 429);
    for _ in 0..30 {
        assert_eq!(numbers(&usage(world, "alice", "")), used);
    }
    assert_eq!(numbers(&usage(world, "bob", "")), fresh, "nobody else's");
    let modelled = numbers(&usage(world, "alice", "?model=mini"));
    assert!(modelled.contains(&row("mini", 7, 0, 0)), "{modelled:?}");
    assert_eq!(world.upstream.calls(), 1, "the provider has seen the chat alone");
}

#[test]
fn a_caller_sees_its_own_limits() {
    shows_a_caller_its_own(&build(Some(PATH)).start());
}

#[test]
fn and_if_the_counters_are_in_a_redis() {
    let redis = Redis::start();
    shows_a_caller_its_own(&build(Some(PATH)).storage(&redis.url(0)).start());
}

#[test]
fn a_request_under_way_is_shown_as_held() {
    let world = build(Some(PATH)).start();
    let gate = Gate::default();
    world.upstream.on("slow", Answer::used(60).wait_first(&gate));
    let chat = world.open(&of("alice", Request::chat(5).answered_by("slow")));
    world.adapter.wait_for_bucket("tokens", "tokens", "alice", 0, 100);
    let shown = numbers(&usage(&world, "alice", ""));
    assert!(
        shown.contains(&row("tokens", 150, 0, 100)) && shown.contains(&row("at-once", 4, 0, 1)),
        "{shown:?}"
    );
    gate.open();
    assert_eq!(chat.finish().status, 200);
}

#[test]
fn the_path_is_the_filter_s_in_every_spelling_and_for_every_method() {
    let world = build(Some(PATH)).start();
    let send = |request: Request| -> Response { world.send(&of("alice", request)) };
    for path in ["/weir/usage/", "/weir/%75sage", "/v1/../weir/usage", "/weir//usage?x=y"] {
        let answer = send(Request::get(path));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let head = send(Request::new("HEAD", PATH));
    assert_eq!((head.status, head.body.len()), (200, 0));
    for method in ["POST", "PUT", "DELETE"] {
        let answer = send(Request::new(method, PATH).body("{}"));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(send(Request::new("GET", PATH).body("{}")).status, 200);
    assert_eq!(send(Request::get(&format!("{PATH}?path=nonsense"))).status, 400);
    assert_eq!(world.upstream.calls(), 0);
    assert_eq!(world.adapter.counters(), []);
}

/// The identity is the one that the gateway has verified, regardless of the client's headers.
#[test]
fn no_client_chooses_whose_limits_it_sees() {
    let world = build(Some(PATH)).start();
    world.upstream.on("60", Answer::used(60));
    assert_eq!(world.send(&of("alice", Request::chat(5).answered_by("60"))).status, 200);
    world.adapter.wait_for_bucket("tokens", "tokens", "alice", 60, 0);
    let forged = jwt::token(&json!({ "userid": "alice" }));
    let payload = forged.split('.').nth(1).unwrap();
    for request in [
        Request::get(PATH).header("x-jwt-payload", payload),
        Request::get(&format!("{PATH}?userid=alice&auth.identity.userid=alice&identity=alice")),
        Request::get(&format!("{PATH}?path=/v1/chat/completions%3Fuserid=alice&model=alice")),
    ] {
        let shown = numbers(&world.send(&of("mallory", request.clone())).json());
        assert!(shown.contains(&row("tokens", 150, 0, 0)), "{shown:?}");
        let answer = world.send(&request);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!("unauthenticated")));
    }
}

#[test]
fn an_adapter_that_is_away_is_a_clear_error() {
    let mut world = build(Some(PATH)).start();
    world.adapter.kill();
    let answer = world.send(&of("alice", Request::get(PATH)));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["error"]["code"], "usage_unavailable");
    assert_eq!(world.upstream.calls(), 0);
}

#[test]
fn without_a_limit_the_list_is_empty() {
    let world = build(Some(PATH)).start();
    assert_eq!(usage(&world, "alice", "?path=/v1/models")["limits"], json!([]));
}

#[test]
fn without_the_key_the_path_is_the_provider_s() {
    let world = build(None).start();
    world.upstream.on("60", Answer::used(60));
    assert_eq!(world.send(&of("alice", Request::get(PATH).answered_by("60"))).status, 200);
    assert_eq!(world.upstream.calls(), 1);
}

/// The request and response in `docs/usage.md`, for a caller that has used 1200 tokens and has one running request.
#[test]
fn the_page_shows_a_real_answer() {
    let page = std::fs::read_to_string(artefacts::root().join("docs/usage.md")).unwrap();
    let block = |language: &str| {
        let (_, block) = page.split_once(&format!("```{language}\n")).unwrap();
        block.split_once("```").unwrap().0.to_owned()
    };
    let url = block("sh").split('\'').nth(1).unwrap().to_owned();
    let mut shown: Value = serde_json::from_str(&block("json")).unwrap();

    let user = json!([{ "expression": "auth.identity.userid" }]);
    let limits = json!({
        "free": { "counters": user, "reservation": { "amount": "500" },
            "rates": [{ "limit": 20000, "period": "Day", "timeZone": "Europe/Berlin" }] },
        "bursts": { "counters": user,
            "rates": [{ "limit": 20, "unit": "requests", "window": "1m", "windowType": "Sliding" }] },
    });
    let llm = policy("llm", json!({ "limits": limits }));
    let world = World::build().policy(&llm).plugin(|plugin| plugin["usagePath"] = json!(PATH)).start();
    let gate = Gate::default();
    world.upstream.on("1200", Answer::used(1200));
    world.upstream.on("slow", Answer::used(1).wait_first(&gate));
    assert_eq!(world.send(&of("alice", Request::chat(5).answered_by("1200"))).status, 200);
    let under_way = world.open(&of("alice", Request::chat(5).answered_by("slow")));
    world.adapter.wait_for_bucket("free", "tokens", "alice", 1200, 500);

    let mut answer = world.send(&of("alice", Request::get(url.trim_start_matches("localhost:10000")))).json();
    for usage in [&mut shown, &mut answer] {
        let limits = usage["limits"].as_array_mut().unwrap();
        for limit in limits.iter_mut() {
            assert!(limit["resetsInSeconds"].take().is_u64());
        }
        limits.sort_by_key(|limit| limit["limit"].to_string());
    }
    assert_eq!(answer, shown);
    gate.open();
    assert_eq!(under_way.finish().status, 200);
}
