//! The usage of each exchange in Envoy's own access log, in JSON and in a text format.

use e2e::artefacts;
use e2e::client::Request;
use e2e::jwt;
use e2e::socket::{Heard, Peer, SocketUpstream};
use e2e::upstream::{Answer, Gate};
use e2e::wait;
use e2e::world::{Builder, World, per_user, policy};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// The names of the record, below `wasm.weir.usage`.
const NAMES: [&str; 13] = [
    "status",
    "source",
    "model",
    "stream",
    "input",
    "output",
    "total",
    "cached",
    "cacheWrite",
    "reasoning",
    "microUsd",
    "calls",
    "limits",
];

fn command(name: &str) -> String {
    format!("%FILTER_STATE(wasm.weir.usage.{name}:PLAIN)%")
}

struct Logged {
    world: World,
    folder: tempfile::TempDir,
}

/// The access log that `docs/access-log.md` shows.
fn documented() -> Value {
    let page = std::fs::read_to_string(artefacts::root().join("docs/access-log.md")).unwrap();
    let (_, block) = page.split_once("```yaml\naccess_log:\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    serde_saphyr::from_str::<Value>(block).unwrap()[0].take()
}

impl Logged {
    fn start(spec: Value, plugin: impl FnOnce(&mut Value)) -> Self {
        Self::start_as(World::build(), spec, plugin)
    }

    fn start_as(world: Builder, spec: Value, plugin: impl FnOnce(&mut Value)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (json_log, text_log) = (folder.path().join("json"), folder.path().join("text"));
        let names: Map<String, Value> =
            NAMES.iter().map(|name| ((*name).to_owned(), command(name).into())).collect();
        let text = format!("%RESPONSE_CODE% {} {}\n", command("status"), command("total"));
        let log = |path: PathBuf, format: Value| {
            json!({ "name": "log", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": path, "log_format": format,
            } })
        };
        let mut shown = documented();
        shown["typed_config"]["path"] = json!(folder.path().join("documented"));
        let logs = json!([
            shown,
            log(json_log, json!({ "json_format": names })),
            log(text_log, json!({ "text_format_source": { "inline_string": text } })),
        ]);
        let world = world
            .policy(&policy("llm", spec))
            .reading_bodies(1 << 20)
            .plugin(plugin)
            .change(|config| config.typed(".HttpConnectionManager")["access_log"] = logs)
            .start();
        Self { world, folder }
    }

    fn lines(&self, log: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join(log)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for this many entries. Returns the last one.
    fn entry(&self, count: usize) -> Value {
        let lines =
            wait::until("the access log", || Some(self.lines("json")).filter(|lines| lines.len() >= count));
        assert_eq!(lines.len(), count);
        serde_json::from_str(&lines[count - 1]).expect("an entry is JSON")
    }
}

fn streamed() -> Request {
    let message = json!({ "role": "user", "content": "How does water run?" });
    Request::post(
        "/v1/chat/completions",
        &json!({ "model": "m", "max_tokens": 50, "stream": true, "messages": [message] }),
    )
}

fn of(user: &str, request: Request) -> Request {
    request.token(&jwt::token(&json!({ "userid": user })))
}

/// The values of an entry by their names.
fn values(entry: &Value, names: &[&str]) -> String {
    let text = |name: &&str| entry[*name].as_str().unwrap_or("-").to_owned();
    names.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_log_has_the_numbers_of_the_counters() {
    let logged = Logged::start(json!({ "limits": { "tokens": per_user(10_000) } }), |plugin| {
        plugin["accessLog"] = true.into();
    });
    let world = &logged.world;
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
    let counts = ["status", "source", "stream", "input", "output", "total", "cached"];

    // A complete response, as reported.
    assert_eq!(world.send(&of("whole", Request::chat(50).answered_by("whole"))).status, 200);
    let entry = logged.entry(1);
    assert_eq!(values(&entry, &counts), "ok reported false 20 22 42 8");
    world.adapter.wait_for_bucket("tokens", "tokens", "whole", 42, 0);
    let limits: Value = serde_json::from_str(entry["limits"].as_str().unwrap()).unwrap();
    let counters = json!({ "auth.identity.userid": "whole" });
    assert_eq!(
        limits,
        json!([{ "policy": "default/llm", "limit": "tokens", "unit": "tokens", "counters": counters, "charged": 42 }])
    );

    // A stream.
    assert_eq!(world.send(&of("stream", streamed())).status, 200);
    let entry = logged.entry(2);
    assert_eq!(values(&entry, &["status", "source", "stream"]), "ok reported true");
    let total: u64 = entry["total"].as_str().unwrap().parse().unwrap();
    world.adapter.wait_for_bucket("tokens", "tokens", "stream", total, 0);

    // Usage that is estimated.
    assert_eq!(world.send(&of("silent", Request::chat(500).answered_by("silent"))).status, 200);
    let entry = logged.entry(3);
    assert_eq!(values(&entry, &["status", "source", "output"]), "ok estimated 100");
    let total: u64 = entry["total"].as_str().unwrap().parse().unwrap();
    world.adapter.wait_for_bucket("tokens", "tokens", "silent", total, 0);

    // A client that leaves in the middle of a stream.
    let gate = Gate::default();
    let begun =
        b"data: {\"choices\":[{\"delta\":{\"content\":\"forty letters are ten tokens of text\"}}]}\n\n"
            .to_vec();
    world.upstream.on(
        "left",
        Answer::new(200).header("content-type", "text/event-stream").head().bytes(begun).wait(&gate),
    );
    let mut begun = world.open(&of("left", streamed().answered_by("left")));
    assert_eq!(begun.head().start[1], "200");
    begun.hang_up();
    let entry = logged.entry(4);
    assert_eq!(values(&entry, &["status", "source"]), "client_disconnect estimated");
    let total: u64 = entry["total"].as_str().unwrap().parse().unwrap();
    world.adapter.wait_for_bucket("tokens", "tokens", "left", total, 0);
    gate.open();

    // A response that failed, and a request that was refused.
    assert_eq!(world.send(&of("failed", Request::chat(50).answered_by("failed"))).status, 500);
    assert_eq!(values(&logged.entry(5), &counts), "upstream_error none false 0 0 0 0");
    assert_eq!(world.send(&of("rich", Request::chat(50).answered_by("all"))).status, 200);
    assert_eq!(values(&logged.entry(6), &["status", "total"]), "ok 10000");
    world.adapter.wait_for_bucket("tokens", "tokens", "rich", 10_000, 0);
    assert_eq!(world.send(&of("rich", Request::chat(50))).status, 429);
    let entry = logged.entry(7);
    assert_eq!(values(&entry, &counts[..2]), "refused none");
    let limits: Value = serde_json::from_str(entry["limits"].as_str().unwrap()).unwrap();
    assert_eq!((&limits[0]["limit"], &limits[0]["charged"]), (&json!("tokens"), &Value::Null));
    assert_eq!(world.adapter.bucket("tokens", "tokens", "rich"), (10_000, 0));

    let shown: Value = serde_json::from_str(&logged.lines("documented")[0]).unwrap();
    let names = ["usage", "input", "output", "total", "limits"];
    let same = ["status", "input", "output", "total", "limits"];
    let first: Value = serde_json::from_str(&logged.lines("json")[0]).unwrap();
    assert_eq!(values(&shown, &names), values(&first, &same));
    assert_eq!(shown["status"], 200);

    let lines = logged.lines("text");
    let statuses: Vec<&str> =
        lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(it, _)| it).collect();
    assert_eq!(
        statuses,
        [
            "200 ok",
            "200 ok",
            "200 ok",
            "200 client_disconnect",
            "500 upstream_error",
            "200 ok",
            "429 refused"
        ]
    );
}

#[test]
fn a_policy_can_ask_for_the_log() {
    let mut limits = per_user(10_000);
    limits["when"] = json!([{ "predicate": "request.path.startsWith('/v1')" }]);
    let spec = json!({ "limits": { "tokens": limits }, "usageReporting": { "enabled": true } });
    let logged = Logged::start(spec, |_| {});
    assert_eq!(logged.world.send(&of("alice", Request::chat(50))).status, 200);
    let entry = logged.entry(1);
    assert_eq!(values(&entry, &["status", "source", "cached"]), "ok reported -", "without details");
    // No limit applies, so there is nothing to report.
    assert_eq!(logged.world.send(&of("alice", Request::get("/healthz"))).status, 200);
    assert_eq!(values(&logged.entry(2), &["status", "total"]), "- -");
}

#[test]
fn a_websocket_has_one_entry_with_the_sums_of_its_calls() {
    let sockets = SocketUpstream::start(|peer: &mut Peer, _: &str| {
        let usage = json!({ "input_tokens": 400, "output_tokens": 600, "total_tokens": 1000 });
        let completed = json!({ "type": "response.completed", "response": { "id": "r", "usage": usage } });
        peer.say(&completed.to_string());
    });
    let address = sockets.address();
    let world = World::build().change(|config| config.route_to("sockets", address));
    let spec = json!({ "limits": { "all": { "rates": [{ "limit": 4000, "window": "1h" }] } } });
    let logged = Logged::start_as(world, spec, |plugin| plugin["accessLog"] = true.into());
    let open = || Peer::open(logged.world.envoy.address(), "/v1/responses", "", false).expect("a WebSocket");
    let call = |peer: &mut Peer| {
        peer.say(r#"{"type": "response.create", "model": "gpt-5", "input": "hi", "max_output_tokens": 600}"#);
        match peer.hear() {
            Heard::Text(text) => text.contains("response.completed"),
            other => panic!("{other:?}"),
        }
    };
    let counts = ["status", "source", "model", "calls", "input", "output", "total"];
    let charged = |entry: &Value| {
        let limits: Value = serde_json::from_str(entry["limits"].as_str().unwrap()).unwrap();
        assert_eq!((limits.as_array().unwrap().len(), &limits[0]["limit"]), (1, &json!("all")));
        limits[0]["charged"].clone()
    };
    let mut peer = open();
    for _ in 0..3 {
        assert!(call(&mut peer));
    }
    logged.world.adapter.wait_for_bucket("all", "tokens", "", 3000, 0);
    drop(peer);
    let entry = logged.entry(1);
    assert_eq!(values(&entry, &counts), "ok reported gpt-5 3 1200 1800 3000");
    assert_eq!(charged(&entry), 3000);

    // The second call of this one is refused, which ends the socket.
    let mut peer = open();
    assert!(call(&mut peer));
    logged.world.adapter.wait_for_bucket("all", "tokens", "", 4000, 0);
    assert!(!call(&mut peer));
    while peer.hear() != Heard::End {}
    let entry = logged.entry(2);
    assert_eq!(values(&entry, &counts), "refused reported gpt-5 2 400 600 1000");
    assert_eq!(charged(&entry), 1000);
}

#[test]
fn requests_that_are_refused_without_the_adapter_are_logged_too() {
    let mut limits = per_user(10_000);
    limits["reservation"] = json!({ "maxShare": "10%" });
    let spec = json!({ "limits": { "tokens": limits }, "failureMode": "Deny" });
    let mut logged = Logged::start(spec, |plugin| plugin["accessLog"] = true.into());
    let refused = logged.world.send(&of("alice", Request::chat(5000)));
    assert!((400..500).contains(&refused.status), "{}", refused.text());
    let entry = logged.entry(1);
    assert_eq!(values(&entry, &["status", "source", "model", "total"]), "refused none gpt-4o 0");
    let limits: Value = serde_json::from_str(entry["limits"].as_str().unwrap()).unwrap();
    assert_eq!((&limits[0]["limit"], &limits[0]["charged"]), (&json!("tokens"), &Value::Null));

    logged.world.adapter.kill();
    assert_eq!(logged.world.send(&of("alice", Request::chat(50))).status, 503);
    let entry = logged.entry(2);
    assert_eq!(values(&entry, &["status", "source", "total"]), "unavailable none 0");
}
