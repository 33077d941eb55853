//! Tests `manifests/envoy/envoy.yaml` as shipped. For any path, host or `x-forwarded-for` that a client
//! sends, the limits on the path, the host and the address count the request, or it does not reach the
//! provider.

use e2e::client::Request;
use e2e::jwt;
use e2e::wire::{Head, Wire};
use e2e::world::{World, policy};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

const MANIFEST: &str = "manifests/envoy/envoy.yaml";
const BODY: &str = r#"{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}"#;

/// The expected outcome of a request: the limits that count it, or the status of Envoy's own response.
enum Wanted {
    Counts(&'static [&'static str]),
    Answer(u16),
}
use Wanted::{Answer, Counts};

const ALL: [&str; 4] = ["address", "host", "kuadrant", "path"];

fn limits() -> Value {
    let limit = |predicate: &str| {
        let rates = json!([{ "limit": 1_000_000, "window": "1h", "unit": "requests" }]);
        // With leases, the last requests would be counted a little later.
        json!({ "when": [{ "predicate": predicate }], "rates": rates, "lease": "Never" })
    };
    json!({ "limits": {
        "address": limit("source.remote_address == '127.0.0.1'"),
        "host": limit("request.host == 'gw.example'"),
        // This predicate is from Kuadrant's announcement.
        "kuadrant": limit("request.path == '/v1/chat/completions'"),
        "path": limit("request.url_path == '/v1/chat/completions'"),
    } })
}

fn send(to: SocketAddr, head: &str) -> Head {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(e2e::wait::DEADLINE)).unwrap();
    let token = jwt::token(&json!({ "userid": "alice" }));
    let head = head.replace('\n', "\r\n");
    let fields =
        format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\nconnection: close\r\n");
    let request = format!("{head}\r\n{fields}content-length: {}\r\n\r\n{BODY}", BODY.len());
    (&stream).write_all(request.as_bytes()).unwrap();
    Wire::new(Arc::new(stream)).response(false).unwrap().expect("an answer")
}

fn counted(world: &World) -> Vec<(String, u64)> {
    let mut counters: Vec<_> =
        world.adapter.counters().into_iter().map(|counter| (counter.limit, counter.used)).collect();
    counters.sort();
    counters
}

#[test]
fn no_spelling_evades_a_limit_on_path_host_or_address() {
    let world = World::build().config(MANIFEST).policy(&policy("llm", limits())).start();
    let path = |path: &str| format!("POST {path} HTTP/1.1\nhost: gw.example");
    let host = |host: &str| format!("POST /v1/chat/completions HTTP/1.1\nhost: {host}");
    let header = |header: &str| format!("POST /v1/chat/completions HTTP/1.1\nhost: gw.example\n{header}");
    let table: Vec<(String, Wanted)> = vec![
        (path("/v1/chat/completions"), Counts(&ALL)),
        (path("/v1/chat/completions?"), Counts(&ALL)),
        (path("/v1/chat/completions?x=/v1/models"), Counts(&ALL)),
        (path("/v1/chat/completions/"), Counts(&ALL)),
        (path("/v1/chat/completions//"), Counts(&ALL)),
        (path("/v1/chat/completions;x"), Counts(&ALL)),
        (path("/v1/chat/completions;x=y/;z?q"), Counts(&ALL)),
        (path("/v1;a/chat;b/completions"), Counts(&ALL)),
        (path("//v1//chat//completions"), Counts(&ALL)),
        (path("/v1/./chat/completions/."), Counts(&ALL)),
        (path("/v1/models/../chat/completions"), Counts(&ALL)),
        (path("/v1/%2e/chat/%2E%2e/chat/completions"), Counts(&ALL)),
        (path("/v1/chat/completion%73"), Counts(&ALL)),
        (path("/v1/chat/completions%3Bx"), Counts(&ALL)),
        (path("/v1\\chat\\completions"), Counts(&ALL)),
        // The client is redirected to the normalised path.
        (path("/v1/chat%2Fcompletions"), Answer(307)),
        (path("/v1%5cchat%5Ccompletions"), Answer(307)),
        (path("/v1/chat/completions#x"), Answer(400)),
        (path("/v1/chat/completions%00"), Answer(400)),
        (path("http://gw.example/v1/chat/completions"), Counts(&ALL)),
        (path("http://GW.example:1234/v1/chat/completions/"), Counts(&ALL)),
        (path("http://user@gw.example/v1/chat/completions"), Counts(&ALL)),
        // The URL's host takes precedence in both Envoy and Weir.
        ("POST http://gw.example/v1/chat/completions HTTP/1.1\nhost: other".into(), Counts(&ALL)),
        (host("GW.Example"), Counts(&ALL)),
        (host("gw.example:80"), Counts(&ALL)),
        (host("gw.example:10000"), Counts(&ALL)),
        (host("gw.example:"), Counts(&ALL)),
        (host("gw.example."), Counts(&ALL)),
        (host("gw.example.:80"), Counts(&ALL)),
        (host("user@gw.example"), Counts(&ALL)),
        (host("gw%2Eexample"), Counts(&ALL)),
        (host("other"), Counts(&["address", "kuadrant", "path"])),
        ("POST /v1/chat/completions HTTP/1.0".into(), Answer(426)),
        ("POST /v1/chat/completions HTTP/1.1".into(), Answer(400)),
        (header("x-forwarded-for: 192.0.2.1"), Counts(&ALL)),
        (header("x-forwarded-for: 192.0.2.1, 192.0.2.2"), Counts(&ALL)),
        (header("x-real-ip: 192.0.2.1\nforwarded: for=192.0.2.1"), Counts(&ALL)),
        (header("x-envoy-external-address: 192.0.2.1\nx-envoy-internal: true"), Counts(&ALL)),
        (header("x-envoy-original-path: /v1/models\nx-original-url: /v1/models"), Counts(&ALL)),
        (header("x-forwarded-host: other\nx-host: other"), Counts(&ALL)),
        (path("/v1/models"), Counts(&["address", "host"])),
    ];
    for (head, wanted) in table {
        let (before, calls) = (counted(&world), world.upstream.calls());
        let answer = send(world.envoy.address(), &head);
        let reached = world.upstream.calls() - calls;
        match wanted {
            Answer(status) => {
                assert_eq!((answer.start[1].as_str(), reached), (status.to_string().as_str(), 0), "{head}");
            }
            Counts(limits) => {
                assert_eq!((answer.start[1].as_str(), reached), ("200", 1), "{head}");
                let of =
                    |limit: &str| before.iter().find(|(name, _)| name == limit).map_or(0, |(_, used)| *used);
                let mut after: Vec<(String, u64)> = ALL
                    .map(|limit| (limit.to_owned(), of(limit) + u64::from(limits.contains(&limit))))
                    .into();
                after.retain(|(_, used)| *used > 0);
                assert_eq!(counted(&world), after, "{head}");
            }
        }
    }
}

/// Envoy joins duplicate headers, and it is unknown which one the upstream uses.
#[test]
fn two_hosts_do_not_evade_a_limit_on_one_of_them() {
    let world = World::build().config(MANIFEST).policy(&policy("llm", limits())).start();
    let head = "POST /v1/chat/completions HTTP/1.1\nhost: other\nhost: gw.example";
    let answer = send(world.envoy.address(), head);
    assert_eq!(answer.start[1], "200");
    assert_eq!(counted(&world), ALL.map(|limit| (limit.to_owned(), 1)));
}

/// Envoy buffers as much of a body as the filter reads. Longer bodies pass.
#[test]
fn bodies_of_up_to_16_mib_are_read_and_longer_ones_pass() {
    let by_model = json!({ "limits": { "model": {
        "when": [{ "predicate": "llm.model == 'gpt-4o'" }],
        "rates": [{ "limit": 2, "window": "1h", "unit": "requests" }],
    } } });
    let world = World::build().config(MANIFEST).policy(&policy("llm", by_model)).start();
    let alice = jwt::token(&json!({ "userid": "alice" }));
    let body = |padding: usize| {
        let padding = "x".repeat(padding);
        json!({ "metadata": { "padding": padding }, "model": "gpt-4o", "messages": [], "max_tokens": 5 })
            .to_string()
    };
    let request = |padding: usize| Request::chat(5).token(&alice).body(body(padding));
    assert_eq!(world.send(&request(3 << 20)).status, 200);
    // Longer bodies pass and are counted, because they may use the limit's model. Envoy buffers at most 16
    // MiB, so the rest waits until the beginning has passed.
    let has_passed = || {
        e2e::wait::until("the request's beginning at the upstream", || {
            (world.envoy.stat("cluster.llm.upstream_rq_total") == 2).then_some(())
        });
    };
    assert_eq!(request(17 << 20).send_in_two(world.envoy.address(), 1 << 20, has_passed).status, 200);
    world.adapter.wait_for_bucket("model", "requests", "", 2, 0);
    assert_eq!(world.send(&request(15 << 20)).status, 429);
}
