//! Usage records while the adapter, the database and Envoy are killed with SIGKILL, in random order. With SQLite, the
//! database is a part of the adapter. Redis keeps the counters. `KILLS=200` kills more often, and `SEED` repeats a run.
//!
//! Each request has a user of its own, so each counter and each record belong to one exchange. What must hold:
//! - No exchange has two records.
//! - A record and its counter have the same number of tokens.
//! - Unless Envoy was killed, an exchange has a record if and only if it was charged. If its response arrived,
//!   it was charged.
//!
//! A killed Envoy loses what it has not sent yet. So if an exchange was running or had just ended at that moment,
//! its charge or its record may be missing.

use e2e::adapter::Adapter;
use e2e::chance::{Random, variable};
use e2e::client::Request;
use e2e::envoy::{Config, Envoy};
use e2e::jwt;
use e2e::postgres::Postgres;
use e2e::redis::Redis;
use e2e::upstream::Upstream;
use e2e::wait;
use e2e::world::{CONFIG, per_user, policy};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The requests before and after each kill, and their threads.
const REQUESTS: usize = 24;
const THREADS: usize = 4;

/// The rounds without `KILLS`.
const ROUNDS: usize = 6;

/// What keeps the records.
enum Store {
    Sqlite(tempfile::TempDir),
    Postgres(Postgres),
}

impl Store {
    fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join("usage.db").display()),
            Self::Postgres(postgres) => postgres.url(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Adapter,
    Database,
    Envoy,
}

/// What is known about the exchange of a user.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Whether the whole response arrived.
    is_answered: bool,
    /// Whether its Envoy was killed before everything was acknowledged.
    is_doubtful: bool,
}

struct World {
    redis: Redis,
    store: Store,
    adapter: Adapter,
    config: Config,
    envoy: Envoy,
    sent: BTreeMap<String, Sent>,
    _upstream: Upstream,
}

fn send(to: SocketAddr, user: &str, number: usize) -> bool {
    let mut request = Request::chat(10 + number as u64 % 50).token(&jwt::token(&json!({ "userid": user })));
    if number.is_multiple_of(3) {
        let messages = json!([{ "role": "user", "content": "Hi" }]);
        let body = json!({ "model": "m", "max_tokens": 40, "stream": true, "messages": messages });
        request = request.body(body.to_string());
    }
    let answer = request.try_send(to);
    answer.is_ok_and(|answer| answer.status == 200 && answer.cut.is_none())
}

impl World {
    fn start(store: Store) -> Self {
        let (redis, upstream) = (Redis::start(), Upstream::start());
        let policies = [policy("llm", json!({ "limits": { "tokens": per_user(1_000_000) } }))];
        let adapter = Adapter::start_as(&policies, &["--storage", &redis.url(0), "--usage", &store.url()]);
        let mut config = Config::read(CONFIG);
        config.cluster("llm", upstream.address());
        config.adapter_as_shipped(adapter.grpc());
        let envoy = config.start(2);
        let world = Self { redis, store, adapter, config, envoy, sent: BTreeMap::new(), _upstream: upstream };
        world.wait_for_plan();
        world
    }

    fn wait_for_plan(&self) {
        wait::until("the plan in both workers", || (self.envoy.plans() >= 3).then_some(()));
    }

    /// Sends requests. Meanwhile, `act` runs once a random number of them has been answered.
    fn traffic(&mut self, round: usize, after: usize, act: impl FnOnce(&mut Self)) {
        let to = self.envoy.address();
        let (answered, answers) = std::sync::mpsc::channel();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let answered = answered.clone();
                std::thread::spawn(move || {
                    for at in (thread..REQUESTS).step_by(THREADS) {
                        let user = format!("user-{round}-{at}");
                        let is_answered = send(to, &user, at);
                        // The receiver lives until all threads have ended.
                        answered.send((user, is_answered)).expect("somebody listens");
                    }
                })
            })
            .collect();
        drop(answered);
        let mut answers = answers.into_iter();
        let mut all: Vec<(String, bool)> = answers.by_ref().take(after).collect();
        act(self);
        all.extend(answers);
        threads.into_iter().for_each(|thread| thread.join().expect("a client does not panic"));
        assert_eq!(all.len(), REQUESTS);
        for (user, is_answered) in all {
            self.sent.insert(user, Sent { is_answered, is_doubtful: false });
        }
    }

    /// The processes that can be killed.
    fn victims(&self) -> &'static [Victim] {
        match self.store {
            Store::Sqlite(_) => &[Victim::Adapter, Victim::Envoy],
            Store::Postgres(_) => &[Victim::Adapter, Victim::Envoy, Victim::Database],
        }
    }

    fn kill(&mut self, victim: Victim) {
        match (victim, &mut self.store) {
            (Victim::Database, Store::Postgres(postgres)) => postgres.kill(),
            (Victim::Adapter | Victim::Database, _) => self.adapter.kill(),
            (Victim::Envoy, _) => self.envoy.kill(),
        }
    }

    fn restart(&mut self, victim: Victim) {
        match (victim, &mut self.store) {
            (Victim::Database, Store::Postgres(postgres)) => postgres.restart(),
            (Victim::Adapter | Victim::Database, _) => self.adapter.restart(),
            (Victim::Envoy, _) => {
                self.envoy = self.config.start(2);
                self.wait_for_plan();
            }
        }
    }

    /// The tokens of each user's counter.
    fn counters(&self) -> BTreeMap<String, u64> {
        let counters = self.adapter.counters().into_iter().filter(|counter| counter.used > 0);
        counters
            .map(|counter| {
                (counter.counters.values().next().expect("it counts by user").clone(), counter.used)
            })
            .collect()
    }

    /// The number of each user's records, and their tokens. Nothing if the database does not answer.
    fn records(&self) -> BTreeMap<String, (u64, u64)> {
        let answer = self.adapter.get("/api/usage?from=2000-01-01&to=2999-01-01&by=user");
        if answer.status != 200 {
            return BTreeMap::new();
        }
        let number = |row: &Value, name: &str| row[name].as_u64().expect("a number");
        let record = |row: &Value| {
            let user = row["user"].as_str().expect("it has a user").to_owned();
            (user, (number(row, "requests"), number(row, "total")))
        };
        answer.json().as_array().expect("a list").iter().map(record).collect()
    }

    /// Everything that is certain about the records and counters so far.
    fn check(&self) -> Result<(), String> {
        let (counters, records) = (self.counters(), self.records());
        for (user, Sent { is_answered, is_doubtful }) in &self.sent {
            let charged = counters.get(user).copied();
            let recorded = records.get(user).copied();
            let is_right = match (charged, recorded) {
                (Some(charged), Some((1, recorded))) => charged == recorded,
                (None, None) => !is_answered || *is_doubtful,
                (Some(_), None) | (None, Some((1, _))) => *is_doubtful,
                (_, Some(_)) => false,
            };
            if !is_right {
                return Err(format!(
                    "{user}: answered {is_answered}, charged {charged:?}, recorded {recorded:?}"
                ));
            }
        }
        Ok(())
    }

    /// Waits until the records are complete.
    fn settle(&self, what: &str) {
        let mut last = Ok(());
        let settled = wait::within(wait::DEADLINE, || {
            last = self.check();
            last.is_ok().then_some(())
        });
        assert!(settled.is_some(), "{what}: {last:?}\n{}", self.envoy.stats("weir_"));
    }
}

#[test]
fn kills_lose_no_record_and_write_none_twice_in_postgres() {
    kills_lose_no_record_and_write_none_twice(Store::Postgres(Postgres::start()));
}

#[test]
fn kills_lose_no_record_and_write_none_twice_in_sqlite() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    kills_lose_no_record_and_write_none_twice(Store::Sqlite(folder));
}

fn kills_lose_no_record_and_write_none_twice(store: Store) {
    let rounds = variable("KILLS").map_or(ROUNDS, |kills| kills as usize);
    let mut random = Random::from_environment();
    let mut world = World::start(store);
    let victims = world.victims();
    for round in 0..rounds {
        // The first rounds kill each of them once.
        let at = if round < victims.len() { round } else { random.below(victims.len() as u64) as usize };
        let victim = victims[at];
        let after = random.below(REQUESTS as u64) as usize;
        let what = format!("round {round}: {victim:?} after {after} answers");
        eprintln!("{what}");
        let pause = random.below(2) == 0;
        world.traffic(round, after, |world| {
            world.kill(victim);
            if pause {
                world.restart(victim);
            }
        });
        if victim == Victim::Envoy {
            let own = format!("user-{round}-");
            let of_round = world.sent.iter_mut().filter(|(user, _)| user.starts_with(&own));
            of_round.for_each(|(_, sent)| sent.is_doubtful = true);
        }
        if !pause {
            world.restart(victim);
        }
        world.settle(&what);
    }
    let records: u64 = world.records().values().map(|(records, _)| records).sum();
    let answered = world.sent.values().filter(|sent| sent.is_answered).count();
    eprintln!("{records} records, {answered} answered of {} requests", world.sent.len());
    assert!(records >= world.sent.len() as u64 / 4, "{records} of {}", world.sent.len());
    assert_eq!(world.redis.command(&["PING"]), "+PONG");
}
