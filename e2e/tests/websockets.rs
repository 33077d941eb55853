//! A WebSocket (OpenAI's Realtime API) through the filter: its request never ends, and is not waited for.

use e2e::envoy::Config;
use e2e::wait::DEADLINE;
use e2e::world::{World, policy};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head comes");
        head.extend(byte);
    }
    String::from_utf8_lossy(&head).to_lowercase()
}

/// Switches protocols, and says everything again.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                head(&mut stream);
                stream.write_all(SWITCHED.as_bytes()).expect("Envoy listens");
                let mut said = [0; 1024];
                while let Ok(size @ 1..) = stream.read(&mut said) {
                    stream.write_all(&said[..size]).expect("Envoy listens");
                }
            });
        }
    });
    address
}

/// WebSockets may pass, to this upstream.
fn upgrading(config: &mut Config, upstream: SocketAddr) {
    config.typed(".HttpConnectionManager")["upgrade_configs"] = json!([{ "upgrade_type": "websocket" }]);
    let clusters = config.all()["static_resources"]["clusters"].as_array_mut().expect("a list");
    let mut sockets = clusters.iter().find(|one| one["name"] == "llm").expect("the upstream").clone();
    sockets["name"] = "sockets".into();
    clusters.push(sockets);
    config.cluster("sockets", upstream);
    let hosts = &mut config.typed(".HttpConnectionManager")["route_config"]["virtual_hosts"];
    for route in hosts[0]["routes"].as_array_mut().expect("a list") {
        route["route"]["cluster"] = "sockets".into();
    }
}

fn open(world: &World) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(world.envoy.address()).expect("Envoy listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket can be told");
    let asked = "GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nhost: llm\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(asked.as_bytes()).expect("Envoy listens");
    let head = head(&mut stream);
    (head, stream)
}

fn world(usage: Value) -> World {
    let limits = json!({ "all": { "reservation": { "amount": "500" }, "rates": [
        { "limit": 100_000, "window": "1h" },
        { "limit": 2, "window": "1h", "unit": "requests" },
        { "limit": 1, "unit": "concurrency" },
    ] } });
    let upstream = echo();
    World::build()
        .policy(&policy("llm", json!({ "limits": limits, "usage": usage })))
        .reading_bodies(100_000)
        .change(|config| upgrading(config, upstream))
        .start()
}

#[test]
fn a_websocket_is_admitted_at_once_and_held_until_it_closes() {
    let world = world(json!({}));
    let (switched, mut socket) = open(&world);
    assert!(switched.starts_with("http/1.1 101"), "{switched}");
    for said in ["hello", "{\"type\":\"response.create\"}"] {
        socket.write_all(said.as_bytes()).expect("Envoy listens");
        let mut heard = vec![0; said.len()];
        socket.read_exact(&mut heard).expect("it is said again");
        assert_eq!(heard, said.as_bytes());
    }
    let (refused, _) = open(&world);
    assert!(refused.starts_with("http/1.1 429"), "one at a time: {refused}");
    drop(socket);
    world.adapter.wait_for_bucket("all", "concurrency", "", 0, 0);
    world.adapter.wait_for_bucket("all", "requests", "", 1, 0);
    // What is said in it is not read.
    world.adapter.wait_for_bucket("all", "tokens", "", 0, 0);
}

#[test]
fn a_websocket_can_be_charged_what_it_held() {
    let world = world(json!({ "onMissing": "Hold" }));
    let (switched, socket) = open(&world);
    assert!(switched.starts_with("http/1.1 101"), "{switched}");
    drop(socket);
    world.adapter.wait_for_bucket("all", "tokens", "", 500, 0);
}
