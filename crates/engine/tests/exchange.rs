//! The exchange, driven only by events.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::metric::{Metric, UsageSource};
use engine::outbox::{CommitRoute, Outbox};
use engine::refusal::Denial;
use expression::facts::Facts;
use llm::response::{Cause, ResponseHead};
use policy::model::{FailureMode, Policy};
use policy::plan::BodyAccess;
use policy::plan::Plan;
use proptest::prelude::*;
use prost::Message;
use protocol::call::{self, CallFailure};
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{
    CommitRequest, DescriptorStatus, ReserveRequest, ReserveResponse,
};
use serde_json::{Value, json};
use std::sync::Arc;

fn plan(failure_mode: &str) -> Plan {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "failureMode": failure_mode,
            "limits": {
                "chat": {
                    "when": [{"predicate": "request.path == '/v1/chat/completions'"}],
                    "counters": [{"expression": "auth.identity.userid"}],
                    "rates": [
                        {"limit": 1000, "window": "1h"},
                        {"limit": 5, "window": "1m", "unit": "requests"},
                    ],
                },
            },
        },
    });
    Plan::new(vec![Policy::read(&document).expect("a good policy")])
}

fn exchange(failure_mode: &str) -> Exchange {
    Exchange::new(
        ActivePlan::Plan(Arc::new(plan(failure_mode))),
        ReservationId { prefix: "w".into(), number: 10 },
    )
}

fn facts(path: &str, user: Option<&str>) -> Facts {
    let mut facts = Facts::default();
    facts.header(":path", path.as_bytes());
    facts.header("content-length", b"400");
    if let Some(user) = user {
        facts.auth(json!({"identity": {"userid": user}}));
    }
    facts
}

fn request() -> Event<'static> {
    Event::Request { facts: facts("/v1/chat/completions", Some("alice")), bodiless: false }
}

fn reserve(effects: &[Effect]) -> ReserveRequest {
    let [Effect::Reserve(call)] = effects else { panic!("{effects:?}") };
    ReserveRequest::decode(&**call).unwrap()
}

fn reply(code: Code, statuses: &[(Code, u64, u64, u64)]) -> Vec<u8> {
    let status = |&(code, limit, remaining, reset_ms): &(Code, u64, u64, u64)| DescriptorStatus {
        code: code.into(),
        limit,
        remaining,
        reset_ms,
        ..DescriptorStatus::default()
    };
    let statuses = statuses.iter().map(status).collect();
    ReserveResponse { code: code.into(), reservation_id: String::new(), statuses, lease: None }
        .encode_to_vec()
}

fn admitted() -> Vec<u8> {
    reply(Code::Ok, &[(Code::Ok, 1000, 650, 3_600_000), (Code::Ok, 5, 4, 60_000)])
}

fn commit(effects: &[Effect]) -> (String, Vec<u64>) {
    let settlement = |effect: &Effect| if let Effect::Commit(it) = effect { Some(it.clone()) } else { None };
    let settlements: Vec<_> = effects.iter().filter_map(settlement).collect();
    let [settlement] = settlements.as_slice() else { panic!("one commit: {effects:?}") };
    let mut outbox = Outbox::new(1);
    outbox.push(settlement.clone());
    let request = CommitRequest::decode(&*outbox.send(CommitRoute::Unary, 0).unwrap().message).unwrap();
    let charges = request.descriptors.iter().map(|descriptor| descriptor.hits_addend.unwrap()).collect();
    (request.reservation_id, charges)
}

fn json_head(status: u16) -> ResponseHead {
    ResponseHead { status, content_type: "application/json".into(), ..ResponseHead::default() }
}

fn body(denial: &Denial) -> String {
    let body: Value = serde_json::from_slice(&denial.body).unwrap();
    format!("{body:#}")
}

const ANSWER: &[u8] = br#"{"choices":[{"message":{"content":"hello"}}],
    "usage":{"prompt_tokens":20,"completion_tokens":30,"total_tokens":50}}"#;

/// An exchange that the adapter has admitted.
fn under_way(failure_mode: &str) -> Exchange {
    let mut exchange = exchange(failure_mode);
    exchange.handle(request());
    let effects = exchange.handle(Event::Reply(call::reply(Ok(&admitted()))));
    assert_eq!(effects, [Effect::Count(Metric::Admitted), Effect::Resume]);
    exchange
}

#[test]
fn one_call_holds_for_every_rate_of_every_limit() {
    let call = reserve(&exchange("Allow").handle(request()));
    assert_eq!(call.reservation_id, "w-a");
    let entries = |index: usize| -> Vec<(&str, &str)> {
        call.descriptors[index]
            .entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.value.as_str()))
            .collect()
    };
    let expected = |unit, window| {
        vec![
            ("limit", "default/p/chat"),
            ("unit", unit),
            ("window", window),
            ("auth.identity.userid", "alice"),
        ]
    };
    assert_eq!(call.descriptors.len(), 2);
    // 400 bytes are 100 tokens. Without a maximum, the estimated output is as large as the input, but at
    // least a quarter of the limit.
    assert_eq!((entries(0), call.descriptors[0].hits_addend), (expected("tokens", "3600s"), Some(350)));
    assert_eq!((entries(1), call.descriptors[1].hits_addend), (expected("requests", "60s"), Some(1)));
}

#[test]
fn a_request_that_no_limit_matches_costs_nothing() {
    let mut exchange = exchange("Deny");
    let event = Event::Request { facts: facts("/v1/models", Some("alice")), bodiless: true };
    assert_eq!(exchange.handle(event), []);
    assert_eq!(exchange.handle(Event::Response(json_head(200))), []);
    assert!(!exchange.reads_body());
    assert_eq!(exchange.handle(Event::Closed), []);
}

#[test]
fn the_usage_of_the_answer_is_charged_once() {
    let mut exchange = under_way("Allow");
    let effects = exchange.handle(Event::Response(json_head(200)));
    let [Effect::SetHeaders(headers)] = effects.as_slice() else { panic!("{effects:?}") };
    insta::assert_snapshot!(render(headers));
    assert!(exchange.reads_body());
    let (first, second) = ANSWER.split_at(70);
    assert_eq!(exchange.handle(Event::Body { chunk: first, end: false }), []);
    let effects = exchange.handle(Event::Body { chunk: second, end: true });
    assert_eq!(commit(&effects), ("w-a".to_owned(), vec![50, 1]));
    assert!(effects.contains(&Effect::Count(Metric::TokensCharged(50))));
    assert!(effects.contains(&Effect::Count(Metric::Usage(UsageSource::Reported))));
    assert_eq!(exchange.handle(Event::Closed), [], "once");
}

fn render(headers: &engine::refusal::HeaderList) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

#[test]
fn a_failed_call_costs_no_tokens_and_stays_a_request() {
    for status in [400, 404, 500, 503] {
        let mut exchange = under_way("Allow");
        exchange.handle(Event::Response(json_head(status)));
        let effects = exchange.handle(Event::Body { chunk: br#"{"error":{"message":"no"}}"#, end: true });
        assert_eq!(commit(&effects).1, [0, 1], "{status}");
    }
}

#[test]
fn an_answer_without_usage_costs_its_input_and_what_was_delivered() {
    let mut exchange = under_way("Allow");
    exchange.handle(Event::Response(json_head(200)));
    let body = br#"{"choices":[{"message":{"content":"twelve chars"}}]}"#;
    let effects = exchange.handle(Event::Body { chunk: body, end: true });
    assert_eq!(commit(&effects).1, [103, 1]);
    assert!(effects.contains(&Effect::Count(Metric::Usage(UsageSource::Estimated))));
}

#[test]
fn an_answer_that_is_cut_is_settled_when_the_exchange_closes() {
    let mut exchange = under_way("Allow");
    exchange.handle(Event::Response(json_head(200)));
    exchange.handle(Event::Body { chunk: br#"{"choices":[{"message":{"content":"four"#, end: false });
    assert_eq!(commit(&exchange.handle(Event::Closed)).1, [101, 1]);
}

#[test]
fn a_stream_that_is_cut_costs_what_came_after_its_last_report_too() {
    let mut exchange = under_way("Allow");
    let head =
        ResponseHead { status: 200, content_type: "text/event-stream".into(), ..ResponseHead::default() };
    exchange.handle(Event::Response(head));
    let events = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\
        \"output_tokens\":1}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\
        \"type\":\"text_delta\",\"text\":\"twelve chars\"}}\n\n";
    exchange.handle(Event::Body { chunk: events, end: false });
    assert_eq!(commit(&exchange.handle(Event::Closed)).1, [29, 1]);
}

#[test]
fn what_a_tool_is_called_with_is_delivered_as_an_object_too() {
    let mut exchange = under_way("Allow");
    let head =
        ResponseHead { status: 200, content_type: "text/event-stream".into(), ..ResponseHead::default() };
    exchange.handle(Event::Response(head));
    let event =
        b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"four\",\"args\":{\
        \"city\":\"Bern\",\"days\":3}}}]}}]}\n\n";
    exchange.handle(Event::Body { chunk: event, end: false });
    // The function's name has 4 characters, and its arguments have 22 between the braces.
    assert_eq!(commit(&exchange.handle(Event::Closed)).1, [100 + 7, 1]);
}

#[test]
fn an_output_that_is_no_count_costs_what_was_delivered() {
    let answer = |usage: &str| {
        let mut exchange = under_way("Allow");
        exchange.handle(Event::Response(json_head(200)));
        let body =
            format!(r#"{{"choices":[{{"message":{{"content":"twelve chars"}}}}],"usage":{{{usage}}}}}"#);
        let effects = exchange.handle(Event::Body { chunk: body.as_bytes(), end: true });
        assert!(effects.contains(&Effect::Count(Metric::Unreadable(Cause::Count))), "{usage}");
        commit(&effects).1
    };
    assert_eq!(answer(r#""prompt_tokens":20,"completion_tokens":-5"#), [20 + 3, 1]);
    assert_eq!(answer(r#""prompt_tokens":20,"completion_tokens":1e308"#), [20 + 3, 1]);
    assert_eq!(answer(r#""prompt_tokens":20,"completion_tokens":-5,"total_tokens":50"#), [50, 1]);
    assert_eq!(answer(r#""prompt_tokens":-20,"completion_tokens":5"#), [100 + 5, 1]);
    assert_eq!(answer(r#""total_tokens":-50"#), [100 + 3, 1]);
}

#[test]
fn a_body_that_cannot_be_read_is_counted_and_costs_its_input_and_its_bytes() {
    let mut exchange = under_way("Allow");
    let head = ResponseHead { content_encoding: "compress".into(), ..json_head(200) };
    exchange.handle(Event::Response(head.clone()));
    let effects = exchange.handle(Event::Body { chunk: &[0x80; 40], end: true });
    assert_eq!(commit(&effects).1, [100 + 40 / 4, 1]);
    assert!(effects.contains(&Effect::Count(Metric::Unreadable(Cause::Encoding))));
    // A wrong label does not make a body unreadable.
    let mut exchange = under_way("Allow");
    exchange.handle(Event::Response(head));
    let effects = exchange.handle(Event::Body { chunk: ANSWER, end: true });
    assert_eq!(commit(&effects).1, [50, 1]);
    assert!(effects.contains(&Effect::Count(Metric::Unreadable(Cause::Mislabeled))));
}

#[test]
fn usage_that_is_followed_by_what_cannot_be_read_is_not_all() {
    let mut exchange = under_way("Allow");
    exchange.handle(Event::Response(ResponseHead { content_encoding: "zstd".into(), ..json_head(200) }));
    // One frame contains the answer, uncompressed. The other one has a window that is too large.
    let length = (ANSWER.len() as u32) << 3 | 1;
    let frame = [b"\x28\xb5\x2f\xfd\0\x38", &length.to_le_bytes()[..3], ANSWER].concat();
    exchange.handle(Event::Body { chunk: &frame, end: false });
    let effects = exchange.handle(Event::Body { chunk: b"\x28\xb5\x2f\xfd\0\x700123456789", end: true });
    assert_eq!(commit(&effects).1, [50 + 16 / 4, 1]);
    assert!(effects.contains(&Effect::Count(Metric::Unreadable(Cause::Window))));
}

#[test]
fn a_client_that_leaves_before_any_answer_pays_for_its_input() {
    let mut exchange = under_way("Allow");
    assert_eq!(commit(&exchange.handle(Event::Closed)).1, [100, 1]);
}

#[test]
fn a_client_that_leaves_before_the_adapter_answers_leaves_no_hold() {
    let mut exchange = exchange("Allow");
    exchange.handle(request());
    assert_eq!(commit(&exchange.handle(Event::Closed)), ("w-a".to_owned(), vec![0, 0]));
}

#[test]
fn a_refusal_names_the_limit_and_commits_nothing() {
    let mut exchange = exchange("Allow");
    exchange.handle(request());
    let over = reply(Code::OverLimit, &[(Code::OverLimit, 1000, 12, 86_000), (Code::Ok, 5, 5, 60_000)]);
    let effects = exchange.handle(Event::Reply(call::reply(Ok(&over))));
    let [Effect::Count(count), Effect::Deny(denial)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(count.name(), "weir_refused.policy.default/p.limit.chat");
    assert_eq!(denial.status, 429);
    insta::assert_snapshot!(render(&denial.headers));
    insta::assert_snapshot!(body(denial));
    assert_eq!(
        exchange.handle(Event::Response(json_head(429))),
        [],
        "its own answer is none of the upstream's"
    );
    assert_eq!(exchange.handle(Event::Closed), []);
}

#[test]
fn a_limit_that_the_adapter_does_not_know_is_not_in_force_there_and_lifts_no_other() {
    // The failure mode does not matter, because the adapter can answer.
    for failure_mode in ["Allow", "Deny"] {
        let mut exchange = exchange(failure_mode);
        exchange.handle(request());
        let known = (Code::OverLimit, 5, 0, 60_000);
        let over = reply(Code::OverLimit, &[(Code::Unknown, 0, 0, 0), known]);
        let effects = exchange.handle(Event::Reply(call::reply(Ok(&over))));
        let Some(Effect::Deny(denial)) = effects.last() else { panic!("{effects:?}") };
        let headers = render(&denial.headers);
        assert!(headers.contains("x-ratelimit-limit-requests: 5"), "{headers}");
        assert!(!headers.contains("x-ratelimit-limit-tokens"), "{headers}");

        let mut exchange = self::exchange(failure_mode);
        exchange.handle(request());
        let room = reply(Code::Ok, &[(Code::Unknown, 0, 0, 0), (Code::Ok, 5, 4, 60_000)]);
        let effects = exchange.handle(Event::Reply(call::reply(Ok(&room))));
        assert_eq!(effects, [Effect::Count(Metric::Admitted), Effect::Resume]);
        exchange.handle(Event::Response(json_head(200)));
        let effects = exchange.handle(Event::Body { chunk: ANSWER, end: true });
        // Another adapter may know the limit.
        assert_eq!(commit(&effects).1, [50, 1]);
    }
}

#[test]
fn a_request_that_can_never_pass_is_not_told_to_retry() {
    let mut exchange = exchange("Allow");
    exchange.handle(request());
    let over = reply(Code::OverLimit, &[(Code::OverLimit, 300, 300, 3_600_000), (Code::Ok, 5, 5, 60_000)]);
    let effects = exchange.handle(Event::Reply(call::reply(Ok(&over))));
    let Some(Effect::Deny(denial)) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(denial.status, 413);
    assert!(denial.headers.contains(&("x-should-retry".into(), "false".into())));
    assert!(denial.headers.iter().all(|(name, _)| !name.starts_with("retry-after")));
    insta::assert_snapshot!(body(denial));
}

/// Returns the denial of a request that was refused for this long, given this usage.
fn refused_for(reset_ms: u64, used: Option<u64>) -> Denial {
    let mut exchange = exchange("Allow");
    exchange.handle(request());
    let tokens = DescriptorStatus {
        code: Code::OverLimit.into(),
        limit: 1000,
        remaining: 12,
        reset_ms,
        used,
        exceeded: false,
    };
    let over = ReserveResponse {
        code: Code::OverLimit.into(),
        reservation_id: String::new(),
        statuses: vec![tokens, DescriptorStatus { code: Code::Ok.into(), limit: 5, ..Default::default() }],
        lease: None,
    };
    let mut effects = exchange.handle(Event::Reply(call::reply(Ok(&over.encode_to_vec()))));
    let Some(Effect::Deny(denial)) = effects.pop() else { panic!("{effects:?}") };
    denial
}

#[test]
fn no_client_is_left_to_sleep_for_more_than_a_minute() {
    // The request needs 350 tokens of a limit of 1000. If the usage is at most 650, only other holds take up
    // the room.
    let table = [
        (59_000, None, "59000", false),
        (60_000, None, "60000", false),
        (60_001, None, "60001", true),
        (3_600_000, Some(651), "3600000", true),
        (3_600_000, Some(650), "2000", false),
        (1_500, Some(0), "1500", false),
        (10, Some(0), "1000", false),
        (10, Some(651), "10", false),
    ];
    for (reset_ms, used, wait, stops) in table {
        let denial = refused_for(reset_ms, used);
        let header = |name: &str| {
            denial.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(denial.status, 429);
        assert_eq!(header("retry-after-ms"), Some(wait), "{reset_ms} {used:?}");
        assert_eq!(header("x-should-retry"), stops.then_some("false"), "{reset_ms} {used:?}");
        let says_held = body(&denial).contains("other requests in flight hold the rest");
        assert_eq!(says_held, used.is_some_and(|used| used <= 650), "{reset_ms} {used:?}");
    }
}

#[test]
fn the_headers_list_the_eight_most_constrained_limits() {
    let limit = |place: u64| {
        (
            format!("l{place}"),
            json!({"reservation": {"amount": "1"}, "rates": [{"limit": 100, "window": "1h"}]}),
        )
    };
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"},
            "limits": (0..10).map(limit).collect::<serde_json::Map<_, _>>(),
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]);
    let id = ReservationId { prefix: "w".into(), number: 10 };
    let mut exchange = Exchange::new(ActivePlan::Plan(Arc::new(plan)), id);
    exchange.handle(request());
    // The first and the fourth limit have the most room.
    let statuses: Vec<_> = [90, 5, 5, 80, 5, 5, 5, 5, 5, 70].map(|left| (Code::Ok, 100, left, 60_000)).into();
    exchange.handle(Event::Reply(call::reply(Ok(&reply(Code::Ok, &statuses)))));
    let effects = exchange.handle(Event::Response(json_head(200)));
    let [Effect::SetHeaders(headers)] = effects.as_slice() else { panic!("{effects:?}") };
    for name in ["ratelimit", "ratelimit-policy"] {
        let (_, value) = headers.iter().find(|(known, _)| known == name).unwrap();
        let listed: Vec<&str> = value.split(", ").map(|item| item.split('"').nth(1).unwrap()).collect();
        assert_eq!(listed, ["l1", "l2", "l4", "l5", "l6", "l7", "l8", "l9"], "{name}");
    }
}

#[test]
fn a_provider_that_throttles_keeps_its_own_numbers() {
    let mut exchange = under_way("Allow");
    let effects = exchange.handle(Event::Response(json_head(429)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::SetHeaders(_))), "{effects:?}");
}

#[test]
fn an_adapter_that_cannot_answer_leaves_it_to_the_failure_mode() {
    let useless = [
        Err(CallFailure::Timeout),
        Err(CallFailure::Unavailable),
        Err(CallFailure::Status(13)),
        Ok(b"\xff\xff".as_slice()),
        Ok(b"".as_slice()),
    ];
    for answer in useless {
        let mut open = exchange("Allow");
        open.handle(request());
        let effects = open.handle(Event::Reply(call::reply(answer)));
        assert!(
            matches!(effects.as_slice(), [Effect::Count(Metric::FailedOpen(_)), Effect::Resume]),
            "{effects:?}"
        );
        open.handle(Event::Response(json_head(200)));
        let effects = open.handle(Event::Body { chunk: ANSWER, end: true });
        assert_eq!(commit(&effects).1, [50, 1], "what was used is told all the same");

        let mut closed = exchange("Deny");
        closed.handle(request());
        let effects = closed.handle(Event::Reply(call::reply(answer)));
        assert_eq!(commit(&effects).1, [0, 0]);
        let Some(Effect::Deny(denial)) = effects.last() else { panic!("{effects:?}") };
        assert_eq!(denial.status, 503);
        insta::allow_duplicates! {
            insta::assert_snapshot!(body(denial));
        }
    }
}

#[test]
fn a_counter_without_a_value_is_never_unlimited_in_silence() {
    for failure_mode in ["Allow", "Deny"] {
        let nobody = Event::Request { facts: facts("/v1/chat/completions", None), bodiless: false };
        let effects = exchange(failure_mode).handle(nobody);
        assert_eq!(counted(&effects), ["weir_in_doubt.policy.default/p.limit.chat.cause.counter_absent"]);
        let Some(Effect::Reserve(call)) = effects.last() else { panic!("{effects:?}") };
        let call = ReserveRequest::decode(&**call).unwrap();
        let last = call.descriptors.iter().map(|descriptor| descriptor.entries.last().unwrap());
        assert!(
            last.into_iter().all(|entry| (&*entry.key, &*entry.value) == ("auth.identity.userid", "null"))
        );
    }
}

#[test]
fn before_the_first_plan_the_configuration_decides() {
    let id = || ReservationId { prefix: "w".into(), number: 1 };
    let effects = Exchange::new(ActivePlan::Nothing(FailureMode::Allow), id()).handle(request());
    assert_eq!(effects, [Effect::Count(Metric::FailedOpen("no_plan"))]);
    let effects = Exchange::new(ActivePlan::Nothing(FailureMode::Deny), id()).handle(request());
    assert!(matches!(effects.last(), Some(Effect::Deny(denial)) if denial.status == 503));
}

#[derive(Clone, Debug)]
enum Happening {
    Request(bool),
    Reply(Result<Vec<u8>, u32>),
    Response(u16),
    Passing(Vec<u8>, bool),
    Body(Vec<u8>, bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let replies = prop_oneof![
        Just(Ok(admitted())),
        Just(Ok(reply(Code::OverLimit, &[]))),
        bytes().prop_map(Ok),
        any::<u32>().prop_map(Err),
    ];
    prop_oneof![
        any::<bool>().prop_map(Happening::Request),
        replies.prop_map(Happening::Reply),
        any::<u16>().prop_map(Happening::Response),
        (bytes(), any::<bool>()).prop_map(|(chunk, end)| Happening::Passing(chunk, end)),
        (bytes(), any::<bool>()).prop_map(|(chunk, end)| Happening::Body(chunk, end)),
    ]
}

fn play(exchange: &mut Exchange, happening: Happening) -> Vec<Effect> {
    match happening {
        Happening::Request(bodiless) => {
            exchange.handle(Event::Request { facts: facts("/v1/chat/completions", Some("alice")), bodiless })
        }
        Happening::Reply(Ok(bytes)) => exchange.handle(Event::Reply(call::reply(Ok(&bytes)))),
        Happening::Reply(Err(status)) => exchange.handle(Event::Reply(Err(status.into()))),
        Happening::Response(status) => exchange.handle(Event::Response(json_head(status))),
        Happening::Passing(chunk, end) => exchange.handle(Event::Passing { chunk: &chunk, end }),
        Happening::Body(chunk, end) => exchange.handle(Event::Body { chunk: &chunk, end }),
    }
}

proptest! {
    /// For any events in any order, each reservation is either refused, or committed exactly once.
    #[test]
    fn every_reservation_ends_once(happenings in proptest::collection::vec(happening(), 0..12)) {
        let mut exchange = exchange("Allow");
        let mut effects: Vec<Effect> =
            happenings.into_iter().flat_map(|happening| play(&mut exchange, happening)).collect();
        effects.extend(exchange.handle(Event::Closed));
        let count = |wanted: fn(&Effect) -> bool| effects.iter().filter(|effect| wanted(effect)).count();
        let reserved = count(|effect| matches!(effect, Effect::Reserve(_)));
        let ended = count(|effect| matches!(effect, Effect::Commit(_) | Effect::Deny(_)));
        prop_assert!(reserved <= 1);
        prop_assert_eq!(ended, reserved);
        prop_assert!(exchange.is_over());
    }
}

/// Fetches the facts that a limit with these predicates needs. Returns the number of rounds, and the exchange
/// if the limit may apply.
fn gated(when: Value, facts: &Facts) -> (usize, Option<Exchange>) {
    gated_by(json!([]), when, facts)
}

/// Like [`gated`], with predicates of the policy, too.
fn gated_by(of_policy: Value, when: Value, facts: &Facts) -> (usize, Option<Exchange>) {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "failureMode": "Deny",
            "when": of_policy,
            "limits": {"chat": {"when": when, "rates": [{"limit": 1000, "window": "1h"}]}},
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]);
    let in_force = ActivePlan::Plan(Arc::new(plan));
    let asked = in_force.rounds().iter().take_while(|round| round.is_open(facts)).count();
    let (asked, concerned) = (in_force.rounds().len().min(asked + 1), asked == in_force.rounds().len());
    let id = ReservationId { prefix: "w".into(), number: 1 };
    (asked, concerned.then(|| Exchange::new(in_force, id)))
}

#[test]
fn a_request_that_no_limit_is_for_is_let_go_by_its_headers() {
    let chat = json!([
        {"predicate": "auth.identity.group == 'free'"},
        {"predicate": "request.path == '/v1/chat/completions'"},
    ]);
    let rounds = |when: &Value, path, identity: Option<Value>| {
        let mut facts = facts(path, None);
        identity.into_iter().for_each(|identity| facts.auth(json!({ "identity": identity })));
        let (rounds, exchange) = gated(when.clone(), &facts);
        (rounds, exchange.is_some())
    };
    let (free, gold) = (Some(json!({"group": "free"})), Some(json!({"group": "gold"})));
    assert_eq!(rounds(&chat, "/v1/models", free.clone()), (1, false));
    assert_eq!(rounds(&chat, "/v1/chat/completions", gold.clone()), (2, false), "by who is asking");
    assert_eq!(rounds(&chat, "/v1/chat/completions", None), (2, false));
    assert_eq!(rounds(&chat, "/v1/chat/completions", free.clone()), (3, true));
    let of_others = json!([{"predicate": "auth.identity.group == 'free'"}]);
    assert_eq!(rounds(&of_others, "/v1/models", gold.clone()), (1, false));
    assert_eq!(rounds(&of_others, "/v1/models", free.clone()), (2, true));
    let estimated = json!([{"predicate": "llm.estimate.total > 100 && auth.identity.group == 'free'"}]);
    assert_eq!(rounds(&estimated, "/v1/models", gold), (1, true), "who knows yet");
    assert_eq!(rounds(&json!([]), "/v1/models", free), (1, true), "every request is meant");
    let nothing = Plan::new(Vec::new());
    assert!(nothing.rounds()[0].needs().is_empty());
    assert!(!nothing.rounds()[0].is_open(&Facts::default()), "there is no policy at all");
}

#[test]
fn a_predicate_that_fails_beside_a_false_one_fails_nothing() {
    let failing = json!({"predicate": "request.headers['content-length'] == '1' || int(request.path) > 1"});
    let elsewhere = json!({"predicate": "request.path == '/v1/models' && auth.identity.userid != ''"});
    let user = json!({"predicate": "auth.identity.userid == 'bob'"});
    for when in [json!([failing, user]), json!([user, failing])] {
        assert!(gated(when, &facts("/v1/chat/completions", Some("alice"))).1.is_none());
    }
    let facts = facts("/v1/models", Some("alice"));
    let (_, exchange) = gated(json!([failing, elsewhere]), &facts);
    let mut exchange = exchange.expect("a predicate that fails is not false");
    let effects = exchange.handle(Event::Request { facts, bodiless: false });
    let doubt = "weir_in_doubt.policy.default/p.limit.chat.cause.predicate";
    assert_eq!(counted(&effects), [doubt], "{effects:?}");
    assert!(matches!(effects.last(), Some(Effect::Reserve(_))), "it counts as true: {effects:?}");
}

fn counted(effects: &[Effect]) -> Vec<String> {
    let name = |effect: &Effect| match effect {
        Effect::Count(count) => Some(count.name().into_owned()),
        _ => None,
    };
    effects.iter().filter_map(name).collect()
}

#[test]
fn a_limit_s_false_predicate_settles_it_whatever_fails_in_its_policy() {
    let fails = "int(request.path) > 1 || auth.identity.userid == 'bob'";
    let (passes, isnt) = ("auth.identity.userid == 'alice'", "auth.identity.userid == 'bob'");
    let absent = "auth.identity.plan == 'free'";
    // These facts are unknown until the request is judged.
    let (late_fails, late_isnt) = ("int(request.path) > llm.estimate.input", "llm.estimate.input > 1000000");
    let cases = [
        (late_fails, isnt, false),
        (late_fails, late_isnt, false),
        (late_isnt, late_fails, false),
        (late_fails, passes, true),
        (fails, isnt, false),
        (isnt, fails, false),
        (fails, absent, false),
        (absent, fails, false),
        (fails, passes, true),
        (passes, fails, true),
        (fails, fails, true),
    ];
    for (of_policy, own, expected) in cases {
        let one = |predicate| json!([{ "predicate": predicate }]);
        let facts = facts("/v1/chat/completions", Some("alice"));
        let (_, exchange) = gated_by(one(of_policy), one(own), &facts);
        let request = Event::Request { facts, bodiless: false };
        let effects = exchange.map(|mut exchange| exchange.handle(request)).unwrap_or_default();
        let applies = effects.iter().any(|effect| matches!(effect, Effect::Reserve(_)));
        assert_eq!(applies, expected, "{of_policy} and {own}: {effects:?}");
    }
}

#[test]
fn a_body_that_cannot_be_read_is_counted_for_each_limit_that_wants_it() {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": {
                "tokens": {"rates": [{"limit": 1000, "window": "1h"}, {"limit": 1000, "window": "1m"}]},
                "requests": {"rates": [{"limit": 1000, "window": "1h", "unit": "requests"}]},
                "users": {
                    "counters": [{"expression": "llm.user"}],
                    "rates": [{"limit": 1000, "window": "1h", "unit": "requests"}],
                },
                "elsewhere": {
                    "when": [{"predicate": "request.path == '/elsewhere'"}],
                    "rates": [{"limit": 1000, "window": "1h"}],
                },
            },
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]);
    let plan = Arc::new(plan.with_body(BodyAccess::Buffer(1 << 20)));
    let doubts = |body: &[u8], end: bool| -> Vec<String> {
        let id = ReservationId { prefix: "w".into(), number: 1 };
        let mut exchange = Exchange::new(ActivePlan::Plan(plan.clone()), id);
        let mut facts = facts("/v1/chat/completions", None);
        facts.header("content-type", b"application/json");
        exchange.handle(Event::Request { facts, bodiless: false });
        let effects = exchange.handle(Event::RequestBody { body, end });
        let name = |effect: &Effect| match effect {
            Effect::Count(count @ Metric::InDoubt { .. }) => Some(count.name().into_owned()),
            _ => None,
        };
        effects.iter().filter_map(name).filter(|name| !name.ends_with(".counter_failed")).collect()
    };
    let whole = br#"{"user":"u","messages":"hi"}"#;
    assert_eq!(doubts(whole, true), Vec::<String>::new());
    for (body, end, cause) in [(&whole[..27], true, "malformed"), (whole, false, "cut")] {
        let expected = ["tokens", "users"]
            .map(|limit| format!("weir_in_doubt.policy.default/p.limit.{limit}.cause.{cause}"));
        assert_eq!(doubts(body, end), expected);
    }
}

/// Builds a plan of one policy with a limit for each of these counters and units.
fn plan_of(limits: Value) -> Plan {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": limits,
        },
    });
    Plan::new(vec![Policy::read(&document).expect("a good policy")])
}

fn asked(plan: Plan, facts: Facts) -> Vec<Effect> {
    let id = ReservationId { prefix: "w".into(), number: 1 };
    let mut exchange = Exchange::new(ActivePlan::Plan(Arc::new(plan)), id);
    exchange.handle(Event::Request { facts, bodiless: true })
}

#[test]
fn more_rates_than_a_call_may_name_let_nothing_pass() {
    let limits = |count: usize| -> Value {
        let rates = json!([{"limit": 1000, "window": "1h", "unit": "requests"}]);
        (0..count).map(|index| (format!("l{index}"), json!({ "rates": rates }))).collect()
    };
    let request = || facts("/v1/chat/completions", Some("alice"));
    assert_eq!(reserve(&asked(plan_of(limits(300)), request())).descriptors.len(), 300);
    let effects = asked(plan_of(limits(4097)), request());
    assert_eq!(counted(&effects), ["weir_failed_closed.cause.too_many_rates"]);
    assert!(matches!(effects.last(), Some(Effect::Deny(denial)) if denial.status == 503), "{effects:?}");
    // With long values, fewer descriptors already make the call larger than the adapter accepts.
    let counters: Vec<Value> =
        (0..16).map(|index| json!({"expression": format!("request.headers['x-{index}']")})).collect();
    let rates = json!([{"limit": 1000, "window": "1h", "unit": "requests"}]);
    let long: Value =
        (0..200).map(|index| (format!("l{index}"), json!({"counters": counters, "rates": rates}))).collect();
    let mut request = request();
    (0..16).for_each(|index| request.header(&format!("x-{index}"), "a".repeat(500).as_bytes()));
    let effects = asked(plan_of(long), request);
    assert_eq!(counted(&effects), ["weir_failed_closed.cause.too_many_rates"]);
}

#[test]
fn a_request_counts_in_each_bucket_that_its_counters_name() {
    let limits = json!({"l": {
        "counters": [{"expression": "auth.identity.teams"}, {"expression": "request.headers['x-h'].split(',')"}],
        "rates": [{"limit": 1000, "window": "1h", "unit": "requests"}],
    }});
    let buckets = |teams: Value, header: Option<&str>| -> (Vec<String>, Vec<String>) {
        let mut facts = facts("/", None);
        facts.auth(json!({"identity": {"teams": teams}}));
        header.into_iter().for_each(|value| facts.header("x-h", value.as_bytes()));
        let effects = asked(plan_of(limits.clone()), facts);
        let call = effects.iter().find_map(|effect| match effect {
            Effect::Reserve(call) => Some(ReserveRequest::decode(&**call).unwrap()),
            _ => None,
        });
        let values = |descriptor: &RateLimitDescriptor| -> String {
            let counters = descriptor.entries.iter().skip(3).map(|entry| entry.value.as_str());
            counters.collect::<Vec<_>>().join("/")
        };
        let mut buckets: Vec<String> = call.unwrap().descriptors.iter().map(values).collect();
        buckets.sort();
        let causes = counted(&effects).into_iter().map(|name| name.rsplit('.').next().unwrap().to_owned());
        (buckets, causes.collect())
    };
    let told = |teams: Value, header: Option<&str>| {
        let (buckets, causes) = buckets(teams, header);
        (buckets.join(" "), causes.join(" "))
    };
    let case = |buckets: &str, causes: &str| (buckets.to_owned(), causes.to_owned());
    assert_eq!(told(json!(["a", "b", "a"]), Some("x,y")), case("a/x a/y b/x b/y", ""));
    assert_eq!(told(json!("a"), Some("x")), case("a/x", ""));
    assert_eq!(told(json!([]), Some("x")), case("null/x", "counter_absent"));
    assert_eq!(told(json!(null), None), case("null/null", "counter_absent counter_absent"));
    assert_eq!(told(json!({"a": 1}), Some("x")), case("null/x", "counter_failed"));
    assert_eq!(told(json!([["a"], null, "b"]), Some("x")), case("b/x null/x", "counter_failed"));
    assert_eq!(told(json!("null"), Some("\"")), case("\"null\"/\"\"\"", ""));
    let many: Vec<String> = (0..65).map(|index| index.to_string()).collect();
    assert_eq!(told(json!(many), Some("x")), case("null/x", "counter_too_long"));
    let some = many[..33].join(",");
    assert_eq!(told(json!(["a", "b"]), Some(&some)), case("null/null", "counter_too_long counter_too_long"));
}
