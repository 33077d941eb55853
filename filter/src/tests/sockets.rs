use super::host;
use super::play::{Reply, Worker};
use llm::memory::MemoryBudget;
use llm::websocket::{Extensions, MessageReader, Opcode, Peer, SocketEvent, close, frame};
use proptest::prelude::*;
use serde_json::{Value, json};

fn tokens() -> Value {
    json!({ "limits": { "all": {
        "reservation": { "amount": "100" },
        "rates": [{ "limit": 1000, "window": "1h" }],
    } } })
}

const UPGRADE: &[(&str, &str)] = &[
    (":method", "GET"),
    (":path", "/v1/responses"),
    (":authority", "llm"),
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
];
const SWITCHED: &[(&str, &str)] = &[(":status", "101"), ("upgrade", "websocket")];
const CREATE: &str = r#"{"type": "response.create", "model": "gpt-5", "input": "hello"}"#;
const COMPLETED: &str = r#"{"type": "response.completed", "response": {"id": "r", "usage":
    {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}}}"#;
const KEY: Option<[u8; 4]> = Some([1, 2, 3, 4]);

fn asked(text: &str) -> Vec<u8> {
    frame(Opcode::Text, text.as_bytes(), KEY)
}

fn said(text: &str) -> Vec<u8> {
    frame(Opcode::Text, text.as_bytes(), None)
}

fn open(worker: &mut Worker) -> u32 {
    let socket = worker.request(UPGRADE, false);
    assert!(!worker.is_held(socket), "an upgrade waits for nothing");
    worker.respond(socket, SWITCHED, false);
    socket
}

/// Decodes the messages and control frames in these bytes.
fn frames(peer: Peer, mut bytes: &[u8]) -> Vec<Result<String, Opcode>> {
    let memory = MemoryBudget::default();
    let mut reader = MessageReader::new(peer, Extensions::default(), 1 << 20, &memory);
    let mut frames = Vec::new();
    while let Some(event) = reader.next(&mut bytes).unwrap() {
        frames.push(match event {
            SocketEvent::Control(opcode) => Err(opcode),
            SocketEvent::Message | SocketEvent::Truncated => {
                Ok(String::from_utf8(reader.message().to_vec()).unwrap())
            }
        });
    }
    assert!(reader.is_between_messages(), "no frame is cut");
    frames
}

#[test]
fn a_call_is_held_for_its_reserve_and_charged_at_its_completion() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    let socket = open(&mut worker);
    let (ping, create) = (frame(Opcode::Ping, b"", KEY), asked(CREATE));
    worker.body(socket, &[&ping[..], &create[..20]].concat(), false);
    assert_eq!(worker.upstream(socket), ping, "a message goes as a whole");
    worker.body(socket, &create[20..], false);
    assert!(worker.is_held(socket));
    // Later bytes wait, too.
    worker.body(socket, &ping, false);
    worker.answer(0, Reply::Ok);
    assert_eq!(worker.upstream(socket), [&ping[..], &create, &ping].concat());
    worker.response_body(socket, &said(COMPLETED), false);
    assert_eq!(worker.client(socket), said(COMPLETED));
    worker.advance(10);
    worker.answer(0, Reply::Ok);
    assert_eq!(worker.ended.values().collect::<Vec<_>>(), [&42]);
    worker.end(socket);
    worker.finish();
    assert_eq!(worker.ended.len(), 1, "the upgrade is no request");
}

#[test]
fn a_refused_call_ends_the_socket_with_the_reason() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    let socket = open(&mut worker);
    worker.body(socket, &[asked(CREATE), asked(CREATE)].concat(), false);
    let event = said(r#"{"type": "session.updated"}"#);
    worker.response_body(socket, &event[..5], false);
    worker.answer(0, Reply::OverLimit);
    assert!(worker.waiting.is_empty(), "the second one is not even judged");
    assert_eq!(frames(Peer::Client, worker.upstream(socket)), [Err(Opcode::Ping), Err(Opcode::Close)]);
    worker.body(socket, &asked(CREATE), false);
    assert_eq!(frames(Peer::Client, worker.upstream(socket)).len(), 2, "nothing more goes upstream");
    // The server's unfinished message is completed first.
    worker.response_body(socket, &[&event[5..], &frame(Opcode::Pong, b"", None)].concat(), false);
    worker.response_body(socket, &said(COMPLETED), false);
    let heard = frames(Peer::Server, worker.client(socket));
    let [Ok(event), Ok(error), Err(Opcode::Close)] = &heard[..] else { panic!("{heard:?}") };
    assert!(event.contains("session.updated") && error.contains("rate_limit_exceeded"), "{heard:?}");
    worker.end(socket);
}

#[test]
fn the_access_log_has_the_sums_of_the_calls_and_of_the_one_that_was_cut() {
    let logged = |play: &dyn Fn(&mut Worker, u32)| {
        let mut spec = tokens();
        spec["usageReporting"] = json!({ "enabled": true });
        let mut worker = Worker::new(spec, "Allow", true);
        let socket = open(&mut worker);
        play(&mut worker, socket);
        worker.end(socket);
        let state = host::with(|host| host.filter_state.remove(&socket)).unwrap_or_default();
        let value = |name: &str| state.get(&format!("weir.usage.{name}")).cloned().unwrap_or_default();
        ["status", "source", "calls", "total"].map(value).join(" ")
    };
    let call = |worker: &mut Worker, socket: u32| {
        worker.body(socket, &asked(CREATE), false);
        worker.answer(0, Reply::Ok);
    };
    let whole = |worker: &mut Worker, socket: u32| {
        call(worker, socket);
        worker.response_body(socket, &said(COMPLETED), false);
    };
    let delta = said(
        r#"{"type": "response.output_text.delta", "delta": "forty letters are ten tokens of text, yes"}"#,
    );
    assert_eq!(logged(&|_, _| {}), "   ", "there was no call");
    let twice = |worker: &mut Worker, socket: u32| {
        whole(worker, socket);
        whole(worker, socket);
    };
    assert_eq!(logged(&twice), "ok reported 2 84");
    let cut = |worker: &mut Worker, socket: u32| {
        whole(worker, socket);
        call(worker, socket);
        worker.response_body(socket, &delta, false);
    };
    let cut = logged(&cut);
    assert!(cut.starts_with("upstream_error estimated 2 "), "{cut}");
}

#[test]
fn codex_is_told_in_words_that_it_prints() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    let headers = [UPGRADE, &[("originator", "codex_exec")]].concat();
    let socket = worker.request(&headers, false);
    worker.respond(socket, SWITCHED, false);
    worker.body(socket, &asked(CREATE), false);
    worker.answer(0, Reply::OverLimit);
    worker.response_body(socket, &frame(Opcode::Pong, b"", None), false);
    let heard = frames(Peer::Server, worker.client(socket));
    let Some(Ok(error)) = heard.first() else { panic!("{heard:?}") };
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!(error["error"]["type"], "usage_limit_reached");
    assert_eq!(error["headers"]["x-codex-promo-message"], "Rate limit exceeded");
    worker.end(socket);
}

#[test]
fn a_warm_up_costs_what_is_reported() {
    let report = |total: u64| {
        format!(
            r#"{{"type": "response.completed", "response": {{"id": "r", "usage":
                {{"input_tokens": {total}, "output_tokens": 0, "total_tokens": {total}}}}}}}"#
        )
    };
    let warm_up =
        r#"{"type": "response.create", "model": "gpt-5", "generate": false, "input": "hello hello hello"}"#;
    // For a call that generates output, a reported zero is replaced by the estimate.
    for (asked_for, total, charged) in [(warm_up, 0, 0), (warm_up, 7, 7), (CREATE, 0, 6)] {
        let mut worker = Worker::new(tokens(), "Allow", true);
        let socket = open(&mut worker);
        worker.body(socket, &asked(asked_for), false);
        worker.answer(0, Reply::Ok);
        worker.response_body(socket, &said(&report(total)), false);
        worker.end(socket);
        worker.finish();
        assert_eq!(worker.ended.values().collect::<Vec<_>>(), [&charged], "{asked_for}: {total}");
    }
}

#[test]
fn any_number_of_calls_goes_on_unchecked_where_the_adapter_is_unreachable() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    let socket = open(&mut worker);
    super::host::with(|host| host.unreachable = true);
    let calls = asked(CREATE).repeat(2_000);
    worker.body(socket, &calls, false);
    assert_eq!(worker.upstream(socket), calls);
    worker.end(socket);
}

#[test]
fn what_is_no_frame_ends_the_socket() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    let socket = open(&mut worker);
    worker.body(socket, b"hello", false);
    worker.response_body(socket, &close(1002, "", None), false);
    let heard = frames(Peer::Server, worker.client(socket));
    assert!(matches!(&heard[..], [Ok(_), Err(Opcode::Close)]), "{heard:?}");
    worker.end(socket);
}

#[test]
fn an_upgrade_that_is_not_granted_is_no_socket() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    let socket = worker.request(UPGRADE, false);
    worker.respond(socket, &[(":status", "403")], false);
    worker.response_body(socket, b"no", true);
    assert_eq!(worker.client(socket), b"no");
    worker.end(socket);
    worker.finish();
    assert!(worker.asked.is_empty());
}

#[test]
fn what_comes_before_the_switch_waits_for_it() {
    let mut worker = Worker::new(tokens(), "Allow", true);
    let socket = worker.request(UPGRADE, false);
    worker.body(socket, &asked(CREATE), false);
    assert!(worker.is_held(socket) && worker.waiting.is_empty());
    worker.respond_early(socket, SWITCHED);
    worker.answer(0, Reply::Ok);
    assert_eq!(worker.upstream(socket), asked(CREATE));
    worker.end(socket);
}

#[derive(Clone, Debug)]
enum Step {
    Client(usize),
    Server(usize),
    Answer(usize, Reply),
    Advance(u64),
    OpenStream,
    CloseStream,
    Reachable(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reply = prop_oneof![
        5 => Just(Reply::Ok), 1 => Just(Reply::OverLimit), 1 => Just(Reply::Fail(14)), 1 => Just(Reply::Fail(13)),
    ];
    let step = prop_oneof![
        5 => (0..200_usize).prop_map(Step::Client),
        5 => (0..200_usize).prop_map(Step::Server),
        4 => (0..2_usize, reply).prop_map(|(place, reply)| Step::Answer(place, reply)),
        1 => prop_oneof![0..50_u64, Just(300)].prop_map(Step::Advance),
        1 => Just(Step::OpenStream),
        1 => Just(Step::CloseStream),
        1 => prop::bool::weighted(0.8).prop_map(Step::Reachable),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// For any bytes in any chunks, no frame is cut, every hold ends, and no byte is changed unless its call
    /// is refused.
    #[test]
    fn every_hold_of_a_socket_ends(steps in steps(), mode in prop_oneof![Just("Allow"), Just("Deny")]) {
        let mut worker = Worker::new(tokens(), mode, true);
        let socket = open(&mut worker);
        let client = [asked(CREATE), frame(Opcode::Ping, b"x", KEY), asked(r#"{"type": "response.cancel"}"#)]
            .concat()
            .repeat(20);
        let created = r#"{"type": "response.created", "response": {"id": "r"}}"#;
        let server = [said(created), said(COMPLETED), frame(Opcode::Pong, b"x", None)].concat().repeat(20);
        let (mut sent, mut heard) = (0, 0);
        for step in &steps {
            match step {
                Step::Client(size) => {
                    let end = (sent + size).min(client.len());
                    worker.body(socket, &client[sent..end], false);
                    sent = end;
                }
                Step::Server(size) => {
                    let end = (heard + size).min(server.len());
                    worker.response_body(socket, &server[heard..end], false);
                    heard = end;
                }
                Step::Answer(place, reply) => worker.answer(*place, *reply),
                Step::Advance(milliseconds) => worker.advance(*milliseconds),
                Step::OpenStream => worker.open_stream(),
                Step::CloseStream => worker.close_stream(14),
                Step::Reachable(reachable) => super::host::with(|host| host.unreachable = !reachable),
            }
        }
        let upstream = worker.upstream(socket).to_vec();
        let refused = worker.refused.len() + usize::from(mode == "Deny");
        prop_assert!(client.starts_with(&upstream) || refused > 0, "what goes upstream is what the client sent");
        prop_assert!(server[..heard].starts_with(worker.client(socket)) || refused > 0);
        worker.end(socket);
        worker.finish();
        let open: Vec<_> = worker
            .asked
            .iter()
            .filter(|id| !worker.ended.contains_key(*id) && !worker.refused.contains(*id))
            .collect();
        prop_assert!(open.is_empty(), "{open:?} are still held");
    }
}
