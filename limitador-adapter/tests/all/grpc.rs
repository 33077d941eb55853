//! Reserve and Commit over a real connection.

use crate::server::{POLICY, Server, commit, descriptor, reserve, whole};
use e2e::wait;
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, RaisedHolds, ReserveRequest};
use protocol::wire::weir::v1::{BucketUsage, GetUsageRequest};
use std::time::Duration;
use tonic::Code as Grpc;

async fn started() -> Server {
    Server::start(&[("llm.yaml", POLICY)]).await
}

#[tokio::test]
async fn a_reserve_holds_and_its_commit_charges_once() {
    let server = started().await;
    let mut client = server.kuadrant();
    let answer = client.reserve(reserve("a-1", whole(400, 1))).await.unwrap().into_inner();
    assert_eq!((answer.code(), answer.reservation_id.as_str()), (Code::Ok, "a-1"));
    let told: Vec<_> = answer.statuses.iter().map(|s| (s.code(), s.limit, s.remaining, s.reset_ms)).collect();
    let wanted =
        [(Code::Ok, 1000, 600, 3_600_000), (Code::Ok, 3, 2, 60_000), (Code::Ok, 100_000, 99_600, 86_400_000)];
    assert_eq!(told, wanted);
    assert_eq!(server.books("free", "tokens").await, [(0, 400)]);

    for (replay, released) in [(0, true), (1, false), (2, false)] {
        let answer = client.commit(commit("a-1", whole(150, 1))).await.unwrap().into_inner();
        assert_eq!((answer.reservation_released, answer.settled), (released, 1), "replay {replay}");
    }
    assert_eq!(server.books("free", "tokens").await, [(150, 0)]);
    assert_eq!(server.books("free", "requests").await, [(1, 0)]);
    assert_eq!(server.books("all", "tokens").await, [(150, 0)]);
    assert_eq!(server.metric(r#"weir_commits_total{outcome="replayed"}"#).await, 2.0);
    assert_eq!(
        server.metric(r#"weir_charged_total{policy="default/llm",limit="free",unit="tokens"}"#).await,
        150.0
    );
}

#[tokio::test]
async fn a_refusal_names_the_limits_without_room_and_holds_nothing() {
    let server = started().await;
    let mut client = server.kuadrant();
    for id in ["1", "2", "3"] {
        assert_eq!(client.reserve(reserve(id, whole(300, 1))).await.unwrap().into_inner().code(), Code::Ok);
    }
    let answer = client.reserve(reserve("4", whole(300, 1))).await.unwrap().into_inner();
    assert_eq!(answer.code(), Code::OverLimit);
    let told: Vec<_> = answer.statuses.iter().map(|status| (status.code(), status.remaining)).collect();
    assert_eq!(told, [(Code::OverLimit, 100), (Code::OverLimit, 0), (Code::Ok, 99_100)]);
    assert_eq!(server.books("all", "tokens").await, [(0, 900)]);
    // Refusals count once per limit, even if several rates of the limit refuse.
    assert_eq!(server.metric(r#"weir_refusals_total{policy="default/llm",limit="free"}"#).await, 1.0);
    assert_eq!(server.metric(r#"weir_reserves_total{outcome="refused"}"#).await, 1.0);
}

#[tokio::test]
async fn a_late_reserve_is_admitted_and_holds_nothing() {
    let server = started().await;
    let mut client = server.kuadrant();
    let answer = client.commit(commit("late", whole(70, 1))).await.unwrap().into_inner();
    assert_eq!((answer.reservation_released, answer.settled), (false, 1));
    let answer = client.reserve(reserve("late", whole(400, 1))).await.unwrap().into_inner();
    assert_eq!(answer.code(), Code::Ok);
    assert_eq!(server.books("free", "tokens").await, [(70, 0)]);
    assert_eq!(server.books("free", "requests").await, [(1, 0)]);
    assert_eq!(server.metric(r#"weir_reserves_total{outcome="late"}"#).await, 1.0);
    assert_eq!(server.metric(r#"weir_commits_total{outcome="unknown"}"#).await, 1.0);
}

#[tokio::test]
async fn a_request_that_never_went_on_costs_nothing() {
    let server = started().await;
    let mut client = server.kuadrant();
    client.reserve(reserve("1", whole(400, 1))).await.unwrap();
    client.commit(commit("1", whole(0, 0))).await.unwrap();
    assert_eq!(server.json("/api/counters").await, serde_json::json!([]));
}

#[tokio::test]
async fn one_call_settles_many() {
    let server = started().await;
    let mut client = server.kuadrant();
    client.reserve(reserve("1", whole(100, 1))).await.unwrap();
    client.reserve(reserve("2", whole(100, 1))).await.unwrap();
    let further = vec![commit("2", whole(20, 1)), commit("1", whole(10, 1)), commit("3", whole(40, 1))];
    let batch = CommitRequest { further, ..commit("1", whole(10, 1)) };
    let answer = client.commit(batch).await.unwrap().into_inner();
    assert_eq!((answer.reservation_released, answer.settled), (true, 4));
    assert_eq!(server.books("free", "tokens").await, [(70, 0)]);
}

#[tokio::test]
async fn a_raise_travels_with_any_commit_and_tells_what_has_no_room() {
    let server = started().await;
    let mut client = server.kuadrant();
    client.reserve(reserve("1", whole(100, 1))).await.unwrap();
    client.reserve(reserve("2", whole(100, 1))).await.unwrap();
    let raised =
        |id: &str, total| RaisedHolds { reservation_id: id.to_owned(), descriptors: whole(total, 1) };
    let alone = CommitRequest { raised: vec![raised("1", 700)], ..CommitRequest::default() };
    let answer = client.commit(alone).await.unwrap().into_inner();
    assert_eq!((answer.settled, answer.out_of_room), (0, vec![]));
    assert_eq!(server.books("free", "tokens").await, [(0, 800)]);
    // Raises are handled before the commit in the same call.
    let raised = vec![raised("2", 400), raised("unknown", 5000)];
    let beside = CommitRequest { raised, ..commit("1", whole(50, 1)) };
    let answer = client.commit(beside).await.unwrap().into_inner();
    assert_eq!((answer.reservation_released, answer.settled), (true, 1));
    assert_eq!(answer.out_of_room, ["2"]);
    assert_eq!(server.books("free", "tokens").await, [(50, 400)]);
    for (outcome, count) in [("held", 1.0), ("out_of_room", 1.0), ("unknown", 1.0)] {
        assert_eq!(server.metric(&format!(r#"weir_raises_total{{outcome="{outcome}"}}"#)).await, count);
    }
}

#[tokio::test]
async fn a_limit_that_nobody_knows_is_told_and_lifts_no_other() {
    let server = started().await;
    let mut client = server.kuadrant();
    for (number, unknown) in [
        descriptor("default/llm/gold", Some(("tokens", "3600s")), Some(1)),
        descriptor("default/llm/free", Some(("tokens", "60s")), Some(1)),
        descriptor("default/llm/free", Some(("bananas", "3600s")), Some(1)),
        Default::default(),
    ]
    .into_iter()
    .enumerate()
    {
        let mut descriptors = whole(100, 1);
        descriptors.insert(1, unknown);
        let id = number.to_string();
        let answer = client.reserve(reserve(&id, descriptors.clone())).await.unwrap().into_inner();
        let told: Vec<_> = answer.statuses.iter().map(|status| status.code()).collect();
        if number < 3 {
            assert_eq!(answer.code(), Code::Ok);
            assert_eq!(told, [Code::Ok, Code::Unknown, Code::Ok, Code::Ok]);
        } else {
            assert_eq!(answer.code(), Code::OverLimit, "three requests, and this is the fourth");
            assert_eq!(told, [Code::Ok, Code::Unknown, Code::OverLimit, Code::Ok]);
        }
    }
    assert_eq!(server.books("free", "tokens").await, [(0, 300)]);
    assert_eq!(server.metric(r#"weir_unknown_limits_total{call="Reserve"}"#).await, 4.0);

    // The charges of the other reservations are not lost.
    let mut descriptors = whole(100, 1);
    descriptors.insert(0, descriptor("default/llm/gold", None, Some(5)));
    assert_eq!(client.commit(commit("1", descriptors)).await.unwrap().into_inner().settled, 1);
    assert_eq!(server.books("free", "tokens").await, [(100, 200)]);
    assert_eq!(server.metric(r#"weir_unknown_limits_total{call="Commit"}"#).await, 1.0);
}

#[tokio::test]
async fn a_stock_client_needs_neither_ids_nor_rates_nor_amounts_of_its_own() {
    let server = started().await;
    let mut client = server.kuadrant();
    let descriptors = vec![descriptor("default/llm/free", None, None)];
    let request = ReserveRequest { amount: 90, ..reserve("", descriptors.clone()) };
    let answer = client.reserve(request).await.unwrap().into_inner();
    assert_eq!(answer.code(), Code::Ok);
    assert!(!answer.reservation_id.is_empty());
    assert_eq!(
        (answer.statuses.len(), answer.statuses[0].limit),
        (1, 3),
        "the strictest of the limit's rates"
    );
    assert_eq!(server.books("free", "tokens").await, [(0, 90)]);
    let request = CommitRequest { actual_amount: 60, ..commit(&answer.reservation_id, descriptors.clone()) };
    assert!(client.commit(request).await.unwrap().into_inner().reservation_released);
    assert_eq!(server.books("free", "tokens").await, [(60, 0)]);
    assert_eq!(server.books("free", "requests").await, [(1, 0)]);
    // Without an id, repetitions cannot be recognised.
    for used in [61, 62] {
        client.commit(CommitRequest { actual_amount: 1, ..commit("", descriptors.clone()) }).await.unwrap();
        assert_eq!(server.books("free", "tokens").await, [(used, 0)]);
    }
}

#[tokio::test]
async fn absurd_amounts_and_times_are_answered() {
    let server = started().await;
    let mut client = server.kuadrant();
    let mut descriptors = whole(u64::MAX, u64::MAX);
    descriptors.iter_mut().for_each(|descriptor| descriptor.ttl_ms = u64::MAX);
    let ttl = Some(prost_types::Duration { seconds: i64::MIN, nanos: i32::MAX });
    let request = ReserveRequest { amount: u64::MAX, ttl, ..reserve("1", descriptors.clone()) };
    assert_eq!(client.reserve(request).await.unwrap().into_inner().code(), Code::OverLimit);
    for id in ["1", "2"] {
        assert_eq!(client.commit(commit(id, descriptors.clone())).await.unwrap().into_inner().settled, 1);
    }
    assert_eq!(server.books("free", "tokens").await, [(u64::MAX, 0)]);
    assert_eq!(client.reserve(reserve("3", whole(0, 0))).await.unwrap().into_inner().code(), Code::OverLimit);
}

#[tokio::test]
async fn absurd_holds_that_nothing_refuses_free_nobody_else_s() {
    let server = started().await;
    let mut client = server.kuadrant();
    client.reserve(reserve("1", whole(900, 1))).await.unwrap();
    let dry = |amount| {
        let tokens = descriptor("default/llm/free", Some(("tokens", "3600s")), Some(amount));
        vec![RateLimitDescriptor { unenforced: true, ..tokens }]
    };
    for id in ["2", "3"] {
        let answer = client.reserve(reserve(id, dry(u64::MAX))).await.unwrap().into_inner();
        assert_eq!((answer.code(), answer.statuses[0].code()), (Code::Ok, Code::Ok));
    }
    assert_eq!(server.metric(r#"weir_excused_total{policy="default/llm",limit="free"}"#).await, 2.0);
    for id in ["2", "3"] {
        client.commit(commit(id, dry(0))).await.unwrap();
    }
    assert_eq!(server.books("free", "tokens").await, [(0, 900)]);
}

#[tokio::test]
async fn too_much_in_one_call_is_an_error_that_says_so() {
    let server = started().await;
    let mut client = server.kuadrant();
    let many = |count| vec![descriptor("default/llm/all", None, None); count];
    client.reserve(reserve("0", many(4096))).await.unwrap();
    let many = many(4097);
    let error = client.reserve(reserve("1", many)).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Grpc::InvalidArgument, "a call may have at most 4096 descriptors")
    );
    let further = vec![commit("1", vec![]); 4096];
    let error = client.commit(CommitRequest { further, ..commit("2", vec![]) }).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Grpc::InvalidArgument, "a commit may end at most 4096 reservations")
    );
}

#[tokio::test]
async fn a_hold_lapses_with_its_ttl() {
    let server = started().await;
    let mut client = server.kuadrant();
    let mut descriptors = whole(900, 1);
    descriptors.iter_mut().for_each(|descriptor| descriptor.ttl_ms = 50);
    client.reserve(reserve("1", descriptors)).await.unwrap();
    let start = std::time::Instant::now();
    while server.books("free", "tokens").await != [(900, 0)] {
        assert!(start.elapsed() < wait::DEADLINE);
    }
    assert!(start.elapsed() >= Duration::from_millis(30));
    // The usage arrives after all, and leaves room for the next request.
    let next = || reserve("2", whole(900, 1));
    assert_eq!(client.reserve(next()).await.unwrap().into_inner().code(), Code::OverLimit);
    client.commit(commit("1", whole(100, 1))).await.unwrap();
    assert_eq!(client.reserve(next()).await.unwrap().into_inner().code(), Code::Ok);
    assert_eq!(server.books("free", "tokens").await, [(100, 900)]);
}

#[tokio::test]
async fn users_for_whom_there_is_no_room_share_an_overflow_bucket_that_is_shown_as_such() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
    let server = Server::with(vec![folder.path().to_owned()], folder, 1).await;
    let mut client = server.kuadrant();
    let of = |user: &str, amount| {
        let mut descriptor = descriptor("default/llm/free", Some(("tokens", "3600s")), Some(amount));
        descriptor.entries.last_mut().unwrap().value = user.to_owned();
        vec![descriptor]
    };
    let mut codes = Vec::new();
    for (user, amount) in [("a", 10), ("b", 600), ("overflow", 300), ("c", 200), ("a", 990)] {
        let id = format!("{user}-{amount}");
        codes.push(client.reserve(reserve(&id, of(user, amount))).await.unwrap().into_inner().code());
    }
    // 1000 for each of the users with a counter, and 1000 for all other users together.
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::Ok, Code::OverLimit, Code::Ok]);
    let counters = server.json("/api/counters").await;
    let told: Vec<_> = counters
        .as_array()
        .unwrap()
        .iter()
        .map(|counter| (counter["counters"].clone(), counter["overflow"].clone(), counter["held"].clone()))
        .collect();
    let (nobody, alone) = (serde_json::json!({}), serde_json::json!({ "auth.identity.userid": "a" }));
    assert_eq!(told, [(nobody, true.into(), 900.into()), (alone, serde_json::Value::Null, 1000.into())]);
    let overflowed = server.metric(r#"weir_overflowed_total{policy="default/llm",limit="free"}"#).await;
    assert_eq!(overflowed, 3.0);
    // No caller can name the overflow bucket.
    let mut forged = of("overflow", 1);
    forged[0].entries.last_mut().unwrap().key = String::new();
    let answer = client.reserve(reserve("forged", forged)).await.unwrap().into_inner();
    assert_eq!((answer.code(), answer.statuses[0].code()), (Code::Ok, Code::Unknown));
    assert_eq!(server.json("/api/counters").await, counters, "and it counts nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_at_once_are_ten() {
    let server = started().await;
    let mut calls = tokio::task::JoinSet::new();
    for id in 0..64 {
        let mut client = server.kuadrant();
        let descriptors = vec![descriptor("default/llm/free", Some(("tokens", "3600s")), Some(100))];
        calls.spawn(async move {
            client.reserve(reserve(&id.to_string(), descriptors)).await.unwrap().into_inner()
        });
    }
    let admitted = calls.join_all().await.iter().filter(|answer| answer.code() == Code::Ok).count();
    assert_eq!(admitted, 10);
    assert_eq!(server.books("free", "tokens").await, [(0, 1000)]);
}

#[tokio::test]
async fn usage_is_read_after_what_has_ended_and_costs_nothing() {
    let server = started().await;
    let mut client = server.usage();
    server.kuadrant().reserve(reserve("a-1", whole(400, 1))).await.unwrap();
    server.kuadrant().reserve(reserve("a-2", whole(300, 1))).await.unwrap();
    let free = descriptor("default/llm/free", Some(("tokens", "3600s")), None);
    let descriptors = vec![free, descriptor("default/llm/gone", None, None)];
    let ask = GetUsageRequest { descriptors, commits: vec![commit("a-1", whole(150, 1))] };
    for _ in 0..3 {
        let answer = client.get_usage(ask.clone()).await.unwrap().into_inner();
        let [free, gone] = answer.buckets.as_slice() else { panic!("{answer:?}") };
        assert_eq!((free.max, free.used, free.held, free.remaining), (1000, 150, 300, 550));
        assert!(free.known && free.reset_ms > 3_590_000, "{free:?}");
        assert_eq!(*gone, BucketUsage::default());
    }
    assert_eq!(server.books("free", "tokens").await, [(150, 300)]);
    assert_eq!(server.books("free", "requests").await, [(2, 0)]);
}
