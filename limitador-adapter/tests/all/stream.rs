//! Reserves and commits in one stream.

use crate::lapses::slot;
use crate::server::{DEADLINE, POLICY, Server, commit, reserve, whole};
use e2e::redis::Redis;
use limitador_adapter::cli::Storage;
use limitador_adapter::grpc::workers::{DEPARTURE, StreamEnd, Workers};
use limitador_adapter::ledger::Ledger;
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveRequest;
use protocol::wire::weir::v1::{ReserveAndCommitRequest, ReserveAndCommitResponse};
use rusqlite::Connection;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code as Grpc, Status, Streaming};

pub struct Stream {
    pub requests: mpsc::UnboundedSender<ReserveAndCommitRequest>,
    answers: Streaming<ReserveAndCommitResponse>,
}

impl Stream {
    /// Opens a stream and waits for the greeting.
    pub async fn open(server: &Server) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let answers = server.reservations().reserve_and_commit(UnboundedReceiverStream::new(receiver)).await;
        let mut stream = Self { requests, answers: answers.unwrap().into_inner() };
        assert_eq!(
            stream.hear().await,
            Some(ReserveAndCommitResponse { grants_leases: true, ..Default::default() })
        );
        stream
    }

    pub async fn hear(&mut self) -> Option<ReserveAndCommitResponse> {
        self.answers.message().await.unwrap()
    }
}

fn holding(number: u64, id: &str) -> ReserveAndCommitRequest {
    ReserveAndCommitRequest { number, reserve: Some(reserve(id, whole(400, 1))), ..Default::default() }
}

#[tokio::test]
async fn each_request_is_answered_by_its_number() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let mut stream = Stream::open(&server).await;
    stream.requests.send(holding(7, "a")).unwrap();
    let answer = stream.hear().await.unwrap();
    assert_eq!((answer.number, answer.reserve.unwrap().code(), answer.commit), (7, Code::Ok, None));

    let both = ReserveAndCommitRequest { commit: Some(commit("a", whole(150, 1))), ..holding(8, "b") };
    stream.requests.send(both).unwrap();
    let answer = stream.hear().await.unwrap();
    assert_eq!((answer.number, answer.reserve.unwrap().code()), (8, Code::Ok));
    assert_eq!(answer.commit.unwrap().settled, 1);
    assert_eq!(server.books("free", "tokens").await, [(150, 400)]);
}

#[tokio::test]
async fn a_reserve_does_not_wait_until_the_commit_beside_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.db");
    let server = Server::patient(Storage::Sqlite(file.clone()), Duration::from_secs(35)).await;
    let mut stream = Stream::open(&server).await;
    stream.requests.send(holding(1, "a")).unwrap();
    assert_eq!(stream.hear().await.unwrap().reserve.unwrap().code(), Code::Ok);
    // While another program locks the file, nothing can be written.
    let other = Connection::open(file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let both = ReserveAndCommitRequest { commit: Some(commit("a", whole(150, 1))), ..holding(2, "b") };
    stream.requests.send(both).unwrap();
    let first = stream.hear().await.unwrap();
    assert_eq!((first.number, first.reserve.unwrap().statuses[0].remaining), (2, 450));
    assert_eq!((first.commit, first.commit_status), (None, 0));
    other.execute_batch("ROLLBACK").unwrap();
    let second = stream.hear().await.unwrap();
    assert_eq!((second.number, second.reserve, second.reserve_status), (2, None, 0));
    assert_eq!(second.commit.unwrap().settled, 1);
}

#[tokio::test]
async fn a_request_that_fails_has_a_status_and_the_stream_goes_on() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let mut stream = Stream::open(&server).await;
    let mut absurd = holding(1, "a");
    let descriptors = &mut absurd.reserve.as_mut().unwrap().descriptors;
    *descriptors = descriptors.iter().cycle().take(5_000).cloned().collect();
    stream.requests.send(absurd).unwrap();
    let answer = stream.hear().await.unwrap();
    let statuses = (answer.reserve_status, answer.commit_status);
    assert_eq!((answer.number, answer.reserve, statuses), (1, None, (Grpc::InvalidArgument as u32, 0)));
    stream.requests.send(holding(2, "b")).unwrap();
    assert_eq!(stream.hear().await.unwrap().reserve.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn a_drain_ends_a_stream_well() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let mut stream = Stream::open(&server).await;
    let draining = tokio::spawn(server.serving.drain());
    let ended: Result<Option<_>, Status> = stream.answers.message().await;
    assert_eq!(ended.unwrap(), None);
    draining.await.unwrap();
}

/// Sends each request as soon as the previous one has settled. There is room for only one at a time.
async fn is_never_refused_by_its_own_last_request(server: &Server, together: bool) {
    let mut stream = Stream::open(server).await;
    let whole_limit = |number: u64| ReserveAndCommitRequest {
        number,
        reserve: Some(reserve(&number.to_string(), whole(1000, 0))),
        ..Default::default()
    };
    stream.requests.send(whole_limit(1)).unwrap();
    assert_eq!(stream.hear().await.unwrap().reserve.unwrap().code(), Code::Ok);
    for number in 2..100 {
        let before = Some(commit(&(number - 1).to_string(), whole(0, 0)));
        let mut next = whole_limit(number);
        if together {
            next.commit = before;
        } else {
            let alone =
                ReserveAndCommitRequest { number: number + 1000, commit: before, ..Default::default() };
            stream.requests.send(alone).unwrap();
        }
        stream.requests.send(next).unwrap();
        loop {
            let answer = stream.hear().await.unwrap();
            if let Some(reserve) = answer.reserve {
                assert_eq!((reserve.code(), answer.number), (Code::Ok, number), "together: {together}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_reserve_is_judged_after_the_commits_that_were_sent_before_it() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    is_never_refused_by_its_own_last_request(&server, true).await;
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    is_never_refused_by_its_own_last_request(&server, false).await;
    let redis = Redis::start();
    is_never_refused_by_its_own_last_request(&Server::on(&redis).await, false).await;
    redis.command(&["FLUSHALL"]);
    is_never_refused_by_its_own_last_request(&Server::on(&redis).await, true).await;
}

#[tokio::test]
async fn a_reserve_of_its_own_brings_what_is_to_be_settled_before_it() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let mut client = server.kuadrant();
    let hold = |id: &str| reserve(id, whole(1000, 0));
    assert_eq!(client.reserve(hold("1")).await.unwrap().into_inner().code(), Code::Ok);
    assert_eq!(client.reserve(hold("2")).await.unwrap().into_inner().code(), Code::OverLimit);
    let commits = vec![commit("1", whole(0, 0)), commit("0", whole(0, 0))];
    let carrying = ReserveRequest { commits: commits.clone(), ..hold("3") };
    assert_eq!(client.reserve(carrying).await.unwrap().into_inner().code(), Code::Ok);
    // The Reserve carried copies, so the commits themselves are still sent.
    client.commit(commits[0].clone()).await.unwrap();
    assert_eq!(server.books("free", "tokens").await, [(0, 1000)]);
}

/// A worker opens a stream, holds an amount and disconnects.
async fn its_holds_end(server: &Server) {
    let workers = [1_u8, 2].map(|worker| format!("{worker:032x}"));
    let (mut dying, mut living) = (Stream::open(server).await, Stream::open(server).await);
    for (number, (worker, stream)) in workers.iter().zip([&mut dying, &mut living]).enumerate() {
        let hello = ReserveAndCommitRequest { worker: worker.clone(), ..Default::default() };
        stream.requests.send(hello).unwrap();
        assert_eq!(stream.hear().await, Some(ReserveAndCommitResponse::default()));
        stream.requests.send(holding(number as u64 + 1, &format!("{worker}-1"))).unwrap();
        assert_eq!(stream.hear().await.unwrap().reserve.unwrap().code(), Code::Ok);
    }
    assert_eq!(server.books("free", "tokens").await, [(0, 800)]);
    drop(dying);
    let start = Instant::now();
    // What it held is charged, since its usage is not known.
    while server.books("free", "tokens").await != [(400, 400)] {
        assert!(start.elapsed() < DEADLINE, "{:?}", server.books("free", "tokens").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.metric("weir_gone_reservations_total").await, 1.0);
    // The worker returns after all, and its usage replaces that charge.
    server.kuadrant().commit(commit(&format!("{}-1", workers[0]), whole(150, 1))).await.unwrap();
    tokio::time::sleep(GRACE * 2).await;
    assert_eq!(server.books("free", "tokens").await, [(150, 400)]);
    drop(living);
}

const GRACE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn the_holds_of_a_worker_that_has_gone_end_long_before_they_lapse() {
    its_holds_end(&Server::patient(Storage::Memory, GRACE).await).await;
    let redis = Redis::start();
    its_holds_end(&Server::patient(redis.url(0).parse().unwrap(), GRACE).await).await;
}

/// Returns the milliseconds until a worker counts as gone.
fn lives(redis: &Redis, worker: &str) -> i64 {
    let until: i64 = redis.command(&["ZSCORE", "{weir}:workers", worker]).parse().unwrap();
    let now = redis.command(&["TIME"]);
    let (seconds, micros) = now.split_once('\n').unwrap();
    until - seconds.parse::<i64>().unwrap() * 1_000 - micros.parse::<i64>().unwrap() / 1_000
}

#[tokio::test]
async fn a_worker_has_less_time_to_return_if_it_has_closed_its_stream() {
    let redis = Redis::start();
    let server = Server::on(&redis).await;
    let workers = [1_u8, 2].map(|worker| format!("{worker:032x}"));
    let (mut closed, mut drained) = (Stream::open(&server).await, Stream::open(&server).await);
    for (worker, stream) in workers.iter().zip([&mut closed, &mut drained]) {
        let hello = ReserveAndCommitRequest { worker: worker.clone(), ..Default::default() };
        stream.requests.send(hello).unwrap();
        assert_eq!(stream.hear().await, Some(ReserveAndCommitResponse::default()));
    }
    let departure = i64::try_from(DEPARTURE.as_millis()).unwrap();
    drop(closed);
    let start = Instant::now();
    while lives(&redis, &workers[0]) > departure {
        assert!(start.elapsed() < DEADLINE, "{}", lives(&redis, &workers[0]));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.serving.drain().await;
    assert!(drained.hear().await.is_none());
    assert!(lives(&redis, &workers[1]) > departure);
}

#[tokio::test]
async fn a_worker_that_returns_has_its_full_time_again() {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(100_usize, Moment::now()));
    let workers = Workers::new(Arc::clone(&ledger), DEPARTURE * 6);
    let names = [1_u8, 2, 3].map(|worker| format!("{worker:032x}"));
    let [gone, returned, ended] = &names;
    for worker in &names {
        let hold = slot(worker);
        assert!(ledger.reserve(&format!("{worker}-1"), vec![hold], Moment::now()).await.unwrap().admitted);
    }
    let enter = |worker: &String, end: &StreamEnd| workers.enter(worker, end.clone()).unwrap();
    let theirs = StreamEnd::default();
    let first = [gone, returned].map(|worker| enter(worker, &theirs));
    let ours = StreamEnd::default();
    let other = enter(ended, &ours);
    workers.confirm().await.unwrap();
    drop(first);
    ours.set_ours();
    drop(other);
    workers.confirm().await.unwrap();
    let _again = enter(returned, &theirs);
    workers.confirm().await.unwrap();
    assert_eq!(ledger.release_gone(Moment::now() + DEPARTURE).await, Ok(1));
    assert_eq!(ledger.size().await.unwrap().reservations, 2);
}

#[tokio::test]
async fn a_worker_that_finds_another_adapter_keeps_its_holds() {
    let redis = Redis::start();
    let place = || redis.url(0).parse().unwrap();
    let (one, other) = (Server::patient(place(), GRACE).await, Server::patient(place(), GRACE).await);
    let worker = format!("{:032x}", 7);
    let hello = || ReserveAndCommitRequest { worker: worker.clone(), ..Default::default() };
    let mut first = Stream::open(&one).await;
    first.requests.send(hello()).unwrap();
    first.requests.send(holding(1, &format!("{worker}-1"))).unwrap();
    while first.hear().await.unwrap().reserve.is_none() {}
    let second = Stream::open(&other).await;
    second.requests.send(hello()).unwrap();
    drop(first);
    tokio::time::sleep(GRACE * 4).await;
    assert_eq!(other.books("free", "tokens").await, [(0, 400)]);
}
