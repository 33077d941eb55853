//! The adapter's usage records, through a real Envoy: one for each settled exchange, with the counters' numbers.

use e2e::adapter::Adapter;
use e2e::artefacts;
use e2e::client::Request;
use e2e::envoy::Config;
use e2e::jwt;
use e2e::postgres::Postgres;
use e2e::socket::{Heard, Peer, SocketUpstream};
use e2e::upstream::{Answer, Gate};
use e2e::wait;
use e2e::world::{World, per_user, policy};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn start(spec: Value, store: &str) -> World {
    let adapter = Adapter::start_as(&[policy("llm", spec)], &["--usage", store]);
    let world = World::build().reading_bodies(1 << 20);
    world.plugin(|plugin| plugin["gateway"] = "default/gateway".into()).start_with(adapter)
}

fn of(user: &str, request: Request) -> Request {
    request
        .token(&jwt::token(&json!({ "userid": user })))
        .header("x-request-id", format!("request-of-{user}"))
}

fn streamed() -> Request {
    let message = json!({ "role": "user", "content": "How does water run?" });
    Request::post(
        "/v1/chat/completions",
        &json!({ "model": "m", "max_tokens": 50, "stream": true, "messages": [message] }),
    )
}

/// Waits until there are this many records of a user. Returns them.
fn records(postgres: &Postgres, user: &str, count: usize) -> Vec<Value> {
    let query = format!("SELECT row_to_json(usage) FROM usage WHERE \"user\" = '{user}' ORDER BY time");
    wait::until("the records", || {
        let rows = postgres.sql(&query);
        let rows: Vec<Value> =
            rows.lines().map(|row| serde_json::from_str(row).expect("it is JSON")).collect();
        assert!(rows.len() <= count, "{rows:#?}");
        (rows.len() == count).then_some(rows)
    })
}

/// The values of a record by their columns.
fn values(record: &Value, columns: &[&str]) -> Vec<String> {
    let text = |column: &&str| match &record[*column] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    columns.iter().map(text).collect()
}

#[test]
fn each_settled_exchange_has_one_record_with_the_numbers_of_the_counters() {
    let postgres = Postgres::start();
    let world = start(json!({ "limits": { "tokens": per_user(10_000) } }), &postgres.url());
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let usage = json!({ "prompt_tokens": 20, "completion_tokens": 22, "total_tokens": 42,
        "prompt_tokens_details": { "cached_tokens": 8 } });
    let answer = json!({ "choices": [{ "message": { "content": "hello" } }], "usage": usage });
    world.upstream.on("whole", Answer::json(200, &answer));
    world.upstream.on(
        "silent",
        Answer::json(200, &json!({ "choices": [{ "message": { "content": "x".repeat(400) } }] })),
    );
    world.upstream.on("failed", Answer::new(500));
    world.upstream.on("all", Answer::used(10_000));
    let counts = ["status", "source", "input", "output", "total", "cached"];
    let record = |user: &str| {
        let record = records(&postgres, user, 1).remove(0);
        let total = record["total"].as_u64().unwrap();
        assert_eq!(record["limits"][0]["charged"], total);
        world.adapter.wait_for_bucket("tokens", "tokens", user, total, 0);
        record
    };

    // As reported, with every column.
    assert_eq!(world.send(&of("whole", Request::chat(50).answered_by("whole"))).status, 200);
    let whole = record("whole");
    assert_eq!(values(&whole, &counts), ["ok", "reported", "20", "22", "42", "8"]);
    let named = ["gateway", "request_id", "policy", "provider", "model", "requests", "micro_usd"];
    assert_eq!(
        values(&whole, &named),
        ["default/gateway", "request-of-whole", "default/llm", "openai", "gpt-4o", "1", "null"]
    );
    let counters = json!({ "auth.identity.userid": "whole" });
    let limit = json!({ "policy": "default/llm", "limit": "tokens", "unit": "tokens", "counters": counters, "charged": 42 });
    assert_eq!(whole["limits"], json!([limit]));
    let times = [&whole["first_byte_ms"], &whole["duration_ms"]].map(|time| time.as_u64().unwrap());
    assert!(times[0] <= times[1] && times[1] < 60_000, "{times:?}");
    let time = postgres.sql("SELECT extract(epoch FROM time)::bigint FROM usage");
    assert!((begun..begun + 60).contains(&time.parse().unwrap()), "{time}");

    // A stream, an estimate, a client that leaves, and a failure.
    assert_eq!(world.send(&of("stream", streamed())).status, 200);
    assert_eq!(values(&record("stream"), &counts[..2]), ["ok", "reported"]);
    assert_eq!(world.send(&of("silent", Request::chat(500).answered_by("silent"))).status, 200);
    assert_eq!(values(&record("silent"), &["status", "source", "output"]), ["ok", "estimated", "100"]);
    let gate = Gate::default();
    let begun =
        b"data: {\"choices\":[{\"delta\":{\"content\":\"forty letters are ten tokens of text\"}}]}\n\n"
            .to_vec();
    let left = Answer::new(200).header("content-type", "text/event-stream").head().bytes(begun).wait(&gate);
    world.upstream.on("left", left);
    let mut begun = world.open(&of("left", streamed().answered_by("left")));
    assert_eq!(begun.head().start[1], "200");
    begun.hang_up();
    assert_eq!(values(&record("left"), &counts[..2]), ["client_disconnect", "estimated"]);
    gate.open();
    let never = Gate::default();
    world.upstream.on("never", Answer::new(200).wait_first(&never));
    let waiting = world.open(&of("never", Request::chat(50).answered_by("never")));
    world.upstream.wait_for_calls(5);
    waiting.hang_up();
    let unanswered = record("never");
    assert_eq!(
        values(&unanswered, &["status", "first_byte_ms", "output"]),
        ["client_disconnect", "null", "0"]
    );
    never.open();
    assert_eq!(world.send(&of("failed", Request::chat(50).answered_by("failed"))).status, 500);
    assert_eq!(values(&record("failed"), &counts), ["upstream_error", "none", "0", "0", "0", "0"]);

    // A refused request settles nothing.
    assert_eq!(world.send(&of("rich", Request::chat(50).answered_by("all"))).status, 200);
    record("rich");
    assert_eq!(world.send(&of("rich", Request::chat(50))).status, 429);
    assert_eq!(world.send(&of("last", Request::chat(50))).status, 200);
    records(&postgres, "last", 1);
    records(&postgres, "rich", 1);

    let answer = world.adapter.get("/api/usage?by=status").json();
    let statuses: Vec<_> =
        answer.as_array().unwrap().iter().map(|row| values(row, &["status", "requests"])).collect();
    assert_eq!(statuses, [["client_disconnect", "2"], ["ok", "5"], ["upstream_error", "1"]]);
    assert_eq!(world.envoy.stat("wasmcustom.weir_usage_records_dropped"), 0);
}

#[test]
fn a_database_that_is_away_delays_records_and_nothing_else() {
    let mut postgres = Postgres::start();
    let spec = json!({ "limits": { "tokens": per_user(1000) } });
    let adapter = Adapter::start_as(&[policy("llm", spec)], &["--usage", &postgres.url()]);
    // The shipped cluster ejects an adapter that fails.
    let shipped = Config::read("manifests/envoy/envoy.yaml").named_cluster("limitador-adapter");
    let world = World::build().change(|config| config.take_settings("limitador-adapter", &shipped));
    let world = world.start_with(adapter);
    world.upstream.on("all", Answer::used(1000));
    postgres.kill();
    let calls = || world.adapter.metric("weir_grpc_seconds_count", &["RecordUsage"]);
    let mut users = 0;
    while calls() < 6.0 {
        let user = format!("user-{users}");
        users += 1;
        assert_eq!(world.send(&of(&user, Request::chat(50).answered_by("all"))).status, 200);
        world.adapter.wait_for_bucket("tokens", "tokens", &user, 1000, 0);
        assert_eq!(world.send(&of(&user, Request::chat(50))).status, 429, "the limit holds");
    }
    assert_eq!(world.envoy.stat("cluster.limitador-adapter.outlier_detection.ejections_enforced_total"), 0);
    assert_eq!(world.envoy.stats("weir_failed_open"), "");
    assert!(world.adapter.get("/readyz").text().contains("the usage store is unavailable"));
    postgres.restart();
    wait::until("the records", || {
        let totals = "SELECT count(*), count(DISTINCT \"user\"), sum(total) FROM usage";
        (postgres.sql(totals) == format!("{users}|{users}|{}", users * 1000)).then_some(())
    });
}

#[test]
fn the_record_of_a_background_result_is_completed_when_the_result_is_read() {
    let postgres = Postgres::start();
    let world = start(json!({ "limits": { "tokens": per_user(10_000) } }), &postgres.url());
    let response = |status: &str, usage: Value| {
        let body = json!({ "id": "resp_1", "object": "response", "status": status, "background": true, "usage": usage });
        Answer::json(200, &body)
    };
    world.upstream.on("queued", response("queued", Value::Null));
    let usage = json!({ "input_tokens": 30, "output_tokens": 70, "total_tokens": 100 });
    world.upstream.on("completed", response("completed", usage));
    let create = json!({ "model": "gpt-5", "input": "hello", "background": true });
    let created = Request::post("/v1/responses", &create).answered_by("queued");
    assert_eq!(world.send(&of("alice", created)).status, 200);
    let values_of = |record: &Value| {
        let charged = record["limits"][0]["charged"].clone();
        (values(record, &["source", "model", "input", "output", "total", "requests"]).join(" "), charged)
    };
    let first = records(&postgres, "alice", 1).remove(0);
    assert_eq!(values_of(&first), ("deferred gpt-5 0 0 0 1".to_owned(), json!(0)));

    // Somebody else reads the result, twice. The creator is charged once, and only the creator has a record.
    for _ in 0..2 {
        let read = Request::get("/v1/responses/resp_1").answered_by("completed");
        assert_eq!(world.send(&of("bob", read)).status, 200);
    }
    world.adapter.wait_for_bucket("tokens", "tokens", "alice", 100, 0);
    wait::until("the completed record", || {
        let record = records(&postgres, "alice", 1).remove(0);
        (values_of(&record) == ("reported gpt-5 30 70 100 1".to_owned(), json!(100))).then_some(())
    });
    assert_eq!(postgres.sql("SELECT sum(total), sum(requests) FROM usage WHERE \"user\" <> 'bob'"), "100|1");
    assert_eq!(postgres.sql("SELECT coalesce(sum(total), 0) FROM usage WHERE \"user\" = 'bob'"), "0");
}

#[test]
fn without_a_store_no_records_are_sent() {
    let world =
        World::build().policy(&policy("llm", json!({ "limits": { "tokens": per_user(10_000) } }))).start();
    assert_eq!(world.send(&of("alice", Request::chat(50))).status, 200);
    wait::until("the commit", || {
        (world.adapter.metric("weir_commits_total", &["released"]) == 1.0).then_some(())
    });
    assert_eq!(world.adapter.metric("weir_grpc_seconds_count", &["RecordUsage"]), 0.0);
}

#[test]
fn a_store_can_be_added_and_is_used_within_one_poll() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("usage.db").display());
    let policy = policy("llm", json!({ "limits": { "tokens": per_user(10_000) } }));
    let mut world = World::build().policy(&policy).start();
    let plans = world.envoy.plans();
    world.adapter.replace(&["--usage", &store]);
    wait::until("the plan with records", || (world.envoy.plans() >= plans + 2).then_some(()));
    assert_eq!(world.send(&of("alice", Request::chat(50))).status, 200);
    let rows = wait::until("the record", || {
        let rows = world.adapter.get("/api/usage?by=user").json();
        (rows[0]["user"] == "alice").then_some(rows)
    });
    assert_eq!(rows[0]["requests"], 1);

    // The commands and the URL of the page work. They ask for other months, too.
    let page = std::fs::read_to_string(artefacts::root().join("docs/usage-records.md")).unwrap();
    let server = format!("http://{}", world.adapter.http());
    let commands: Vec<&str> =
        page.lines().filter(|line| line.starts_with("limitador-adapter usage ")).collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands.iter().chain(&["limitador-adapter usage --by user"]) {
        let line = command.replace("limitador-adapter", &artefacts::adapter().display().to_string());
        let output =
            Command::new("bash").args(["-c", &format!("{line} --server {server}")]).output().unwrap();
        let (text, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command}: {error}");
        let is_right = match *command {
            "limitador-adapter usage --by user" => text.contains("alice         1"),
            _ => !text.is_empty(),
        };
        assert!(is_right, "{command}: {text}");
    }
    let path = page.lines().find_map(|line| line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")).unwrap();
    assert_eq!(world.adapter.get(path).status, 200);
}

#[test]
fn each_call_in_a_websocket_has_a_record() {
    let postgres = Postgres::start();
    let sockets = SocketUpstream::start(|peer: &mut Peer, _: &str| {
        let usage = json!({ "input_tokens": 400, "output_tokens": 600, "total_tokens": 1000 });
        peer.say(&json!({ "type": "response.created", "response": { "id": "resp_1" } }).to_string());
        let completed =
            json!({ "type": "response.completed", "response": { "id": "resp_1", "usage": usage } });
        peer.say(&completed.to_string());
    });
    let spec = json!({ "limits": { "all": { "rates": [{ "limit": 10_000, "window": "1h" }] } } });
    let adapter = Adapter::start_as(&[policy("llm", spec)], &["--usage", &postgres.url()]);
    let address = sockets.address();
    let world = World::build()
        .reading_bodies(1 << 20)
        .change(|config| config.route_to("sockets", address))
        .start_with(adapter);
    let mut peer = Peer::open(world.envoy.address(), "/v1/responses", "", false).expect("it is a WebSocket");
    for _ in 0..3 {
        peer.say(
            r#"{"type": "response.create", "model": "gpt-5", "input": "hello", "max_output_tokens": 600}"#,
        );
        while !matches!(peer.hear(), Heard::Text(text) if text.contains("response.completed")) {}
    }
    world.adapter.wait_for_bucket("all", "tokens", "", 3000, 0);
    let rows = "SELECT status, source, model, total, first_byte_ms <= duration_ms, count(*) FROM usage GROUP BY 1, 2, 3, 4, 5";
    wait::until("the records", || (postgres.sql(rows) == "ok|reported|gpt-5|1000|t|3").then_some(()));
}
