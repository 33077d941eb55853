//! Sockets, driven only by bytes: what the calls in a conversation hold and are charged.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, ReservationId};
use engine::outbox::{CommitRoute, Outbox};
use engine::socket::{Next, Passage, Socket, SocketEffect, Upgrade, judge_upgrade};
use expression::facts::Facts;
use llm::memory::MemoryBudget;
use llm::websocket::{Opcode, frame};
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveRequest, ReserveResponse};
use serde_json::{Value, json};
use std::sync::Arc;

const REALTIME: &str = "/v1/realtime?model=gpt-realtime";
const GEMINI: &str = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
const RESPONSES: &str = "/v1/responses";

/// A socket whose calls the adapter admits.
struct Play {
    socket: Socket,
    plan: ActivePlan,
    numbers: u64,
    /// What each call held.
    held: Vec<u64>,
    /// What each call was charged.
    charged: Vec<u64>,
}

impl Play {
    fn open(path: &str) -> Self {
        Self::open_with(path, BodyAccess::Buffer(1 << 20))
    }

    fn open_with(path: &str, access: BodyAccess) -> Self {
        let limits = json!({"all": {"rates": [{"limit": 10_000_000, "window": "1h"}]}});
        Self::open_limited(path, access, &json!({ "limits": limits }))
    }

    fn open_limited(path: &str, access: BodyAccess, spec: &Value) -> Self {
        let mut document = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
            "spec": {
                "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            },
        });
        document["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]).with_body(access);
        let plan = ActivePlan::Plan(Arc::new(plan));
        let mut facts = Facts::default();
        for (name, value) in [(":path", path), (":method", "GET"), ("upgrade", "websocket")] {
            facts.header(name, value.as_bytes());
        }
        let upgrade = judge_upgrade(&plan, facts, &MemoryBudget::default(), [1, 2, 3, 4]);
        let Upgrade::Socket(socket) = upgrade else { panic!("{upgrade:?}") };
        let mut play = Self { socket: *socket, plan, numbers: 0, held: Vec::new(), charged: Vec::new() };
        play.act(|socket, next| socket.opened(101, "", next));
        play
    }

    /// Handles an event, and admits the calls that it begins.
    fn act(&mut self, event: impl FnOnce(&mut Socket, Next<'_>) -> Vec<SocketEffect>) {
        let Self { socket, plan, numbers, held, charged } = self;
        let mut next = || {
            *numbers += 1;
            (plan.clone(), ReservationId { prefix: "w".into(), number: *numbers })
        };
        let mut effects = event(socket, &mut next);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    SocketEffect::Reserve { call, message } => {
                        let asked = ReserveRequest::decode(&*message).unwrap();
                        held.extend(asked.descriptors.iter().map(|one| one.hits_addend.unwrap()));
                        let ok = ReserveResponse { code: Code::Ok.into(), ..ReserveResponse::default() };
                        effects.extend(socket.reply(call, Ok(ok), &mut next));
                    }
                    SocketEffect::Commit(settlement) => {
                        let mut outbox = Outbox::new(1);
                        outbox.push(settlement);
                        let message = outbox.send(CommitRoute::Unary, 0).unwrap().message;
                        let commit = CommitRequest::decode(&*message).unwrap();
                        charged.extend(commit.descriptors.iter().map(|one| one.hits_addend.unwrap()));
                    }
                    _ => {}
                }
            }
        }
    }

    fn ask(&mut self, message: &Value) {
        let bytes = frame(Opcode::Text, message.to_string().as_bytes(), Some([9; 4]));
        self.act(|socket, next| {
            let (passage, effects) = socket.client(&bytes, next);
            assert!(passage == Passage::AsTheyAre || !effects.is_empty(), "{passage:?}");
            effects
        });
        self.socket.release();
    }

    fn say(&mut self, message: &Value) {
        let bytes = frame(Opcode::Text, message.to_string().as_bytes(), None);
        self.act(|socket, next| socket.server(&bytes, next).1);
    }

    fn close(&mut self) {
        self.act(|socket, _| socket.closed());
    }

    /// Begins a response and closes the socket after its first words.
    fn cut(&mut self, create: &Value) -> (u64, u64) {
        self.ask(create);
        self.say(&json!({"type": "response.created", "response": {"id": "cut"}}));
        self.say(&json!({"type": "response.output_text.delta", "response_id": "cut", "delta": "hi"}));
        self.close();
        (*self.held.last().unwrap(), *self.charged.last().unwrap())
    }
}

fn create() -> Value {
    json!({"type": "response.create"})
}

fn item(text: &str) -> Value {
    let content = json!([{"type": "input_text", "text": text}]);
    json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}})
}

fn append() -> Value {
    // 48,000 bytes of audio: a second.
    json!({"type": "input_audio_buffer.append", "audio": "AbCd".repeat(16_000)})
}

fn done(input: u64, output: u64) -> Value {
    let usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
    json!({"type": "response.done", "response": {"id": "r", "usage": usage}})
}

/// A text of 50,000 tokens.
fn long() -> String {
    "word ".repeat(40_000)
}

/// Whether a call in this socket holds and is charged about this much more than one in a new socket.
#[track_caller]
fn assert_earlier(mut play: Play, create: &Value, earlier: u64) {
    let (held, charged) = play.cut(create);
    let expected = earlier..=earlier + earlier / 50 + 200;
    assert!(expected.contains(&(held - 1036)), "{held} held, not {earlier} more than 1036");
    assert!(expected.contains(&(charged - 13)), "{charged} charged, not {earlier} more than 13");
}

#[test]
fn a_response_holds_the_conversation_and_is_charged_for_it_if_it_is_cut() {
    assert_eq!(Play::open(REALTIME).cut(&create()), (1036, 13));
    let tool = json!({"type": "function", "name": "f", "description": long()});
    for message in [
        item(&long()),
        json!({"type": "session.update", "session": {"instructions": long()}}),
        json!({"type": "session.update", "session": {"tools": [tool]}}),
    ] {
        for access in [BodyAccess::Buffer(1 << 20), BodyAccess::None] {
            let mut play = Play::open_with(REALTIME, access);
            play.ask(&message);
            assert!(play.held.is_empty(), "it starts no call");
            play.ask(&item("hello"));
            play.ask(&json!({"type": "response.cancel"}));
            let (held, charged) = play.cut(&create());
            assert!(
                (51_000..52_000).contains(&held) && (50_000..51_000).contains(&charged),
                "{held} {charged}"
            );
        }
    }
    let mut play = Play::open(REALTIME);
    (0..10).for_each(|_| play.ask(&item(&"word ".repeat(800))));
    assert_earlier(play, &create(), 10_000);
}

#[test]
fn a_response_that_never_begins_is_charged_for_the_conversation() {
    let mut play = Play::open(REALTIME);
    play.ask(&item(&long()));
    play.ask(&create());
    play.close();
    assert!((50_000..51_000).contains(&play.charged[0]), "{:?}", play.charged);
}

#[test]
fn a_response_that_the_server_begins_holds_the_conversation() {
    let mut play = Play::open(REALTIME);
    play.ask(&item(&long()));
    play.say(&json!({"type": "response.created", "response": {"id": "r"}}));
    play.close();
    assert!((51_000..52_000).contains(&play.held[0]), "{:?}", play.held);
    assert!((50_000..51_000).contains(&play.charged[0]), "{:?}", play.charged);
}

#[test]
fn reported_usage_is_charged_as_it_is() {
    let mut play = Play::open(REALTIME);
    for (input, output) in [(30, 12), (60_000, 7), (5, 1)] {
        play.ask(&item(&long()));
        play.ask(&create());
        play.say(&json!({"type": "response.created", "response": {"id": "r"}}));
        play.say(&done(input, output));
        assert_eq!(*play.charged.last().unwrap(), input + output);
    }
    // A call that fails costs nothing.
    play.ask(&create());
    play.say(&json!({"type": "error", "error": {"message": "no"}}));
    assert_eq!(play.charged, [42, 60_007, 6, 0]);
}

#[test]
fn a_transcription_does_not_include_the_conversation() {
    let mut play = Play::open(REALTIME);
    play.ask(&item(&long()));
    let usage = json!({"type": "tokens", "input_tokens": 0, "output_tokens": 9000, "total_tokens": 9000});
    let kind = "conversation.item.input_audio_transcription.completed";
    play.say(&json!({"type": kind, "transcript": "hi", "usage": usage}));
    assert!(play.held[0] < 2000 && play.charged[0] < 9010, "{:?} {:?}", play.held, play.charged);
    assert_earlier(play, &create(), 50_000);
}

#[test]
fn what_earlier_responses_said_is_part_of_the_conversation() {
    let mut play = Play::open(REALTIME);
    for _ in 0..3 {
        play.ask(&create());
        play.say(&json!({"type": "response.created", "response": {"id": "r"}}));
        play.say(&done(10, 2000));
    }
    assert_earlier(play, &create(), 6000);
    // The report shows that the conversation is longer than its messages.
    let mut play = Play::open(REALTIME);
    play.ask(&create());
    play.say(&json!({"type": "response.created", "response": {"id": "r"}}));
    play.say(&done(30_000, 100));
    assert_earlier(play, &create(), 30_100);
}

#[test]
fn audio_is_part_of_the_conversation_once_it_is_committed() {
    let seconds = |play: &mut Play, count: usize| (0..count).for_each(|_| play.ask(&append()));
    let mut play = Play::open(REALTIME);
    seconds(&mut play, 100);
    play.ask(&json!({"type": "input_audio_buffer.clear"}));
    seconds(&mut play, 10);
    play.ask(&json!({"type": "input_audio_buffer.commit"}));
    play.say(&json!({"type": "input_audio_buffer.committed", "item_id": "i"}));
    seconds(&mut play, 100);
    // A token for each 500 bytes.
    assert_earlier(play, &create(), 960);

    // The server has detected speech. It drops the silence around it.
    let mut play = Play::open(REALTIME);
    for begin in [20_000, 60_000] {
        seconds(&mut play, 40);
        play.say(&json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": begin}));
        play.say(&json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": begin + 10_000}));
        play.say(&json!({"type": "input_audio_buffer.committed"}));
    }
    assert_earlier(play, &create(), 640);

    // The server does not say how much of it was speech.
    let mut play = Play::open(REALTIME);
    seconds(&mut play, 10);
    play.say(&json!({"type": "input_audio_buffer.committed"}));
    assert_earlier(play, &create(), 960);
}

#[test]
fn a_turn_of_gemini_live_includes_the_setup_and_earlier_turns() {
    let turn =
        |text: &str| json!({"clientContent": {"turns": [{"role": "user", "parts": [{"text": text}]}]}});
    let content = |complete: bool| json!({"serverContent": {"modelTurn": {"parts": [{"text": "hi"}]}, "turnComplete": complete}});
    let mut play = Play::open(GEMINI);
    play.ask(&json!({"setup": {"model": "models/m", "systemInstruction": {"parts": [{"text": long()}]}}}));
    play.ask(&turn("hello"));
    assert!((51_000..52_000).contains(&play.held[0]), "{:?}", play.held);
    // It reaches the model during the turn, and stays in the conversation.
    play.ask(&turn(&long()));
    play.say(&content(false));
    play.close();
    assert!((100_000..101_000).contains(&play.charged[0]), "{:?}", play.charged);

    let mut play = Play::open(GEMINI);
    play.ask(&turn("hello"));
    play.ask(&turn(&long()));
    let mut report = content(true);
    report["usageMetadata"] =
        json!({"promptTokenCount": 60, "responseTokenCount": 40, "totalTokenCount": 100});
    play.say(&report);
    play.ask(&turn("hello"));
    play.close();
    assert_eq!(play.charged[0], 100, "reported usage is charged as it is");
    assert!((50_000..51_000).contains(&play.charged[1]), "{:?}", play.charged);
}

#[test]
fn a_call_of_the_responses_api_includes_only_what_it_continues_from() {
    let create = |input: &str| json!({"type": "response.create", "model": "gpt-5", "input": input});
    let complete = |play: &mut Play| {
        let mut completed = done(50_000, 500);
        completed["type"] = "response.completed".into();
        play.say(&completed);
    };
    let charged = |play: &mut Play, create: &Value| play.cut(create).1;
    let mut play = Play::open(RESPONSES);
    play.ask(&create(&long()));
    complete(&mut play);
    assert!(charged(&mut play, &create("hello")) < 100, "{:?}", play.charged);

    let mut play = Play::open(RESPONSES);
    play.ask(&create(&long()));
    complete(&mut play);
    let mut next = create("hello");
    next["previous_response_id"] = "r".into();
    let charged = charged(&mut play, &next);
    assert!((50_500..56_000).contains(&charged), "{charged}");

    // It continues from a call that requests no output, or that has not ended.
    let mut warm_up = create(&long());
    warm_up["generate"] = false.into();
    for first in [warm_up, create(&long())] {
        let mut play = Play::open(RESPONSES);
        play.ask(&first);
        play.ask(&next);
        play.close();
        assert!((51_000..59_000).contains(&play.held[1]), "{:?}", play.held);
        assert!((50_000..56_000).contains(&play.charged[1]), "{:?}", play.charged);
    }
}

#[test]
fn input_for_a_running_response_is_charged_if_it_is_cut() {
    let mut play = Play::open(RESPONSES);
    play.ask(&json!({"type": "response.create", "model": "gpt-5", "input": "hello"}));
    play.say(&json!({"type": "response.created", "response": {"id": "r"}}));
    play.ask(&json!({"type": "response.append", "input": long()}));
    play.close();
    assert!((50_000..51_000).contains(&play.charged[0]), "{:?}", play.charged);
}

/// The length of the calls inside is unknown when a socket begins.
#[test]
fn a_socket_is_metered_if_a_limit_depends_on_the_length_of_its_calls() {
    for when in ["llm.estimate.input > 1000", "request.size > 10000"] {
        let document = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
            "spec": {
                "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
                "limits": {"long": {"when": [{"predicate": when}], "rates": [{"limit": 1000, "window": "1h"}]}},
            },
        });
        let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]);
        let plan = ActivePlan::Plan(Arc::new(plan.with_body(BodyAccess::Buffer(1 << 20))));
        let mut facts = Facts::default();
        for (name, value) in [(":path", REALTIME), (":method", "GET"), ("upgrade", "websocket")] {
            facts.header(name, value.as_bytes());
        }
        let upgrade = judge_upgrade(&plan, facts, &MemoryBudget::default(), [1, 2, 3, 4]);
        assert!(matches!(upgrade, Upgrade::Socket(_)), "{when}: {upgrade:?}");
    }
}

#[test]
fn a_second_name_of_the_model_does_not_replace_the_first() {
    let spec = json!({
        "limits": {
            "big": {"when": [{"predicate": "llm.model == 'big'"}], "rates": [{"limit": 10_000_000, "window": "1h"}]},
            "money": {"rates": [{"limit": "100.00", "unit": "usd", "window": "1h"}]},
        },
        "prices": [
            {"model": "mini", "input": "1", "output": "1"},
            {"model": "big", "input": "100", "output": "100"},
        ],
    });
    let held = |path: &str, messages: &[Value]| {
        let mut play = Play::open_limited(path, BodyAccess::Buffer(1 << 20), &spec);
        messages.iter().for_each(|message| play.ask(message));
        play.held
    };
    let create = || json!({"type": "response.create", "response": {"max_output_tokens": 1000}});
    let update = |model: &str| json!({"type": "session.update", "session": {"model": model}});
    let named = |place: &str| {
        let mut message = create();
        *message.pointer_mut(place).unwrap() = json!({"max_output_tokens": 1000, "model": "mini"});
        message
    };
    let top = json!({"type": "response.create", "model": "mini", "response": {"max_output_tokens": 1000}});
    let cancel = json!({"type": "response.cancel", "model": "mini"});
    let setup = |more: Value| {
        let mut setup = json!({"setup": {"model": "big"}});
        setup.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        setup
    };
    let turn = |more: Value| {
        let mut turn =
            json!({"clientContent": {"turns": [{"parts": [{"text": "hi"}]}], "turnComplete": true}});
        turn.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        turn
    };
    let mini = || json!({"model": "mini"});
    let none = || json!({});
    for (path, messages) in [
        ("/v1/realtime?model=big", vec![update("mini"), create()]),
        ("/v1/realtime?model=big", vec![top]),
        ("/v1/realtime?model=big", vec![named("/response")]),
        ("/v1/realtime?model=big", vec![cancel, create()]),
        ("/v1/realtime?model=big", vec![update("mini"), update("big"), update("mini"), create()]),
        ("/v1/realtime?mod%65l=big", vec![create()]),
        ("/v1/realtime?model=mini&model=big", vec![create()]),
        ("/openai/realtime?model=mini&deployment=big", vec![create()]),
        (GEMINI, vec![setup(none()), turn(mini())]),
        (GEMINI, vec![setup(mini()), turn(none())]),
    ] {
        let held = held(path, &messages);
        assert!(held.len() == 2 && held[1] >= 100_000, "{path} {}: {held:?}", json!(messages));
    }
    for (path, messages) in [
        ("/v1/realtime?model=mini", vec![create()]),
        ("/v1/realtime?model=mini", vec![update("mini"), create()]),
        ("/v1/realtime", vec![update("mini"), create()]),
    ] {
        let held = held(path, &messages);
        assert!(held.len() == 1 && held[0] < 2000, "{path} {}: {held:?}", json!(messages));
    }
}
