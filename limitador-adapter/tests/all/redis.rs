//! Properties of Redis only: several adapters, a network, a separate clock, and a disk.

use crate::binary::{adapter, folder};
use crate::ledger::{MINUTE, key};
use crate::server::{DEADLINE, POLICY, Server, commit, descriptor, reserve, whole};
use crate::storages::in_redis;
use e2e::client::Request;
use e2e::process::{Process, free_port};
use e2e::redis::Redis;
use e2e::wait;
use limitador_adapter::ledger::calendar;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::recalls::Recall;
use limitador_adapter::ledger::redis::RedisLedger;
use limitador_adapter::ledger::{
    Charge, ChargeAt, Hold, Key, LeaseUse, Ledger, Settled, StorageFault, Unavailable,
};
use policy::model::{Period, Unit, Window, ZoneName};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A ledger as it is served, with the server's time.
pub fn served(place: &str) -> Arc<dyn Ledger> {
    RedisLedger::new(place.parse().unwrap(), Some(100_000_usize.into())).unwrap().into_ledger()
}

pub fn tokens(who: &str, amount: u64) -> Hold {
    let (key, ttl) = (key(who, Unit::Tokens), MINUTE * 15);
    Hold {
        key,
        amount,
        max: 1000,
        ttl,
        charge_at: ChargeAt::Commit,
        enforced: true,
        warn_at: None,
        lease: LeaseUse::None,
    }
}

pub fn charge(who: &str, amount: u64) -> Vec<Charge> {
    vec![Charge { key: key(who, Unit::Tokens), amount, warn_at: None, draw: None }]
}

pub async fn books(ledger: &dyn Ledger) -> Vec<(u64, u64)> {
    let readings = once_it_works(async || ledger.readings(Moment::now()).await).await;
    readings.iter().map(|reading| (reading.used, reading.held)).collect()
}

/// Retries until it works, as sweeps and requests do.
pub async fn once_it_works<T>(mut ask: impl AsyncFnMut() -> Result<T, Unavailable>) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(start.elapsed() < wait::DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reserves at one adapter and commits at another. Every Redis must support at least this.
pub async fn is_a_place(place: &str) {
    let patient = || {
        let ledger = RedisLedger::new(place.parse().unwrap(), Some(100_000_usize.into())).unwrap();
        ledger.with_timeout(10 * wait::DEADLINE).into_ledger()
    };
    let (one, other) = (patient(), patient());
    let hold = || vec![tokens("alice", 100), Hold { key: key("bob", Unit::Usd), ..tokens("bob", 5) }];
    assert!(one.reserve("1", hold(), Moment::now()).await.unwrap().admitted, "{place}");
    let settled = other.commit("1", charge("alice", 30), Moment::now()).await.unwrap();
    assert_eq!(settled, Settled::Released);
    let settled = one.commit("1", charge("alice", 30), Moment::now()).await.unwrap();
    assert_eq!(settled, Settled::AlreadySettled);
    assert_eq!(books(&*other).await, [(30, 0)]);
}

#[tokio::test]
async fn a_password_a_user_and_a_database() {
    let redis = Redis::start_with(&["--requirepass", "not:so@secret"]);
    let (port, password) = (redis.port(), "not%3Aso%40secret");
    is_a_place(&format!("redis://:{password}@127.0.0.1:{port}/7")).await;
    is_a_place(&format!("redis://default:{password}@127.0.0.1:{port}")).await;
    for wrong in ["", ":wrong@"] {
        let place = format!("redis://{wrong}127.0.0.1:{port}");
        let error = served(&place).size().await.unwrap_err().to_string();
        assert!(
            error.starts_with("the counter storage denies access") && !error.contains("wrong@"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_master_that_sentinels_know() {
    let (other, master) = (Redis::start(), Redis::start());
    let sentinel = Redis::sentinel("main", &master);
    // The first sentinel in the URL does not answer. Naming several sentinels protects against this.
    let nodes = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), sentinel.port());
    is_a_place(&format!("redis+sentinel://{nodes}/main")).await;
    assert_eq!(other.info("total_connections_received"), 2);
    assert!(master.command(&["DBSIZE"]) != ":0");
}

#[tokio::test]
async fn a_replica_that_becomes_the_master_goes_on_where_the_master_was() {
    let mut master = Redis::start();
    let replica = Redis::replica_of(&master);
    let sentinel = Redis::sentinel("main", &master);
    wait::until("the sentinel to know the replica", || {
        (sentinel.command(&["INFO"]).contains("slaves=1")).then_some(())
    });
    let ledger = served(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port()));
    assert!(ledger.reserve("1", vec![tokens("alice", 100)], Moment::now()).await.unwrap().admitted);
    wait::until("the reservation at the replica", || {
        (replica.command(&["EXISTS", "{weir}:r:1"]) == ":1").then_some(())
    });
    master.kill();
    let settled = once_it_works(async || ledger.commit("1", charge("alice", 30), Moment::now()).await).await;
    assert_eq!(settled, Settled::Released);
    assert_eq!(books(&*ledger).await, [(30, 0)]);
    assert!(replica.command(&["INFO"]).contains("role:master"));
}

#[test]
fn tls_with_a_certificate_of_one_s_own_authority() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, private) = (made.cert.pem(), made.signing_key.serialize_pem());
    let folder = folder(&[("cert.pem", &certificate), ("key.pem", &private), ("a.yaml", POLICY)]);
    let path = |file: &str| folder.path().join(file).display().to_string();
    let port = free_port().to_string();
    let tls = ["--tls-port", &port, "--tls-cert-file", &path("cert.pem"), "--tls-key-file", &path("key.pem")];
    let _redis = Redis::start_with(&[&tls[..], &["--tls-auth-clients", "no"]].concat());
    let (http, grpc) = (free_port(), free_port());
    let mut command = adapter();
    command.args([
        "serve",
        "--storage",
        &format!("rediss://127.0.0.1:{port}"),
        "--policies",
        &path("a.yaml"),
    ]);
    command.args([
        "--http-listen",
        &format!("127.0.0.1:{http}"),
        "--grpc-listen",
        &format!("127.0.0.1:{grpc}"),
    ]);
    command.env("SSL_CERT_FILE", path("cert.pem"));
    let _adapter = Process::start("the adapter", command, &folder.path().join("log"));
    wait::until("readiness over TLS", || {
        let answer = Request::get("/readyz").try_send(([127, 0, 0, 1], http).into()).ok()?;
        (answer.status == 200).then_some(())
    });
}

#[tokio::test]
async fn a_call_is_one_round_trip_however_many_limits_it_has() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    let users: Vec<_> = (0..8).map(|user| user.to_string()).collect();
    let pair = async |id: &str| {
        let holds = users.iter().map(|user| tokens(user, 1)).collect();
        assert!(ledger.reserve(id, holds, Moment::now()).await.unwrap().admitted);
        let charges = users.iter().flat_map(|user| charge(user, 1)).collect();
        assert_eq!(ledger.commit(id, charges, Moment::now()).await.unwrap(), Settled::Released);
    };
    // The server has to receive the functions once.
    pair("first").await;
    let before = redis.info("total_reads_processed");
    for id in 0..50 {
        pair(&id.to_string()).await;
    }
    // This query is one read. The end of the previous query may be another.
    let reads = redis.info("total_reads_processed") - before;
    assert!((2 * 50 + 1..=2 * 50 + 2).contains(&reads), "{reads}");
    // If the server has lost the functions, they are sent again.
    redis.command(&["FUNCTION", "FLUSH"]);
    pair("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_adapters_together_let_ten_of_sixty_four_pass() {
    let redis = Redis::start();
    let adapters = [served(&redis.url(0)), served(&redis.url(0))];
    let mut calls = JoinSet::new();
    for id in 0..64 {
        let ledger = Arc::clone(&adapters[id % 2]);
        calls.spawn(async move {
            ledger.reserve(&id.to_string(), vec![tokens("alice", 100)], Moment::now()).await.unwrap()
        });
    }
    assert_eq!(calls.join_all().await.iter().filter(|outcome| outcome.admitted).count(), 10);
    assert_eq!(books(&*adapters[0]).await, [(0, 1000)]);
}

/// Checks that what one adapter recalls arrives at another one, once both are connected.
pub async fn recalls_arrive(from: &dyn Ledger, to: &dyn Ledger) {
    let mut recalled = to.recalls().subscribe();
    once_it_works(async || to.ready().await).await;
    let start = Instant::now();
    // An adapter hears its own recalls even before it has subscribed.
    while !to.recalls().reach_all() {
        assert!(start.elapsed() < DEADLINE, "the adapter has not subscribed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    loop {
        from.recall(&[7, u64::MAX]).await;
        match tokio::time::timeout(Duration::from_millis(50), recalled.recv()).await {
            // It has subscribed again.
            Ok(Ok(Recall::All)) => {}
            Ok(recall) => {
                let both = (recall, recalled.recv().await);
                assert_eq!(both, (Ok(Recall::Bucket(7)), Ok(Recall::Bucket(u64::MAX))));
                assert!(to.recalls().reach_all());
                return;
            }
            Err(_) => assert!(start.elapsed() < DEADLINE, "no recall has arrived"),
        }
    }
}

#[tokio::test]
async fn what_one_adapter_recalls_the_others_hear() {
    let redis = Redis::start();
    let adapters = [served(&redis.url(0)), served(&redis.url(0))];
    recalls_arrive(&*adapters[0], &*adapters[1]).await;
    recalls_arrive(&*adapters[1], &*adapters[0]).await;
    recalls_arrive(&*adapters[0], &*adapters[0]).await;
    // Another installation in the same Redis hears nothing of it.
    let staging = RedisLedger::new(redis.url(0).parse().unwrap(), None).unwrap().with_prefix("staging:");
    recalls_arrive(&staging, &staging).await;
    let mut recalled = staging.recalls().subscribe();
    adapters[0].recall(&[8]).await;
    let others = async { while recalled.recv().await != Ok(Recall::Bucket(8)) {} };
    assert!(tokio::time::timeout(Duration::from_millis(200), others).await.is_err());
}

#[tokio::test]
async fn after_a_lost_connection_to_the_channel_all_leases_are_recalled() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    recalls_arrive(&*ledger, &*ledger).await;
    let mut recalled = ledger.recalls().subscribe();
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    // What the adapter has recalled before may still arrive through the channel.
    let all = async { while recalled.recv().await != Ok(Recall::All) {} };
    assert!(tokio::time::timeout(DEADLINE, all).await.is_ok());
    recalls_arrive(&*ledger, &*ledger).await;
}

#[tokio::test]
async fn the_time_is_the_server_s() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    let second = Duration::from_secs(1);
    let mut hold = tokens("alice", 1000);
    let mut short = (*hold.key).clone();
    short.window = Window::Fixed(second);
    hold.key = Arc::new(short);
    let charges = vec![Charge { key: Arc::clone(&hold.key), amount: 1, warn_at: None, draw: None }];
    // The caller's clock does not matter.
    let wrong = Moment { unix: Duration::ZERO, ..Moment::now() };
    ledger.commit("1", charges, wrong).await.unwrap();
    let start = Instant::now();
    let mut tries = 0;
    while !ledger.reserve("2", vec![hold.clone()], wrong).await.unwrap().admitted {
        tries += 1;
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(tries > 0 && start.elapsed() > second / 2, "{tries} {:?}", start.elapsed());
}

#[tokio::test]
async fn the_calendar_is_that_of_the_server_s_time_however_wrong_the_adapter_s_clock_is() {
    let redis = Redis::start();
    let day = Duration::from_secs(24 * 60 * 60);
    let zone = ZoneName::parse("America/New_York").unwrap();
    let mut hold = tokens("alice", 600);
    hold.key = Arc::new(Key { window: Window::Period(Period::Month, zone.clone()), ..(*hold.key).clone() });
    for wrong in [Duration::ZERO, Moment::now().unix - 40 * day, Moment::now().unix + 40 * day] {
        // Each adapter is new, so it does not know the server's time.
        let ledger = served(&redis.url(0));
        let (id, wrong) = (format!("{wrong:?}"), Moment { unix: wrong, ..Moment::now() });
        let outcome = ledger.reserve(&id, vec![hold.clone()], wrong).await.unwrap();
        let now = Moment::now().unix;
        let end = calendar::around(Period::Month, &zone, now).end;
        let reset = outcome.statuses[0].reset;
        assert!(reset + MINUTE > end - now && reset < end - now + MINUTE, "{reset:?} {:?}", end - now);
        let charge = vec![Charge { key: Arc::clone(&hold.key), amount: 100, warn_at: None, draw: None }];
        assert_eq!(ledger.commit(&id, charge, wrong).await.unwrap(), Settled::Released);
    }
    assert_eq!(books(&*served(&redis.url(0))).await, [(300, 0)]);
}

#[tokio::test]
async fn a_redis_that_comes_back_with_its_disk_has_lost_nothing_and_charged_nothing_twice() {
    let mut redis = Redis::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let (one, other) = (served(&redis.url(0)), served(&redis.url(0)));
    let now = Moment::now;
    for id in ["1", "2"] {
        assert!(one.reserve(id, vec![tokens("alice", 100)], now()).await.unwrap().admitted);
    }
    assert_eq!(one.commit("1", charge("alice", 30), now()).await.unwrap(), Settled::Released);
    redis.kill();
    for ledger in [&one, &other] {
        let refused = ledger.reserve("3", vec![tokens("alice", 1)], now()).await;
        assert!(matches!(&refused, Err(error) if error.fault == StorageFault::Unreachable), "{refused:?}");
        assert!(ledger.commit("2", charge("alice", 40), now()).await.is_err());
        assert!(ledger.size().await.is_err());
    }
    redis.restart();
    let settled = once_it_works(async || other.commit("2", charge("alice", 40), now()).await).await;
    assert_eq!(settled, Settled::Released);
    for id in ["1", "2"] {
        let again = once_it_works(async || one.commit(id, charge("alice", 40), now()).await).await;
        assert_eq!(again, Settled::AlreadySettled);
    }
    assert_eq!(books(&*one).await, [(70, 0)]);
}

#[tokio::test]
async fn a_full_redis_grants_nothing_and_settles_everything() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    assert!(ledger.reserve("1", vec![tokens("alice", 100)], Moment::now()).await.unwrap().admitted);
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = ledger.reserve("2", vec![tokens("alice", 100)], Moment::now()).await;
    assert!(matches!(&refused, Err(error) if error.fault == StorageFault::Full), "{refused:?}");
    assert!(matches!(ledger.ready().await, Err(error) if error.fault == StorageFault::Full));
    let settled = ledger.commit("1", charge("alice", 30), Moment::now()).await.unwrap();
    assert_eq!(settled, Settled::Released);
    ledger.sweep(Moment::now()).await.unwrap();
    assert_eq!(books(&*ledger).await, [(30, 0)]);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(ledger.ready().await, Ok(()));
    assert!(ledger.reserve("2", vec![tokens("alice", 100)], Moment::now()).await.unwrap().admitted);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_charged_once() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    assert!(ledger.reserve("1", vec![tokens("alice", 100)], Moment::now()).await.unwrap().admitted);
    redis.freeze();
    let asked = Instant::now();
    // The server receives the call and executes it when it continues.
    assert!(ledger.commit("1", charge("alice", 30), Moment::now()).await.is_err());
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    redis.thaw();
    once_it_works(async || ledger.commit("1", charge("alice", 30), Moment::now()).await).await;
    assert_eq!(books(&*ledger).await, [(30, 0)]);
}

/// Adapters of other versions read and write reservations as packed tables.
#[tokio::test]
async fn a_reservation_is_stored_as_a_packed_table() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    let bucket = r#"{weir}:b:["default/llm/free","tokens","60000",[["auth.identity.userid","alice"]]]"#;
    let month = Window::Period(Period::Month, ZoneName::UTC);
    let monthly = Arc::new(Key { window: month, ..(*key("alice", Unit::Tokens)).clone() });
    for (id, key, is_repacked) in [
        ("1", key("alice", Unit::Tokens), false),
        ("2", key("alice", Unit::Tokens), true),
        ("3", Arc::clone(&monthly), false),
        ("4", monthly, true),
    ] {
        let is_monthly = matches!(key.window, Window::Period(..));
        let hold = Hold { key: Arc::clone(&key), charge_at: ChargeAt::CommitOrLapse, ..tokens("alice", 500) };
        assert!(ledger.reserve(id, vec![hold], Moment::now()).await.unwrap().admitted);
        let name = format!("{{weir}}:r:{id}");
        let unpack = "return cjson.encode(cmsgpack.unpack(redis.call('GET', KEYS[1])))";
        let stored = redis.command(&["EVAL", unpack, "1", &name]);
        let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
        assert_eq!((&stored["live"], &stored["advances"]), (&true.into(), &serde_json::json!({})));
        let hold = &stored["holds"][0];
        assert_eq!((hold[0] == bucket, &hold[1], &hold[3]), (!is_monthly, &500.into(), &false.into()));
        let score = redis.command(&["ZSCORE", "{weir}:lapses", id]);
        assert_eq!(hold[2].to_string(), score);
        assert_eq!(hold[4].as_array().is_some_and(|ends| ends.len() >= 2), is_monthly, "{hold}");
        if is_repacked {
            let repack = "return redis.call('SET', KEYS[1], cmsgpack.pack(cmsgpack.unpack(redis.call('GET', KEYS[1]))))";
            redis.command(&["EVAL", repack, "1", &name]);
        }
        let charge = Charge { key: Arc::clone(&key), amount: 30, warn_at: None, draw: None };
        assert_eq!(ledger.commit(id, vec![charge], Moment::now()).await.unwrap(), Settled::Released);
    }
    assert_eq!(books(&*ledger).await, [(60, 0), (60, 0)]);
    assert_eq!(ledger.size().await.unwrap().reservations, 0);
}

#[tokio::test]
async fn ids_that_the_adapter_chooses_share_their_records() {
    let redis = Redis::start();
    let server = Server::on(&redis).await;
    let mut client = server.kuadrant();
    let tokens = || vec![descriptor("default/llm/all", Some(("tokens", "86400s")), Some(1))];
    for _ in 0..100 {
        let answer = client.reserve(reserve("", tokens())).await.unwrap().into_inner();
        assert_eq!(answer.code(), Code::Ok);
        let answer = client.commit(commit(&answer.reservation_id, tokens())).await.unwrap().into_inner();
        assert!(answer.reservation_released);
    }
    assert_eq!(server.books("all", "tokens").await, [(100, 0)]);
    // The first 16 ids have a record each. The others share one, or two if a half hour begins meanwhile.
    let records = redis.command(&["EVAL", "return #redis.call('KEYS', '{weir}:i:*')", "0"]);
    assert!([":17", ":18"].contains(&records.as_str()), "{records}");
}

#[tokio::test]
async fn adapters_share_everything_and_say_when_their_redis_is_gone() {
    let mut redis = Redis::start();
    let (one, other) = (Server::on(&redis).await, Server::on(&redis).await);
    let code = one.kuadrant().reserve(reserve("1", whole(600, 1))).await.unwrap().into_inner().code();
    assert_eq!(code, Code::Ok);
    let code = other.kuadrant().reserve(reserve("2", whole(600, 1))).await.unwrap().into_inner().code();
    assert_eq!(code, Code::OverLimit);
    other.kuadrant().commit(commit("1", whole(50, 1))).await.unwrap();
    assert_eq!(one.json("/api/counters").await, other.json("/api/counters").await);
    assert_eq!(one.books("free", "tokens").await, [(50, 0)]);
    assert_eq!(one.metric("weir_counters").await, 3.0);
    assert_eq!(one.metric("weir_storage_up").await, 1.0);

    assert_eq!(one.get("/readyz").await.0, 200);
    redis.kill();
    for path in ["/readyz", "/api/counters"] {
        let (status, told) = one.get(path).await;
        assert_eq!(
            (status, told.starts_with("the counter storage does not answer: ")),
            (503, true),
            "{path}: {told}"
        );
    }
    // The metrics that an alert needs are there, and what is not known is not shown as if it were.
    assert_eq!(one.metric("weir_storage_up").await, 0.0);
    assert!(one.metric("weir_counters").await.is_nan());
    assert!(one.metric("weir_policies_loaded").await > 0.0);
    assert_eq!(one.get("/readyz?exclude=storage").await, (200, "ok\n".to_owned()));
    let refused = one.kuadrant().reserve(reserve("3", whole(1, 1))).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    // The adapter reconnects without calls from clients.
    redis.restart();
    let start = Instant::now();
    while one.get("/readyz").await.0 != 200 {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_redis_that_is_not_there_yet_is_waited_for() {
    let mut redis = Redis::start();
    redis.kill();
    let ledger = served(&redis.url(0));
    assert!(matches!(ledger.size().await, Err(error) if error.fault == StorageFault::Unreachable));
    redis.restart();
    once_it_works(async || ledger.size().await).await;
}

#[tokio::test]
async fn records_that_should_have_been_over_leave_by_themselves() {
    let redis = Redis::start();
    let ledger = in_redis(&redis, 0, 1000);
    let long_ago = Moment { unix: Duration::from_secs(1_000_000_000), ..Moment::now() };
    ledger.reserve("1", vec![tokens("alice", 100)], long_ago).await.unwrap();
    wait::until("an empty Redis", || {
        let left = [
            "{weir}:r:1",
            r#"{weir}:b:["default/llm/free","tokens","60000",[["auth.identity.userid","alice"]]]"#,
        ];
        left.iter().all(|name| redis.command(&["EXISTS", name]) == ":0").then_some(())
    });
}
