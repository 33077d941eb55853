//! WebSockets through the filter. Each call inside a socket is checked and charged like a request.

use e2e::socket::{Heard, Peer, SocketUpstream};
use e2e::wait;
use e2e::world::{World, policy};
use serde_json::{Value, json};

fn world(spec: Value, sockets: &SocketUpstream) -> World {
    let address = sockets.address();
    World::build()
        .policy(&policy("llm", spec))
        .reading_bodies(100_000)
        .change(|config| config.route_to("sockets", address))
        .start()
}

fn limits(amount: u64, max: u64) -> Value {
    json!({ "limits": { "all": {
        "reservation": { "amount": amount.to_string() },
        "rates": [
            { "limit": max, "window": "1h" },
            { "limit": 100, "window": "1h", "unit": "requests" },
            { "limit": 1, "unit": "concurrency" },
        ],
    } } })
}

const RESPONSES: &str = "/v1/responses";
const CREATE: &str =
    r#"{"type": "response.create", "model": "gpt-5", "input": "hello", "max_output_tokens": 600}"#;

/// Answers as OpenAI's Responses API. Each call uses 1,000 tokens.
fn responses(peer: &mut Peer, text: &str) {
    let asked: Value = serde_json::from_str(text).expect("it is JSON");
    if asked["type"] != "response.create" {
        return;
    }
    let usage = json!({ "input_tokens": 400, "output_tokens": 600, "total_tokens": 1000 });
    for event in [
        json!({ "type": "response.created", "response": { "id": "resp_1", "usage": null } }),
        json!({ "type": "response.output_text.delta", "delta": "hello" }),
        json!({ "type": "response.completed", "response": { "id": "resp_1", "usage": usage } }),
    ] {
        peer.say(&event.to_string());
    }
}

fn open(world: &World, path: &str, deflate: bool) -> Peer {
    Peer::open(world.envoy.address(), path, "", deflate).expect("it is a WebSocket")
}

/// Waits for the event with this type. Returns the event, or how the socket ended.
fn event(peer: &mut Peer, kind: &str) -> Result<Value, Heard> {
    loop {
        match peer.hear() {
            Heard::Text(text) => {
                let event: Value = serde_json::from_str(&text).expect("an event is JSON");
                if event["type"] == kind {
                    return Ok(event);
                }
            }
            Heard::Ping(_) | Heard::Pong => {}
            end => return Err(end),
        }
    }
}

fn calls_are_stopped_at_the_limit(deflate: bool, piece: usize, frames: usize) {
    let sockets = SocketUpstream::start(responses);
    let world = world(limits(1000, 10_000), &sockets);
    let mut peer = open(&world, RESPONSES, deflate);
    (peer.piece, peer.frames) = (piece, frames);
    let mut completed = 0;
    let error = loop {
        peer.say(CREATE);
        match peer.hear() {
            Heard::Text(text) if text.contains("response.created") => {
                event(&mut peer, "response.completed").expect("it completes");
                completed += 1;
            }
            Heard::Text(text) => break serde_json::from_str::<Value>(&text).expect("it is JSON"),
            other => panic!("{other:?}"),
        }
        assert!(completed <= 20, "there is a limit");
    };
    assert_eq!(completed, 10);
    assert_eq!((&error["type"], &error["status"]), (&json!("error"), &json!(429)), "{error}");
    assert_eq!(error["error"]["code"], "rate_limit_exceeded", "{error}");
    let Heard::Close(1008, reason) = peer.hear() else { panic!("it is closed") };
    assert!(reason.contains("limit all of policy") && reason.len() <= 123, "{reason}");
    assert_eq!(peer.hear(), Heard::End);
    world.adapter.wait_for_bucket("all", "tokens", "", 10_000, 0);
    world.adapter.wait_for_bucket("all", "requests", "", 10, 0);
    world.adapter.wait_for_bucket("all", "concurrency", "", 0, 0);
    assert_eq!(sockets.messages().len(), 10, "the refused one went nowhere");
}

#[test]
fn calls_are_stopped_at_the_limit_and_told_why() {
    calls_are_stopped_at_the_limit(false, usize::MAX, 1);
}

/// A call inside a socket has no headers that could carry a signal, so it only counts as beyond the limit.
#[test]
fn a_soft_limit_counts_calls_and_stops_none() {
    let sockets = SocketUpstream::start(responses);
    let spec = json!({ "limits": { "soft": {
        "boundary": "Soft",
        "softSignal": { "headers": [{ "name": "x-budget", "value": "exceeded" }] },
        "reservation": { "amount": "1000" },
        "rates": [{ "limit": 2500, "window": "1h" }],
    } } });
    let world = world(spec, &sockets);
    let mut peer = open(&world, RESPONSES, false);
    for _ in 0..5 {
        peer.say(CREATE);
        event(&mut peer, "response.completed").expect("it completes");
    }
    assert_eq!(sockets.messages().len(), 5);
    world.adapter.wait_for_bucket("soft", "tokens", "", 5000, 0);
    let exceeded = world.envoy.stats("weir_soft_exceeded");
    assert!(exceeded.trim_end().ends_with(": 3"), "{exceeded}");
}

#[test]
fn compressed_calls_are_stopped_at_the_limit() {
    calls_are_stopped_at_the_limit(true, usize::MAX, 1);
}

#[test]
fn calls_in_pieces_are_stopped_at_the_limit() {
    calls_are_stopped_at_the_limit(true, 7, 3);
    calls_are_stopped_at_the_limit(false, 11, 2);
}

#[test]
fn a_cut_socket_is_charged_for_what_was_delivered() {
    let sockets = SocketUpstream::start(|peer, _| {
        peer.say(r#"{"type":"response.created","response":{"id":"resp_1","usage":null}}"#);
        let delta = "abcd".repeat(50);
        peer.say(&json!({ "type": "response.output_text.delta", "delta": delta }).to_string());
    });
    let world = world(limits(1000, 10_000), &sockets);
    let mut peer = open(&world, RESPONSES, false);
    peer.say(CREATE);
    event(&mut peer, "response.output_text.delta").expect("it begins");
    drop(peer);
    world.adapter.wait_for_bucket("all", "concurrency", "", 0, 0);
    let (used, held) = world.adapter.bucket("all", "tokens", "");
    assert!((50..200).contains(&used) && held == 0, "{used} used, {held} held");
}

#[test]
fn a_long_message_is_held_whole() {
    let sockets = SocketUpstream::start(responses);
    let address = sockets.address();
    let world = World::build()
        .policy(&policy("llm", limits(1000, 10_000)))
        .reading_bodies(100_000)
        .change(|config| {
            config.route_to("sockets", address);
            let listeners = &mut config.all()["static_resources"]["listeners"];
            listeners[0]["per_connection_buffer_limit_bytes"] = (16 << 20).into();
        })
        .start();
    let mut peer = open(&world, RESPONSES, false);
    // The message is longer than the filter reads.
    let input = "word ".repeat(500_000);
    let long = json!({ "type": "response.create", "model": "gpt-5", "input": input }).to_string();
    peer.say(&long);
    event(&mut peer, "response.completed").expect("it completes");
    assert_eq!(sockets.messages(), [long]);
    world.adapter.wait_for_bucket("all", "tokens", "", 1000, 0);
}

#[test]
fn a_response_that_the_server_begins_is_judged_and_charged() {
    let sockets = SocketUpstream::start(|peer, text| {
        if text.contains("input_audio_buffer.append") {
            let usage = json!({ "input_tokens": 70, "output_tokens": 30, "total_tokens": 100 });
            for event in [
                json!({ "type": "response.created", "response": { "id": "r", "usage": null } }),
                json!({ "type": "response.done", "response": { "id": "r", "usage": usage } }),
            ] {
                peer.say(&event.to_string());
            }
        }
    });
    let world = world(limits(50, 250), &sockets);
    let mut peer = open(&world, "/v1/realtime?model=gpt-realtime", false);
    const AUDIO: &str = r#"{"type": "input_audio_buffer.append", "audio": "AAAA"}"#;
    for used in [100, 200, 300] {
        peer.say(AUDIO);
        event(&mut peer, "response.done").expect("it is done");
        world.adapter.wait_for_bucket("all", "tokens", "", used, 0);
    }
    // There is no room for the response, but it is charged. No further messages go upstream.
    peer.say(AUDIO);
    world.adapter.wait_for_bucket("all", "tokens", "", 400, 0);
    peer.say(AUDIO);
    let error = event(&mut peer, "error").expect("it is told");
    assert_eq!(error["error"]["code"], "rate_limit_exceeded");
    assert!(matches!(peer.hear(), Heard::Close(1008, _)));
}

#[test]
fn turns_of_gemini_live_are_calls() {
    const PATH: &str = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    let sockets = SocketUpstream::start(|peer, text| {
        if text.contains("setup") {
            return peer.say(r#"{"setupComplete": {}}"#);
        }
        peer.say(r#"{"serverContent": {"modelTurn": {"parts": [{"text": "hi"}]}}}"#);
        peer.say(
            r#"{"serverContent": {"turnComplete": true},
                "usageMetadata": {"promptTokenCount": 60, "responseTokenCount": 40, "totalTokenCount": 100}}"#,
        );
    });
    let mut spec = limits(50, 250);
    spec["limits"]["all"]["when"] = json!([{ "predicate": "llm.model == 'models/gemini-live'" }]);
    let world = world(spec, &sockets);
    let mut peer = open(&world, PATH, false);
    peer.say(r#"{"setup": {"model": "models/gemini-live"}}"#);
    assert!(matches!(peer.hear(), Heard::Text(text) if text.contains("setupComplete")));
    for used in [100, 200, 300] {
        peer.say(r#"{"clientContent": {"turns": [], "turnComplete": true}}"#);
        loop {
            let Heard::Text(text) = peer.hear() else { panic!("it answers") };
            if text.contains("turnComplete") {
                break;
            }
        }
        world.adapter.wait_for_bucket("all", "tokens", "", used, 0);
    }
    peer.say(r#"{"clientContent": {"turns": [], "turnComplete": true}}"#);
    let Heard::Close(1008, reason) = peer.hear() else { panic!("it is refused") };
    assert!(reason.contains("limit all"), "{reason}");
}

#[test]
fn what_cannot_be_metered_is_refused_at_the_upgrade() {
    let sockets = SocketUpstream::start(responses);
    let world = world(limits(1000, 10_000), &sockets);
    let refused = Peer::open(world.envoy.address(), "/v1/chat/completions", "", false).err();
    let refused = refused.expect("nobody knows what is said there");
    assert!(refused.starts_with("http/1.1 426"), "{refused}");
    let announced = Peer::open(world.envoy.address(), RESPONSES, "content-length: 5\r\n", false).err();
    assert!(announced.expect("it is no WebSocket's").starts_with("http/1.1 426"));
    assert!(sockets.heard().is_empty());
}

#[test]
fn a_policy_refuses_websockets() {
    let sockets = SocketUpstream::start(responses);
    let mut spec = limits(1000, 10_000);
    spec["usage"] = json!({ "webSocket": "Refuse" });
    let world = world(spec, &sockets);
    let refused = Peer::open(world.envoy.address(), RESPONSES, "", false).err().expect("it is refused");
    assert!(refused.starts_with("http/1.1 426"), "{refused}");
}

#[test]
fn a_policy_lets_websockets_pass_and_holds_until_they_close() {
    let sockets = SocketUpstream::start(responses);
    let mut spec = limits(1000, 10_000);
    spec["usage"] = json!({ "webSocket": "Allow" });
    let world = world(spec, &sockets);
    let mut peer = open(&world, RESPONSES, false);
    peer.say(CREATE);
    event(&mut peer, "response.completed").expect("it completes");
    world.adapter.wait_for_bucket("all", "concurrency", "", 0, 1);
    drop(peer);
    world.adapter.wait_for_bucket("all", "requests", "", 1, 0);
    world.adapter.wait_for_bucket("all", "tokens", "", 0, 0);
}

#[test]
fn a_gateway_that_reads_no_bodies_meters_sockets_too() {
    let sockets = SocketUpstream::start(responses);
    let address = sockets.address();
    let world = World::build()
        .policy(&policy("llm", limits(1000, 2000)))
        .change(|config| config.route_to("sockets", address))
        .start();
    let mut peer = open(&world, RESPONSES, true);
    for _ in 0..2 {
        peer.say(CREATE);
        event(&mut peer, "response.completed").expect("it completes");
    }
    peer.say(CREATE);
    event(&mut peer, "error").expect("it is refused");
    assert!(matches!(peer.hear(), Heard::Close(1008, _)));
    wait::until("all is settled", || (world.adapter.bucket("all", "tokens", "") == (2000, 0)).then_some(()));
}
