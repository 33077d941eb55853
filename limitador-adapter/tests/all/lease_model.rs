//! Workers that admit requests from leases, at two adapters: no limit is exceeded, every usage is charged once, and in the
//! end nothing is held and the whole limit can be used. Workers die, stall, and lose replies.

use crate::storages::{in_redis, in_shards};
use e2e::redis::Redis;
use engine::leases::{Leases, REVIEW};
use engine::outbox::{Displaced, Outbox, Settlement};
use expression::facts::Facts;
use limitador_adapter::grpc::limiter::Limiter;
use limitador_adapter::ledger::Ledger;
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::recalls::Recall;
use limitador_adapter::metrics::AdapterMetrics;
use limitador_adapter::policies::collection::Collection;
use limitador_adapter::policies::snapshot::PolicySnapshot;
use llm::memory::MemoryBudget;
use policy::model::Policy;
use policy::plan::{Hold, Plan};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use prost::Message;
use protocol::call::{self, CallFailure, Item};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveRequest, ReserveResponse};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, oneshot, watch};

/// The maxima of a user and of all users, in tokens, and of all running requests.
const OF_USER: u64 = 60_000;
const OF_ALL: u64 = 100_000;
const AT_ONCE: usize = 120;
const USERS: usize = 2;
const WORKERS: usize = 3;

const POLICY: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: TokenRateLimitPolicy
metadata: {name: p}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gateway}
  limits:
    user:
      counters: [{expression: "request.headers['x-user']"}]
      reservation: {amount: "int(request.headers['x-amount'])"}
      rates: [{limit: 60000, window: 24h}]
    all:
      reservation: {amount: "int(request.headers['x-amount'])"}
      rates: [{limit: 100000, window: 24h}, {limit: 120, unit: concurrency}]
"#;

#[derive(Clone, Debug)]
enum Step {
    /// This many requests of a user, each with this amount, one after the other.
    Requests { worker: usize, user: usize, amount: u64, count: usize },
    /// The oldest requests of a worker end. Each has used this percentage of its amount.
    End { worker: usize, count: usize, percent: u64 },
    /// A worker sends what is waiting. If the reply is lost, it sends it again later.
    Send { worker: usize, is_lost: bool },
    /// This many reviews pass. Some workers may be late.
    Review { count: u64, late: Option<usize> },
    /// A worker's process ends, and another one takes its place.
    Die(usize),
    /// The adapters do not answer in the next steps, or answer again.
    Away(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (worker, user) = (0..WORKERS, 0..USERS);
    prop_oneof![
        6 => (worker.clone(), user, 1..600u64, 1..40usize)
            .prop_map(|(worker, user, amount, count)| Step::Requests { worker, user, amount, count }),
        5 => (worker.clone(), 1..60usize, 0..=100u64)
            .prop_map(|(worker, count, percent)| Step::End { worker, count, percent }),
        4 => (worker.clone(), any::<bool>()).prop_map(|(worker, is_lost)| Step::Send { worker, is_lost }),
        4 => (1..12u64, proptest::option::of(worker.clone()))
            .prop_map(|(count, late)| Step::Review { count, late }),
        1 => worker.prop_map(Step::Die),
        1 => any::<bool>().prop_map(Step::Away),
    ]
}

struct Worker {
    prefix: Arc<str>,
    leases: Leases,
    outbox: Outbox,
    last: u64,
    running: BTreeMap<u64, Running>,
}

struct Running {
    user: usize,
    holds: Vec<Hold>,
}

impl Worker {
    fn new(number: usize) -> Self {
        let prefix: Arc<str> = format!("{number:032x}").into();
        Self {
            leases: Leases::new(&prefix, &MemoryBudget::default()),
            prefix,
            outbox: Outbox::new(1 << 20),
            last: 0,
            running: BTreeMap::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

struct World {
    plan: Plan,
    limiters: Vec<Limiter>,
    ledger: Arc<dyn Ledger>,
    recalls: broadcast::Receiver<Recall>,
    workers: Vec<Worker>,
    started: usize,
    begun: Moment,
    ms: u64,
    is_away: bool,
    /// The usage of requests that have ended, by user.
    used: [u64; USERS],
    /// The tokens of requests whose worker died.
    lost: u64,
    local: usize,
}

impl World {
    fn new(adapters: Vec<Arc<dyn Ledger>>) -> Self {
        let mut collection = Collection::default();
        collection.update(Path::new("p.yaml"), Ok(POLICY.as_bytes()));
        let collected = collection.collect();
        let policies = collected.policies.iter().map(|good| Policy::clone(&good.policy)).collect();
        let metrics = Arc::new(AdapterMetrics::new().unwrap());
        let (_publish, known) = watch::channel(Arc::new(PolicySnapshot::new(collected, &metrics)));
        let limiter =
            |ledger: &Arc<dyn Ledger>| Limiter::new(Arc::clone(ledger), known.clone(), Arc::clone(&metrics));
        Self {
            plan: Plan::new(policies),
            limiters: adapters.iter().map(limiter).collect(),
            recalls: adapters[0].recalls().subscribe(),
            ledger: Arc::clone(&adapters[0]),
            workers: (0..WORKERS).map(Worker::new).collect(),
            started: WORKERS,
            begun: Moment::now(),
            ms: 0,
            is_away: false,
            used: [0; USERS],
            lost: 0,
            local: 0,
        }
    }

    fn now(&self) -> Moment {
        self.begun + Duration::from_millis(self.ms)
    }

    fn holds(&self, user: usize, amount: u64) -> Vec<Hold> {
        let mut facts = Facts::default();
        facts.header(":path", b"/v1/chat/completions");
        facts.header("content-length", b"10");
        facts.header("x-user", user.to_string().as_bytes());
        facts.header("x-amount", amount.to_string().as_bytes());
        self.plan.judge(&mut facts, false).holds
    }

    async fn play(&mut self, step: &Step) {
        match *step {
            Step::Requests { worker, user, amount, count } => {
                for _ in 0..count {
                    self.request(worker, user, amount).await;
                    self.check();
                }
            }
            Step::End { worker, count, percent } => {
                for _ in 0..count {
                    self.end(worker, percent);
                }
            }
            Step::Send { worker, is_lost } => self.send(worker, is_lost).await,
            Step::Review { count, late } => {
                for _ in 0..count {
                    self.review(late).await;
                }
            }
            Step::Die(worker) => self.die(worker),
            Step::Away(is_away) => self.is_away = is_away,
        }
        self.check();
    }

    async fn request(&mut self, worker: usize, user: usize, amount: u64) {
        let holds = self.holds(user, amount);
        let number = self.workers[worker].next();
        let is_local = self.workers[worker].leases.admit(number, &holds).is_some();
        if is_local {
            self.local += 1;
        } else if !self.is_asked_and_admitted(worker, number, &holds).await {
            return;
        }
        self.workers[worker].running.insert(number, Running { user, holds });
    }

    async fn is_asked_and_admitted(&mut self, worker: usize, number: u64, holds: &[Hold]) -> bool {
        if self.is_away {
            return false;
        }
        // What has ended is sent before a Reserve.
        self.send(worker, false).await;
        self.request_leases(worker).await;
        let id = format!("{}-{number:x}", self.workers[worker].prefix);
        let items = holds.iter().map(|hold| Item {
            entries: &hold.entries,
            amount: hold.amount,
            ttl: hold.ttl,
            max: None,
            unenforced: false,
            draw: None,
        });
        let request = ReserveRequest::decode(&*call::reserve(&id, items)).unwrap();
        let request = ReserveRequest { recall_ms: 50, ..request };
        self.reserve(worker, request).await.code() == Code::Ok
    }

    /// Reserves, while workers answer recalls.
    async fn reserve(&mut self, worker: usize, request: ReserveRequest) -> ReserveResponse {
        let now = self.now();
        let Self { limiters, recalls, workers, ms, .. } = self;
        let asked = &limiters[worker % limiters.len()];
        let (is_over, mut over) = oneshot::channel();
        let reserving = async {
            let answer = asked.reserve(request, now).await.unwrap();
            is_over.send(()).unwrap();
            answer
        };
        let answering = async {
            loop {
                // A recall that has begun is answered completely.
                let recall = tokio::select! {
                    recall = recalls.recv() => recall.unwrap(),
                    _ = &mut over => return,
                };
                for (at, worker) in workers.iter_mut().enumerate() {
                    let report = match recall {
                        Recall::Bucket(counter) => worker.leases.recalled(&[counter]),
                        Recall::All => worker.leases.return_all(),
                    };
                    report.settlements.into_iter().for_each(|one| ignore(worker.outbox.push(one)));
                    deliver(worker, &limiters[at % limiters.len()], false, *ms, now).await;
                }
            }
        };
        tokio::join!(reserving, answering).0
    }

    async fn request_leases(&mut self, worker: usize) {
        let mut last = self.workers[worker].last;
        let calls = self.workers[worker].leases.calls(self.ms, || {
            last += 1;
            last
        });
        self.workers[worker].last = last;
        for call in calls {
            let request = ReserveRequest::decode(&*call.message).unwrap();
            let reply = match self.is_away {
                true => Err(CallFailure::Timeout),
                false => Ok(self.reserve(worker, request).await),
            };
            let one = &mut self.workers[worker];
            let returned = one.leases.answered(call.number, reply, self.ms);
            returned.into_iter().for_each(|settlement| ignore(one.outbox.push(settlement)));
        }
    }

    fn end(&mut self, worker: usize, percent: u64) {
        let one = &mut self.workers[worker];
        let Some((number, Running { user, holds })) = one.running.pop_first() else { return };
        let used = holds[0].amount * percent / 100;
        let charges: Vec<u64> =
            holds.iter().map(|hold| if hold.rate.rate.unit.is_of_usage() { used } else { 0 }).collect();
        let draws = one.leases.settle(number, &charges);
        let draw = |at: usize| draws.as_ref().map(|draws| draws[at]);
        let items = holds.iter().zip(&charges).enumerate().map(|(at, (hold, charge))| Item {
            entries: &hold.entries,
            amount: *charge,
            ttl: Duration::ZERO,
            max: None,
            unenforced: false,
            draw: draw(at),
        });
        let id = format!("{}-{number:x}", one.prefix);
        one.outbox.push(Settlement::new(call::commit(&id, items)));
        self.used[user] += used;
    }

    async fn send(&mut self, worker: usize, is_lost: bool) {
        if self.is_away {
            return;
        }
        let (now, ms) = (self.now(), self.ms);
        let limiter = &self.limiters[worker % self.limiters.len()];
        deliver(&mut self.workers[worker], limiter, is_lost, ms, now).await;
    }

    async fn review(&mut self, late: Option<usize>) {
        self.ms += REVIEW;
        for at in (0..WORKERS).filter(|at| Some(*at) != late) {
            let worker = &mut self.workers[at];
            let report = worker.leases.review(self.ms);
            report.settlements.into_iter().for_each(|one| ignore(worker.outbox.push(one)));
            self.request_leases(at).await;
            self.send(at, false).await;
        }
        self.ledger.sweep(self.now()).await.unwrap();
    }

    fn die(&mut self, worker: usize) {
        let dead = std::mem::replace(&mut self.workers[worker], Worker::new(self.started));
        self.started += 1;
        self.lost += dead.running.values().map(|running| running.holds[0].amount).sum::<u64>();
        // What it had not sent is lost, too.
        self.lost += u64::try_from(dead.outbox.len()).unwrap() * 600;
    }

    /// No limit is exceeded, whatever the requests under way will use.
    fn check(&self) {
        let running = || self.workers.iter().flat_map(|worker| worker.running.values());
        let of_user = |user: usize| {
            let amounts = running().filter(|one| one.user == user).map(|one| one.holds[0].amount);
            self.used[user] + amounts.sum::<u64>()
        };
        for user in 0..USERS {
            assert!(of_user(user) <= OF_USER, "{} of user {user}", of_user(user));
        }
        let all: u64 = (0..USERS).map(of_user).sum();
        assert!(all <= OF_ALL, "{all} of all");
        assert!(running().count() <= AT_ONCE, "{} at once", running().count());
    }

    /// Everything ends. Then nothing is leased or held, and what is left of the limit can be used.
    async fn finish(&mut self) {
        self.is_away = false;
        for worker in 0..WORKERS {
            while !self.workers[worker].running.is_empty() {
                self.end(worker, 50);
            }
        }
        for _ in 0..40 {
            self.review(None).await;
        }
        // Holds of dead workers last for a quarter of an hour.
        self.ms += 16 * 60 * 1000;
        self.ledger.sweep(self.now()).await.unwrap();
        let readings = self.ledger.readings(self.now()).await.unwrap();
        assert!(readings.iter().all(|reading| (reading.held, reading.leased) == (0, 0)), "{readings:?}");
        let used: u64 = self.used.iter().sum();
        let of_all = readings.iter().find(|reading| reading.key.counters.is_empty());
        let counted = of_all.map_or(0, |reading| reading.used);
        assert!(
            (used.saturating_sub(self.lost)..=used + self.lost).contains(&counted),
            "{counted} for {used}"
        );
        let left = OF_ALL.saturating_sub(counted).min(OF_USER);
        if left > 0 && self.lost == 0 {
            let holds = self.holds(USERS, left);
            let number = self.workers[0].next();
            assert!(self.is_asked_and_admitted(0, number, &holds).await, "{left} are left");
        }
    }
}

/// Sends what is waiting. If the reply is lost, the worker sends it again later.
async fn deliver(worker: &mut Worker, limiter: &Limiter, is_lost: bool, ms: u64, now: Moment) {
    while let Some(call) = worker.outbox.send_before_reserve(ms) {
        let request = CommitRequest::decode(&*call.message).unwrap();
        let reply = limiter.commit(request, now).await.unwrap();
        if is_lost {
            worker.outbox.returned([call.number].into_iter());
            return;
        }
        worker.outbox.answered(call.number, Ok(reply), ms);
    }
}

/// Plays stories, and returns how many requests were admitted from leases.
fn every_story(cases: u32, adapters: impl Fn() -> Vec<Arc<dyn Ledger>>) -> usize {
    let runtime = Runtime::new().unwrap();
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut local = 0;
    let stories = proptest::collection::vec(step(), 1..40);
    let local_of = std::cell::RefCell::new(&mut local);
    TestRunner::new(config)
        .run(&stories, |steps| {
            runtime.block_on(async {
                let mut world = World::new(adapters());
                for step in &steps {
                    world.play(step).await;
                }
                world.finish().await;
                **local_of.borrow_mut() += world.local;
            });
            Ok(())
        })
        .unwrap();
    local
}

#[test]
fn in_memory() {
    let ledger = || -> Vec<Arc<dyn Ledger>> {
        let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(1000_usize, Moment::now()));
        vec![Arc::clone(&ledger), ledger]
    };
    let local = every_story(60, ledger);
    assert!(local > 500, "{local} requests were admitted from leases");
}

#[test]
fn at_two_adapters_on_one_redis() {
    let redis = Redis::start();
    let adapters = || {
        redis.command(&["FLUSHALL"]);
        vec![in_redis(&redis, 0, 1000), in_redis(&redis, 0, 1000)]
    };
    every_story(20, adapters);
}

#[test]
fn at_two_adapters_with_shards() {
    let redis = Redis::start();
    let adapters = || {
        redis.command(&["FLUSHALL"]);
        vec![in_shards(&redis, 0, 100, 0), in_shards(&redis, 0, 100, 0)]
    };
    every_story(10, adapters);
}

/// The queues have room for everything.
fn ignore(displaced: Displaced) {
    assert_eq!(displaced, Displaced::default());
}
