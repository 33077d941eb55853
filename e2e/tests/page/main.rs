//! The adapter's page in a real browser. `make test-page` installs Chromium and the packages, and runs this test.

mod browser;

use browser::{play, play_at};
use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::jwt;
use e2e::upstream::{Answer, Gate};
use e2e::world::{World, policy};
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use envoy_types::pb::google::protobuf::UInt64Value;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

const TOKEN: &str = "s3cret-token";
const USER: &str = "auth.identity.userid";
/// The number of descriptors per call. A call may have 4096.
const BATCH: usize = 1000;

/// A usage to charge: limit, unit, window, counters and amount.
type Used<'a> = (&'a str, &'a str, &'a str, Vec<(&'a str, String)>, u64);

/// Charges usage without any request, as Envoy's own filter reports it.
fn charge<'a>(adapter: &Adapter, all: impl IntoIterator<Item = Used<'a>>) {
    let entry = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.to_owned() };
    let descriptors = all.into_iter().map(|(limit, unit, window, counters, amount)| {
        let mut entries = vec![entry("limit", limit), entry("unit", unit)];
        entries.push(entry(if window.ends_with('s') { "window" } else { "period" }, window));
        entries.extend(counters.iter().map(|(name, value)| entry(name, value)));
        RateLimitDescriptor {
            entries,
            hits_addend: Some(UInt64Value { value: amount }),
            ..Default::default()
        }
    });
    let descriptors: Vec<_> = descriptors.collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let to = format!("http://{}", adapter.grpc());
        let mut client = RateLimitServiceClient::connect(to).await.expect("the adapter listens");
        for batch in descriptors.chunks(BATCH) {
            let request =
                RateLimitRequest { domain: "weir".to_owned(), descriptors: batch.to_vec(), hits_addend: 0 };
            client.should_rate_limit(request).await.expect("an answer");
        }
    });
}

fn tokens_of(who: impl Into<String>, amount: u64) -> Used<'static> {
    ("default/llm/free", "tokens", "3600s", vec![(USER, who.into())], amount)
}

fn free(max: u64) -> Value {
    json!({ "limits": { "free": {
        "counters": [{ "expression": USER }],
        "reservation": { "amount": "100" },
        "rates": [{ "limit": max, "window": "1h" }]
    } } })
}

/// A file with the token.
struct TokenFile(tempfile::TempDir);

impl TokenFile {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("token"), TOKEN).expect("a file can be written");
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("token")
    }
}

fn with_token(policies: &[String], token: &TokenFile) -> Adapter {
    let file = token.path();
    Adapter::start_as(policies, &["--admin-token-file", file.to_str().expect("a path in UTF-8")])
}

fn nothing(what: &str) -> String {
    panic!("nobody can do this: {what}")
}

#[test]
fn a_hundred_thousand_buckets_do_not_freeze_it() {
    let adapter = Adapter::start_as(&[policy("llm", free(1000))], &["--counter-memory", "1Gi"]);
    charge(&adapter, (0..100_000_u64).map(|n| tokens_of(format!("user-{n:05}"), n * 7919 % 1010 + 1)));
    play("many", &adapter, (None, None), nothing);
}

#[test]
fn it_shows_what_was_used() {
    let mut limits = free(100_000_000);
    limits["limits"]["free"]["warnAt"] = json!(["80%", "100%"]);
    let World { envoy, mut adapter, upstream, .. } = World::with(&policy("llm", limits));
    let sizes = [10, 20, 30, 50, 70];
    for size in sizes {
        upstream.on(&size.to_string(), Answer::used(size).reporting(size));
    }
    let gate = Gate::default();
    upstream.on("waits", Answer::used(100).reporting(100).wait(&gate));
    charge(&adapter, [tokens_of("bob", 100_000_000)]);
    let of = |who: &str| Request::chat(5).token(&jwt::token(&json!({ "userid": who })));
    let ended = Arc::new(AtomicBool::new(false));
    let reported = Arc::new(AtomicU64::new(0));
    let (mut client, mut waiting): (Option<JoinHandle<()>>, _) = (None, None);
    let (http, to) = (adapter.http(), envoy.address());
    play_at("used", http, (None, None), |what| {
        match what {
            "start" => {
                let (ask, ended, reported) = (of("alice"), Arc::clone(&ended), Arc::clone(&reported));
                client = Some(std::thread::spawn(move || {
                    for size in sizes.iter().cycle() {
                        if ended.load(Ordering::SeqCst) {
                            return;
                        }
                        let answer = ask.clone().answered_by(&size.to_string()).send(to);
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        reported.fetch_add(*size, Ordering::SeqCst);
                    }
                }));
            }
            "stop" => {
                ended.store(true, Ordering::SeqCst);
                client.take().expect("it was started").join().expect("every request is answered");
                let sent = reported.load(Ordering::SeqCst);
                adapter.wait_for_bucket("free", "tokens", "alice", sent, 0);
                return sent.to_string();
            }
            "hold" => waiting = Some(of("alice").answered_by("waits").open(to)),
            "release" => {
                gate.open();
                assert_eq!(waiting.take().expect("it was opened").finish().status, 200);
            }
            "refuse" => assert_eq!(of("bob").send(to).status, 429),
            "kill" => adapter.kill(),
            "restart" => adapter.restart(),
            _ => panic!("nobody can do this: {what}"),
        }
        String::new()
    });
}

#[test]
fn an_operator_resets_and_grants() {
    let token = TokenFile::new();
    let adapter = with_token(&[policy("llm", free(1000))], &token);
    let evil = "<img src=x onerror=\"document.body.dataset.evil=1\">";
    charge(&adapter, [tokens_of("alice", 900), tokens_of("bob", 900), tokens_of(evil, 5)]);
    play("operator", &adapter, (Some(TOKEN), None), nothing);
}

#[test]
fn without_a_token_it_only_reads() {
    let mut wrong = free(1000);
    wrong["limits"]["free"]["rates"][0]["limit"] = json!(-1);
    let adapter = Adapter::start(&[policy("llm", free(1000)), policy("wrong", wrong)]);
    charge(&adapter, [tokens_of("alice", 900)]);
    play("readonly", &adapter, (None, None), nothing);
}

#[test]
fn it_draws_the_usage_records() {
    let mut limits = free(1000);
    limits["limits"]["team"] = json!({
        "counters": [{ "expression": "auth.identity.team" }], "rates": [{ "limit": 1000, "window": "1h" }]
    });
    let adapter = Adapter::start(&[policy("llm", limits)]);
    play("usage", &adapter, (None, None), nothing);
}

#[test]
fn its_charts_show_what_was_used() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let store = format!("sqlite:{}", folder.path().join("usage.db").display());
    let mut limits = free(1_000_000);
    limits["limits"]["team"] = json!({
        "counters": [{ "expression": "auth.identity.team" }], "rates": [{ "limit": 1_000_000, "window": "1h" }]
    });
    let adapter = Adapter::start_as(&[policy("llm", limits)], &["--usage", &store]);
    let world = World::build().reading_bodies(16 << 20).start_with(adapter);
    play("recorded", &world.adapter, (None, None), |call| {
        let call: Value = serde_json::from_str(call).expect("the scenario asks in JSON");
        let tokens = call["tokens"].as_u64().expect("a number");
        let name = tokens.to_string();
        world.upstream.on(&name, Answer::used(tokens).reporting(tokens));
        let message = json!({ "role": "user", "content": "How does water run?" });
        let body = json!({ "model": call["model"], "max_tokens": 5, "messages": [message] });
        let request = Request::post("/v1/chat/completions", &body).token(&jwt::token(&call["identity"]));
        assert_eq!(world.send(&request.answered_by(&name)).status, 200);
        String::new()
    });
}

/// Also writes the pictures of `docs/page.md` into `WEIR_SCREENSHOTS`, if it is set.
#[test]
fn everyone_can_use_it() {
    let token = TokenFile::new();
    let world = showcase(&token);
    let gate = Gate::default();
    world.upstream.on("waits", Answer::used(900).reporting(900).wait(&gate));
    let of = |who: &str, team: &str| {
        Request::chat(900).token(&jwt::token(&json!({ "userid": who, "team": team })))
    };
    // Some requests wait for their answers, and some are refused.
    let mut waiting = Vec::new();
    for (who, team) in
        [("maya", "search"), ("maya", "search"), ("jonas", "platform"), ("support-agent", "support")]
    {
        waiting.push(world.open(&of(who, team).answered_by("waits")));
    }
    world.upstream.wait_for_calls(waiting.len());
    for _ in 0..7 {
        assert_eq!(world.send(&of("nightly-eval", "research")).status, 429);
    }
    for _ in 0..3 {
        assert_eq!(world.send(&of("maya", "search")).status, 429);
    }
    let folder = std::env::var_os("WEIR_SCREENSHOTS").map(PathBuf::from);
    play("everyone", &world.adapter, (Some(TOKEN), folder.as_deref().map(Path::new)), nothing);
    gate.open();
    for request in waiting {
        assert_eq!(request.finish().status, 200);
    }
}

/// A gateway like many others: several limits, many users, an error in one policy.
fn showcase(token: &TokenFile) -> World {
    let user = json!([{ "expression": USER }]);
    let team = json!([{ "expression": "auth.identity.team" }]);
    let both = json!([{ "expression": "auth.identity.team" }, { "expression": USER }]);
    let llm = json!({
        "limits": {
            "per-user": { "counters": user, "warnAt": ["90%", "100%"], "rates": [
                { "limit": 50_000, "window": "1h" }, { "limit": 120, "window": "1m", "unit": "requests" }] },
            "per-team": { "counters": team, "rates": [{ "limit": 2_000_000, "period": "Day" }] },
            "budget": { "counters": team, "rates": [
                { "limit": "250.00", "unit": "usd", "period": "Month", "timeZone": "Europe/Berlin" }] },
            "at-once": { "counters": both, "rates": [{ "limit": 2, "unit": "concurrency" }] }
        },
        "prices": [{ "model": "*", "input": "1.25", "output": "10.00" }]
    });
    let agents = json!({ "limits": { "runaway": {
        "counters": user, "when": [{ "predicate": "auth.identity.userid.endsWith('-agent')" }],
        "rates": [{ "limit": 200_000, "window": "10m", "windowType": "Sliding" }]
    } } });
    let wrong = json!({ "limits": { "trial": { "counters": user, "rates": [{ "limit": 1000, "window": "1 day" }] } } });
    let policies = [policy("llm", llm), policy("agents", agents), policy("trial-users", wrong)];
    let world = World::build().reading_bodies(16 << 20).start_with(with_token(&policies, token));
    let adapter = &world.adapter;
    let people = [
        ("nightly-eval", "research", 50_000),
        ("maya", "search", 46_800),
        ("jonas", "platform", 41_950),
        ("support-agent", "support", 38_400),
        ("li.wei", "search", 31_200),
        ("amara", "research", 24_030),
        ("svc-summaries", "platform", 17_700),
        ("tomás", "support", 9_460),
        ("ines", "search", 4_120),
    ];
    let hour = ("default/llm/per-user", "tokens", "3600s");
    charge(
        adapter,
        people.map(|(who, _, amount)| (hour.0, hour.1, hour.2, vec![(USER, who.to_owned())], amount)),
    );
    let others = (0..400_u64).map(|n| {
        (hour.0, hour.1, hour.2, vec![(USER, format!("user-{n:03}@example.com"))], n * n % 29_000 + 150)
    });
    charge(adapter, others);
    let teams = [("research", 1_912_400), ("search", 1_204_800), ("platform", 688_310), ("support", 540_220)];
    let of = |name: &str| vec![("auth.identity.team", name.to_owned())];
    charge(adapter, teams.map(|(name, amount)| ("default/llm/per-team", "tokens", "Day", of(name), amount)));
    charge(
        adapter,
        teams.map(|(name, amount)| {
            ("default/llm/budget", "usd", "Month-Europe/Berlin", of(name), amount * 108)
        }),
    );
    charge(
        adapter,
        [(
            "default/agents/runaway",
            "tokens",
            "600s-sliding",
            vec![(USER, "support-agent".to_owned())],
            171_300,
        )],
    );
    world
}
