//! Measures a real adapter over its stream, as filters use it, with each storage on this machine.
//!
//! The callers, the adapter and the storage share the machine's cores. So the CPU time per pair shows what a
//! machine of its own can do, not the pairs per second.

use crate::percentiles;
use e2e::adapter::Adapter;
use e2e::redis::Redis;
use limitador_adapter::grpc::services::weir::v1::reservation_service_client::ReservationServiceClient;
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use protocol::wire::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveRequest};
use protocol::wire::weir::v1::{ReserveAndCommitRequest, ReserveAndCommitResponse};
use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;

const RUN: Duration = Duration::from_secs(5);
/// How often each worker sends one message when latencies are measured: 2,000 pairs per second in total.
const PACE: Duration = Duration::from_millis(1);
/// The streams, each of which is a worker's.
const WORKERS: u64 = 2;
/// The concurrent exchanges of each worker.
const AT_ONCE: u64 = 64;
const USERS: u64 = 1_000;

const POLICY: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: TokenRateLimitPolicy
metadata: {name: llm, namespace: default}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gateway}
  limits:
    free:
      counters: [{expression: auth.identity.userid}]
      rates: [{limit: 1000000000000, window: 1h}]
"#;

/// When a worker starts its next exchange.
#[derive(Clone, Copy)]
enum Arrivals {
    /// When the reserve of an earlier one is answered.
    Closed,
    /// On a clock.
    Paced,
}

/// The section's table of the wire.
pub async fn table() -> String {
    let mut table = format!(
        "The callers use the adapter's stream, as filters do, with {WORKERS} workers and one limit of {USERS} users. Each message carries the commit of an earlier exchange and the reserve of the next. For the rates and CPU times, each worker has {AT_ONCE} exchanges at all times, and starts the next one when a reserve is answered. The callers, the adapter and the storage share the machine's cores, so the CPU times per pair are what matters: those of the adapter, of all servers of the storage, and of the busiest server. \"Per core\" is the number of pairs that the adapter makes in a second of CPU time. Latencies were measured at {} pairs per second. A commit is answered when it is durable.\n\n\
        | storage | pairs/s | CPU of the adapter, us per pair | pairs/s per core | CPU of the storage, us per pair | of its busiest server | reserve p50 us | reserve p99 us | commit p50 us | commit p99 us |\n|---|---|---|---|---|---|---|---|---|---|\n",
        WORKERS * 1000 / PACE.as_millis() as u64
    );
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = format!("sqlite:{}", folder.path().join("counters.db").display());
    write_row(&mut table, "memory", "memory", &[]).await;
    write_row(&mut table, "SQLite", &file, &[]).await;
    let redis = Redis::start();
    write_row(&mut table, "Redis", &redis.url(0), std::slice::from_ref(&redis)).await;
    for masters in 1..=3 {
        let nodes = Redis::cluster(masters);
        let place = format!("redis+cluster://127.0.0.1:{}", nodes[0].port());
        write_row(&mut table, &format!("Redis Cluster, masters: {masters}"), &place, &nodes).await;
    }
    table
}

async fn write_row(table: &mut String, name: &str, storage: &str, servers: &[Redis]) {
    let adapter = Adapter::start_on(storage, &[POLICY.to_owned()]);
    // Every user has a bucket, and every server has the scripts.
    load(adapter.grpc(), Arrivals::Closed, Duration::from_secs(1)).await;
    let of_servers = || servers.iter().map(Redis::cpu).collect::<Vec<_>>();
    let (start, before, of_servers_before) = (Instant::now(), adapter.cpu(), of_servers());
    let pairs = load(adapter.grpc(), Arrivals::Closed, RUN).await.reserves.len() as f64;
    let elapsed = start.elapsed();
    let per_pair = |time: Duration| time.as_secs_f64() * 1e6 / pairs;
    let used = per_pair(adapter.cpu() - before);
    let after = of_servers();
    let of_servers = after.iter().zip(of_servers_before).map(|(after, before)| per_pair(*after - before));
    let of_servers: Vec<_> = of_servers.collect();
    let Latencies { reserves, commits } = load(adapter.grpc(), Arrivals::Paced, RUN).await;
    let ((reserve_p50, reserve_p99), (commit_p50, commit_p99)) =
        (percentiles(reserves), percentiles(commits));
    let (all, busiest) = match of_servers.iter().copied().reduce(f64::max) {
        Some(busiest) => (format!("{:.0}", of_servers.iter().sum::<f64>()), format!("{busiest:.0}")),
        None => ("-".to_owned(), "-".to_owned()),
    };
    writeln!(
        table,
        "| {name} | {:.0} | {used:.0} | {:.0} | {all} | {busiest} | {reserve_p50:.0} | {reserve_p99:.0} | {commit_p50:.0} | {commit_p99:.0} |",
        pairs / elapsed.as_secs_f64(),
        1e6 / used,
    )
    .expect("a text grows");
}

#[derive(Default)]
struct Latencies {
    reserves: Vec<Duration>,
    commits: Vec<Duration>,
}

async fn load(adapter: SocketAddr, arrivals: Arrivals, run: Duration) -> Latencies {
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(Worker::run(adapter, arrivals, run));
    }
    workers.join_all().await.into_iter().fold(Latencies::default(), |mut all, of_one| {
        all.reserves.extend(of_one.reserves);
        all.commits.extend(of_one.commits);
        all
    })
}

/// One worker of a proxy, and its stream.
struct Worker {
    /// The prefix of its reservation ids.
    name: String,
    requests: UnboundedSender<ReserveAndCommitRequest>,
    /// When each message was sent. The number of the first is 1.
    sent: Vec<Instant>,
    /// The exchanges that have an answered reserve, but no commit yet.
    ended: VecDeque<u64>,
    /// The number of reserves and commits without an answer.
    unanswered: usize,
    taken: Latencies,
}

impl Worker {
    async fn run(adapter: SocketAddr, arrivals: Arrivals, run: Duration) -> Latencies {
        let channel = Endpoint::try_from(format!("http://{adapter}")).expect("it is a URL");
        let channel = channel.connect().await.expect("the adapter listens");
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut client = ReservationServiceClient::new(channel);
        let answers = client.reserve_and_commit(UnboundedReceiverStream::new(receiver)).await;
        let mut answers = answers.expect("the stream opens").into_inner();
        let greeting = answers.message().await.expect("the stream works");
        assert_eq!(greeting.map(|greeting| greeting.number), Some(0));
        let mut worker = Self {
            name: uuid::Uuid::new_v4().simple().to_string(),
            requests,
            sent: Vec::new(),
            ended: VecDeque::new(),
            unanswered: 0,
            taken: Latencies::default(),
        };
        if let Arrivals::Closed = arrivals {
            (0..AT_ONCE).for_each(|_| worker.send(true));
        }
        let start = Instant::now();
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            let goes_on = start.elapsed() < run;
            if !goes_on && worker.unanswered == 0 && worker.ended.is_empty() {
                return worker.taken;
            }
            tokio::select! {
                _ = ticks.tick(), if matches!(arrivals, Arrivals::Paced) => worker.send(goes_on),
                answer = answers.message() => {
                    let answer = answer.expect("the stream works").expect("it goes on");
                    if worker.hear(answer) && matches!(arrivals, Arrivals::Closed) {
                        worker.send(start.elapsed() < run);
                    }
                }
            }
        }
    }

    /// Sends the commit of an earlier exchange, and the reserve of the next.
    fn send(&mut self, goes_on: bool) {
        let number = self.sent.len() as u64 + 1;
        let commit = self.ended.pop_front().map(|number| CommitRequest {
            domain: "weir".to_owned(),
            descriptors: descriptors(number, 100),
            reservation_id: format!("{}-{number:x}", self.name),
            ..Default::default()
        });
        let reserve = goes_on.then(|| ReserveRequest {
            domain: "weir".to_owned(),
            descriptors: descriptors(number, 500),
            reservation_id: format!("{}-{number:x}", self.name),
            ..Default::default()
        });
        if commit.is_none() && reserve.is_none() {
            return;
        }
        self.unanswered += usize::from(commit.is_some()) + usize::from(reserve.is_some());
        let worker = if number == 1 { self.name.clone() } else { String::new() };
        self.sent.push(Instant::now());
        let message = ReserveAndCommitRequest { number, reserve, commit, worker };
        self.requests.send(message).expect("the stream is open");
    }

    /// Returns whether this is the answer to a reserve.
    fn hear(&mut self, answer: ReserveAndCommitResponse) -> bool {
        assert_eq!((answer.reserve_status, answer.commit_status), (0, 0), "{answer:?}");
        let taken = self.sent[usize::try_from(answer.number - 1).expect("few messages were sent")].elapsed();
        if answer.commit.is_some() {
            self.taken.commits.push(taken);
            self.unanswered -= 1;
        }
        let Some(reserve) = answer.reserve else { return false };
        assert_eq!(reserve.code(), Code::Ok);
        self.taken.reserves.push(taken);
        self.unanswered -= 1;
        self.ended.push_back(answer.number);
        true
    }
}

/// Returns the descriptors of an exchange. Users are spread over the buckets.
fn descriptors(number: u64, amount: u64) -> Vec<RateLimitDescriptor> {
    let user = number.wrapping_mul(7_919) % USERS;
    let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
    let entries = vec![
        entry("limit", "default/llm/free".to_owned()),
        entry("unit", "tokens".to_owned()),
        entry("window", "3600s".to_owned()),
        entry("auth.identity.userid", format!("user-{user:08}")),
    ];
    vec![RateLimitDescriptor { entries, hits_addend: Some(amount), ..Default::default() }]
}
