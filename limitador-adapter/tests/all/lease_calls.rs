//! Leases through the services: what is granted, what is recalled, and who gets the room.

use crate::server::{DEADLINE, POLICY, Server, commit, descriptor, reserve};
use crate::stream::Stream;
use e2e::redis::Redis;
use protocol::wire::envoy::extensions::common::ratelimit::v3::{LeaseDraw, RateLimitDescriptor};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{
    CommitRequest, GrantedLease, ReserveRequest, ReserveResponse,
};
use protocol::wire::weir::v1::ReserveAndCommitRequest;
use serde_json::Value;
use std::time::{Duration, Instant};

const WORKER: &str = "0123456789abcdef0123456789abcdef";

/// Returns the descriptor of the shared limit, which has 100,000 tokens.
fn shared(amount: u64) -> RateLimitDescriptor {
    descriptor("default/llm/all", Some(("tokens", "86400s")), Some(amount))
}

fn id(number: u64) -> String {
    format!("{WORKER}-{number:x}")
}

fn lease(number: u64, amount: u64) -> ReserveRequest {
    ReserveRequest { lease: true, ..reserve(&id(number), vec![shared(amount)]) }
}

async fn asked(server: &Server, request: ReserveRequest) -> ReserveResponse {
    server.kuadrant().reserve(request).await.unwrap().into_inner()
}

async fn granted(server: &Server, number: u64, amount: u64) -> u64 {
    let response = asked(server, lease(number, amount)).await;
    response.lease.map_or(0, |lease| lease.amount)
}

/// Returns (used, held, leased) of the shared limit.
async fn books(server: &Server) -> (u64, u64, u64) {
    let counters = server.json("/api/counters").await;
    let all = counters.as_array().unwrap().iter().find(|counter| counter["limit"] == "all");
    let number = |name: &str| all.map_or(0, |all| all[name].as_u64().unwrap());
    (number("used"), number("held"), number("leased"))
}

#[tokio::test]
async fn a_lease_is_a_twentieth_of_what_is_left_at_most() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let response = asked(&server, lease(1, 1_000_000)).await;
    assert_eq!(response.code(), Code::OverLimit, "5000 would be too little");
    let response = asked(&server, lease(2, 6_000)).await;
    let GrantedLease { amount, ttl_ms, counter } = response.lease.unwrap();
    assert_eq!((response.code(), amount, ttl_ms), (Code::Ok, 5_000, 10_000));
    assert_eq!((response.statuses[0].limit, response.statuses[0].remaining), (100_000, 95_000));
    assert_ne!(counter, 0);
    assert_eq!(books(&server).await, (0, 5_000, 5_000));
    assert_eq!(granted(&server, 3, 6_000).await, 4_750, "of the rest");
    assert_eq!(granted(&server, 4, 10).await, 10);
    assert_eq!(server.metric("weir_leases_total{outcome=\"granted\"}").await, 3.0);
    assert_eq!(server.metric("weir_leases_total{outcome=\"refused\"}").await, 1.0);
}

#[tokio::test]
async fn a_limit_may_forbid_leases_and_a_lease_is_of_one_counter() {
    let never = POLICY.replace("    all:\n", "    all:\n      lease: Never\n");
    let server = Server::start(&[("llm.yaml", &never)]).await;
    assert_eq!(asked(&server, lease(1, 10)).await.code(), Code::OverLimit);
    let two = ReserveRequest { descriptors: vec![shared(1), shared(1)], ..lease(2, 10) };
    let error = server.kuadrant().reserve(two).await.unwrap_err();
    assert_eq!(error.message(), "a lease is of one counter");
    let unknown = vec![descriptor("default/llm/gone", None, Some(1))];
    let unknown = ReserveRequest { descriptors: unknown, ..lease(3, 10) };
    assert_eq!(server.kuadrant().reserve(unknown).await.unwrap_err().message(), "a lease is of one counter");
}

#[tokio::test]
async fn what_was_admitted_from_a_lease_leaves_it_and_is_charged_once() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    assert_eq!(granted(&server, 1, 1_000).await, 1_000);
    let draw = |amount| Some(LeaseDraw { lease: 1, amount });
    let ended = commit(&id(2), vec![RateLimitDescriptor { draw: draw(70), ..shared(70) }]);
    let running = reserve(&id(3), vec![RateLimitDescriptor { draw: draw(200), ..shared(200) }]);
    let both = CommitRequest { admitted: vec![running], further: vec![ended], ..Default::default() };
    for _ in 0..2 {
        let response = server.kuadrant().commit(both.clone()).await.unwrap().into_inner();
        assert_eq!(response.settled, 2);
        assert_eq!(books(&server).await, (70, 930, 730));
    }
    let response = server.kuadrant().commit(commit(&id(3), vec![shared(150)])).await.unwrap().into_inner();
    assert!(response.reservation_released);
    server.kuadrant().commit(commit(&id(1), Vec::new())).await.unwrap();
    assert_eq!(books(&server).await, (220, 0, 0));
    assert_eq!(server.metric("weir_commits_total{outcome=\"leased\"}").await, 1.0);
    assert_eq!(server.metric("weir_leased_running_total").await, 2.0);
}

/// A worker with a lease at one adapter, and a call that needs its room at another one.
async fn the_room_of_a_lease_goes_to_whoever_needs_it(of_worker: &Server, of_caller: &Server) {
    let begun = Instant::now();
    // On Redis, there are no leases before the adapter hears of recalls.
    while granted(of_worker, 1, 5_000).await != 5_000 {
        assert!(begun.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut stream = Stream::open(of_worker).await;
    let all_the_rest = ReserveRequest { recall_ms: 50, ..reserve("caller", vec![shared(99_000)]) };
    loop {
        let mut client = of_caller.kuadrant();
        let request = all_the_rest.clone();
        let call = tokio::spawn(async move { client.reserve(request).await.unwrap().into_inner() });
        let recalled = tokio::time::timeout(Duration::from_millis(40), stream.hear()).await;
        if let Ok(answer) = recalled {
            let answer = answer.unwrap();
            assert_eq!((answer.number, answer.recalled.len()), (0, 1));
            let request = ReserveAndCommitRequest {
                number: 1,
                commit: Some(commit(&id(1), Vec::new())),
                ..Default::default()
            };
            stream.requests.send(request).unwrap();
            assert_eq!(call.await.unwrap().code(), Code::Ok);
            assert_eq!(of_caller.metric("weir_recalls_total{outcome=\"room\"}").await, 1.0);
            return;
        }
        // A busy machine may deliver it too late.
        assert_eq!(call.await.unwrap().code(), Code::OverLimit);
        assert!(begun.elapsed() < DEADLINE);
    }
}

#[tokio::test]
async fn a_refusal_recalls_leases() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    the_room_of_a_lease_goes_to_whoever_needs_it(&server, &server).await;
}

#[tokio::test]
async fn a_refusal_recalls_leases_at_other_adapters() {
    let redis = Redis::start();
    let (one, other) = (Server::on(&redis).await, Server::on(&redis).await);
    the_room_of_a_lease_goes_to_whoever_needs_it(&one, &other).await;
}

#[tokio::test]
async fn a_caller_that_does_not_say_how_long_it_waits_is_refused_at_once() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    assert_eq!(granted(&server, 1, 5_000).await, 5_000);
    let mut stream = Stream::open(&server).await;
    assert_eq!(asked(&server, reserve("caller", vec![shared(99_000)])).await.code(), Code::OverLimit);
    assert_eq!(stream.hear().await.unwrap().recalled.len(), 1);
    let end = ReserveAndCommitRequest {
        number: 1,
        commit: Some(commit(&id(1), Vec::new())),
        ..ReserveAndCommitRequest::default()
    };
    stream.requests.send(end).unwrap();
    assert!(stream.hear().await.unwrap().commit.unwrap().reservation_released);
    assert_eq!(asked(&server, reserve("caller", vec![shared(99_000)])).await.code(), Code::Ok);
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_leases_that_cannot_help() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let user = |amount| descriptor("default/llm/free", Some(("tokens", "3600s")), Some(amount));
    assert_eq!(granted(&server, 1, 5_000).await, 5_000);
    asked(&server, reserve("a", vec![user(1_000)])).await;
    let mut stream = Stream::open(&server).await;
    // The user's own limit is full.
    let refused = asked(&server, reserve("b", vec![user(1), shared(1)])).await;
    assert_eq!(refused.code(), Code::OverLimit);
    let quiet = tokio::time::timeout(Duration::from_millis(100), stream.hear()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(server.metric("weir_recalls_total{outcome=\"no_room\"}").await, 0.0);
}

#[tokio::test]
async fn leases_can_be_turned_off() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
    let storage = limitador_adapter::cli::Storage::Memory;
    let mut config = Server::config(vec![folder.path().to_owned()], 10_000, storage);
    config.lease_percent = 0;
    let server = Server::configured(folder, config).await;
    assert_eq!(granted(&server, 1, 1).await, 0);
    assert_eq!(server.json("/api/counters").await, Value::Array(Vec::new()));
}
