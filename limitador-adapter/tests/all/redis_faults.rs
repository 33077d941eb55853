//! Faults of Redis: each has a cause that operators can act on, and nothing works only in part.

use crate::binary::{adapter, folder, get};
use crate::ledger::{MINUTE, key};
use crate::redis::recalls_arrive;
use crate::server::{POLICY, Server};
use e2e::process::{Process, free_port};
use e2e::redis::Redis;
use e2e::wait;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::redis::RedisLedger;
use limitador_adapter::ledger::redis::credentials::{ClientFiles, CredentialFiles};
use limitador_adapter::ledger::{Charge, ChargeAt, Hold, LeaseUse, Ledger, StorageFault, Unavailable};
use policy::model::Unit;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The user's permissions in docs/operate.md.
const PERMISSIONS: &str = "'~{weir*' resetchannels '&weir:*' -@all +@read +@write +@scripting +@connection -@dangerous +info +time +publish +subscribe";

fn ledger(place: &str) -> RedisLedger {
    RedisLedger::new(place.parse().unwrap(), Some(1000_usize.into())).unwrap()
}

fn hold(amount: u64) -> Vec<Hold> {
    let (key, ttl) = (key("alice", Unit::Tokens), MINUTE * 15);
    let max = 1_000_000_000;
    vec![Hold {
        key,
        amount,
        max,
        ttl,
        charge_at: ChargeAt::Commit,
        enforced: true,
        warn_at: None,
        lease: LeaseUse::None,
    }]
}

fn charge(amount: u64) -> Vec<Charge> {
    vec![Charge { key: key("alice", Unit::Tokens), amount, warn_at: None, draw: None }]
}

/// Retries, as filters do.
async fn once_it_works<T>(mut ask: impl AsyncFnMut() -> Result<T, Unavailable>) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(start.elapsed() < wait::DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Checks that a ledger does nothing, and returns why.
async fn refuses_everything(ledger: &dyn Ledger) -> Unavailable {
    let now = Moment::now;
    let mut errors = vec![
        ledger.reserve("1", hold(10), now()).await.unwrap_err(),
        ledger.commit("1", charge(10), now()).await.unwrap_err(),
        ledger.reset(vec![key("alice", Unit::Tokens)], now()).await.unwrap_err(),
        ledger.sweep(now()).await.unwrap_err(),
        ledger.ready().await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.fault == errors[0].fault), "{errors:?}");
    errors.swap_remove(0)
}

async fn works(ledger: &dyn Ledger) {
    let id = format!("{:x}", Moment::now().unix.as_nanos());
    assert!(once_it_works(async || ledger.reserve(&id, hold(10), Moment::now()).await).await.admitted);
    once_it_works(async || ledger.commit(&id, charge(10), Moment::now()).await).await;
}

/// Checks that this fault has this cause, and returns the message.
async fn fails(place: &str, fault: StorageFault) -> String {
    let error = refuses_everything(&ledger(place)).await;
    assert_eq!(error.fault, fault, "{error}");
    error.to_string()
}

/// The end of the error if a server lacks commands.
const NEEDED: &str = "Weir needs Redis 7 or newer, or Valkey, with functions (FCALL and FUNCTION)";

#[tokio::test]
async fn a_server_that_cannot_be_used_is_not_used_at_all() {
    let master = Redis::start();
    let replica = Redis::replica_of(&master);
    let error = fails(&replica.url(0), StorageFault::ReadOnly).await;
    assert!(error.starts_with("the counter storage takes no writes: READONLY"), "{error}");

    for missing in ["FCALL", "FUNCTION"] {
        let without = Redis::start_with(&["--save", "", "--rename-command", missing, ""]);
        let error = fails(&without.url(0), StorageFault::Unsupported).await;
        assert!(error.ends_with(NEEDED), "{error}");
    }

    let closed = Redis::start_with(&["--save", "", "--requirepass", "secret"]);
    fails(&closed.url(0), StorageFault::Denied).await;
    fails(&format!("redis://:wrong@127.0.0.1:{}", closed.port()), StorageFault::Denied).await;
    fails(&format!("redis://127.0.0.1:{}", free_port()), StorageFault::Unreachable).await;
}

/// `make test-storages` names an old Redis.
#[tokio::test]
#[ignore = "requires WEIR_REDIS_6, a Redis of version 6"]
async fn a_redis_that_is_too_old_is_not_used_at_all() {
    let program = std::env::var_os("WEIR_REDIS_6").expect("WEIR_REDIS_6 names a Redis of version 6");
    let old = Redis::program(program.as_ref());
    let error = fails(&old.url(0), StorageFault::Unsupported).await;
    assert!(error.ends_with(NEEDED), "{error}");
    assert_eq!(old.command(&["DBSIZE"]), ":0");
}

#[tokio::test]
async fn a_user_needs_the_documented_permissions_and_no_others() {
    let redis = Redis::start();
    let operate = include_str!("../../../docs/operate.md");
    assert!(operate.contains(PERMISSIONS), "docs/operate.md lacks the permissions");
    let user = |more: &str| {
        let words = ["ACL", "SETUSER", "weir", "reset", "on", ">secret"];
        let words: Vec<_> = words
            .into_iter()
            .chain(PERMISSIONS.split(' ').map(|word| word.trim_matches('\'')))
            .chain(more.split_whitespace())
            .collect();
        assert_eq!(redis.command(&words), "+OK");
    };
    let place = format!("redis://weir:secret@127.0.0.1:{}", redis.port());
    user("");
    works(&ledger(&place)).await;
    ledger(&place).readings(Moment::now()).await.unwrap();
    recalls_arrive(&ledger(&place), &ledger(&place)).await;
    // Without the channel, everything works, but there are no leases.
    for missing in ["-publish", "-subscribe", "resetchannels"] {
        user(missing);
        let ledger = ledger(&place);
        works(&ledger).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!ledger.recalls().reach_all(), "{missing}");
    }
    user("");
    for missing in ["-zadd", "-fcall", "-hincrby", "-time", "-info", "-mget", "resetkeys ~other:*"] {
        user(missing);
        let error = fails(&place, StorageFault::Denied).await;
        assert!(error.starts_with("the counter storage denies access: "), "{missing}: {error}");
    }
    // A user that loses a permission while the adapter runs.
    user("");
    let ledger = ledger(&place);
    works(&ledger).await;
    user("-get -set");
    once_it_works(async || match ledger.commit("2", charge(10), Moment::now()).await {
        Err(error) if error.fault == StorageFault::Denied => Ok(()),
        other => Err(Unavailable::failed(format!("{other:?}"))),
    })
    .await;
    refuses_everything(&ledger).await;
    user("");
    works(&ledger).await;
}

#[tokio::test]
async fn writes_that_are_stopped_and_allowed_again() {
    let redis = Redis::start_with(&["--save", "", "--enable-protected-configs", "yes"]);
    let ledger = ledger(&redis.url(0));
    works(&ledger).await;
    // The master has fewer replicas than it requires.
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let error = refuses_everything(&ledger).await;
    assert_eq!(error.fault, StorageFault::ReadOnly, "{error}");
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    works(&ledger).await;
    // The disk cannot be written.
    let gone = tempfile::tempdir().unwrap();
    assert_eq!(redis.command(&["CONFIG", "SET", "dir", &gone.path().display().to_string()]), "+OK");
    redis.command(&["CONFIG", "SET", "save", "3600 1"]);
    gone.close().unwrap();
    redis.command(&["BGSAVE"]);
    wait::until("a failed snapshot", || {
        redis.command(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err").then_some(())
    });
    let error = refuses_everything(&ledger).await;
    assert_eq!(error.fault, StorageFault::ReadOnly, "{error}");
    redis.command(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    works(&ledger).await;
}

#[tokio::test]
async fn a_fault_is_in_the_metrics_and_in_readyz() {
    let redis = Redis::start();
    let server = Server::on(&redis).await;
    let of = async |fault: &str| server.metric(&format!("weir_storage_fault{{fault=\"{fault}\"}}")).await;
    assert_eq!(
        (of("read_only").await, of("full").await, server.metric("weir_storage_up").await),
        (0.0, 0.0, 1.0)
    );
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let (status, told) = server.get("/readyz").await;
    assert_eq!(
        (status, told.starts_with("the counter storage takes no writes: NOREPLICAS")),
        (503, true),
        "{told}"
    );
    assert_eq!(
        (of("read_only").await, of("full").await, server.metric("weir_storage_up").await),
        (1.0, 0.0, 0.0)
    );
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    once_it_works(async || match (of("full").await, of("read_only").await) {
        (1.0, 0.0) => Ok(()),
        other => Err(Unavailable::failed(format!("{other:?}"))),
    })
    .await;
    assert_eq!(
        (server.metric("weir_storage_up").await, server.metric("weir_storage_full").await),
        (1.0, 1.0)
    );
}

/// A running adapter with its log.
struct Logged {
    process: Process,
    http: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Logged {
    fn start(storage: &str) -> Self {
        let folder = folder(&[("a.yaml", POLICY)]);
        let (http, grpc) = (free_port(), free_port());
        let mut command = adapter();
        command.args(["serve", "--storage", storage, "--policies"]).arg(folder.path().join("a.yaml"));
        command.args([
            "--http-listen",
            &format!("127.0.0.1:{http}"),
            "--grpc-listen",
            &format!("127.0.0.1:{grpc}"),
        ]);
        let process = Process::start("the adapter", command, &folder.path().join("log"));
        Self { process, http: ([127, 0, 0, 1], http).into(), _folder: folder }
    }

    fn is_ready(&self) -> bool {
        get(self.http, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    fn lines(&self, text: &str) -> usize {
        self.process.log().lines().filter(|line| line.contains(text)).count()
    }
}

#[test]
fn a_fault_is_logged_once_and_so_is_its_end() {
    let mut redis = Redis::start();
    let adapter = Logged::start(&redis.url(0));
    wait::until("readiness", || adapter.is_ready().then_some(()));
    for (round, (fault, ends)) in
        [("read_only", "0"), ("full", "0"), ("unreachable", "")].into_iter().enumerate()
    {
        match fault {
            "read_only" => drop(redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
            "full" => drop(redis.command(&["CONFIG", "SET", "maxmemory", "1"])),
            _ => redis.kill(),
        }
        wait::until("the log line", || (adapter.lines(&format!("fault=\"{fault}\"")) > 0).then_some(()));
        // The adapter looks at its storage every second, and these calls do not log it, either.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2500) {
            assert!(!adapter.is_ready());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(adapter.lines(&format!("fault=\"{fault}\"")), 1, "{}", adapter.process.log());
        match ends {
            "" => redis.restart(),
            _ => {
                redis.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
                redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
            }
        }
        wait::until("the end", || (adapter.lines("the counter storage works again") > round).then_some(()));
    }
    let log = adapter.process.log();
    assert_eq!(log.matches(" ERROR ").count() + log.matches(" WARN ").count(), 3, "{log}");
}

#[tokio::test]
async fn a_password_in_a_file_is_read_for_each_connection() {
    let redis = Redis::start();
    let user = |password: &str| {
        let words = ["ACL", "SETUSER", "weir", "on", "resetpass", password, "~*", "+@all"];
        assert_eq!(redis.command(&words), "+OK");
        redis.command(&["CLIENT", "KILL", "USER", "weir"]);
    };
    let folder = folder(&[("password", " first\n")]);
    let file = folder.path().join("password");
    let files = CredentialFiles { password: Some(file.clone()), ..CredentialFiles::default() };
    let ledger = ledger(&format!("redis://weir@127.0.0.1:{}", redis.port())).with_credentials(files);
    user(">first");
    works(&ledger).await;
    user(">second");
    // The lost connection is noticed first.
    ledger.ready().await.unwrap_err();
    let error = refuses_everything(&ledger).await;
    assert_eq!(error.fault, StorageFault::Denied, "{error}");
    for (text, wanted) in [("", "is empty"), ("wrong", "authentication failed")] {
        std::fs::write(&file, text).unwrap();
        once_it_works(async || match ledger.ready().await {
            Err(error) if error.to_string().contains(wanted) => Ok(()),
            other => Err(Unavailable::failed(format!("{other:?}"))),
        })
        .await;
    }
    std::fs::write(&file, "second").unwrap();
    works(&ledger).await;
    std::fs::remove_file(&file).unwrap();
    user(">third");
    let error = once_it_works(async || match ledger.ready().await {
        Err(error) if error.to_string().contains("cannot be read") => Ok(error),
        other => Err(Unavailable::failed(format!("{other:?}"))),
    })
    .await;
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_password_for_a_cluster_and_for_sentinels() {
    let folder = folder(&[("password", "secret"), ("sentinel", "other\n")]);
    let file = |name: &str| Some(folder.path().join(name));
    let files = CredentialFiles {
        password: file("password"),
        sentinel_password: file("sentinel"),
        ..CredentialFiles::default()
    };

    let master = Redis::start();
    let sentinel = Redis::sentinel("main", &master);
    master.command(&["ACL", "SETUSER", "weir", "on", ">secret", "~*", "+@all"]);
    let place = format!("redis+sentinel://weir@127.0.0.1:{}/main", sentinel.port());

    assert_eq!(sentinel.command(&["ACL", "SETUSER", "default", "resetpass", ">other"]), "+OK");
    works(&ledger(&place).with_credentials(files.clone())).await;
    let without = CredentialFiles { sentinel_password: None, ..files.clone() };
    let error = refuses_everything(&ledger(&place).with_credentials(without)).await;
    assert_eq!(error.fault, StorageFault::Denied, "{error}");

    let nodes = Redis::cluster(3);
    for node in &nodes {
        node.command(&["ACL", "SETUSER", "weir", "on", ">secret", "~*", "+@all"]);
    }
    let place = format!("redis+cluster://weir@127.0.0.1:{}", nodes[0].port());
    works(&ledger(&place).with_credentials(CredentialFiles { sentinel_password: None, ..files })).await;
}

#[tokio::test]
async fn a_client_certificate() {
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), rcgen::Issuer::new(parameters, key))
    };
    let (trusted, issuer) = authority("trusted");
    let (other, other_issuer) = authority("other");
    let leaf = |issuer: &rcgen::Issuer<'_, rcgen::KeyPair>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (parameters.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
    };
    let (served, served_key) = leaf(&issuer);
    let (client, client_key) = leaf(&issuer);
    let (stranger, stranger_key) = leaf(&other_issuer);
    let folder = folder(&[
        ("ca.pem", &trusted),
        ("other.pem", &other),
        ("cert.pem", &served),
        ("key.pem", &served_key),
        ("client.pem", &client),
        ("client.key", &client_key),
        ("stranger.pem", &stranger),
        ("stranger.key", &stranger_key),
    ]);
    let path = |name: &str| folder.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    let port = free_port().to_string();
    let _redis = Redis::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &text("cert.pem"),
        "--tls-key-file",
        &text("key.pem"),
        "--tls-ca-cert-file",
        &text("ca.pem"),
        "--tls-auth-clients",
        "yes",
    ]);
    let with = |authorities: &str, client: Option<&str>| {
        let client = client.map(|name| ClientFiles {
            certificate: path(&format!("{name}.pem")),
            key: path(&format!("{name}.key")),
        });
        let files =
            CredentialFiles { authorities: Some(path(authorities)), client, ..CredentialFiles::default() };
        ledger(&format!("rediss://127.0.0.1:{port}")).with_credentials(files)
    };
    works(&with("ca.pem", Some("client"))).await;
    for (authorities, client) in
        [("ca.pem", None), ("ca.pem", Some("stranger")), ("other.pem", Some("client"))]
    {
        let error = refuses_everything(&with(authorities, client)).await;
        assert_eq!(error.fault, StorageFault::Unreachable, "{authorities} {client:?}: {error}");
    }
}

/// Replaces the master under traffic. What was acknowledged is what is counted, and no hold is left.
#[tokio::test]
async fn a_planned_failover_loses_no_acknowledged_charge() {
    let master = Redis::start();
    let replica = Redis::replica_of(&master);
    let sentinels = [Redis::sentinel("main", &master), Redis::sentinel("main", &master)];
    for sentinel in &sentinels {
        wait::until("the sentinels to know all", || {
            let info = sentinel.command(&["INFO", "sentinel"]);
            info.contains("slaves=1,sentinels=2").then_some(())
        });
    }
    let [one, other] = sentinels.each_ref().map(Redis::port);
    let ledger = ledger(&format!("redis+sentinel://127.0.0.1:{one},127.0.0.1:{other}/main"));
    works(&ledger).await;
    let (ends, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let traffic = async |task: u64| {
        for call in 0.. {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("{task}-{call}");
            if ledger.reserve(&id, hold(5), Moment::now()).await.is_ok() {
                once_it_works(async || ledger.commit(&id, charge(3), Moment::now()).await).await;
                acknowledged.fetch_add(3, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let is_master = |node: &Redis| node.command(&["INFO", "replication"]).contains("role:master");
    let failover = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(sentinels[0].command(&["SENTINEL", "FAILOVER", "main"]), "+OK");
        // The old master stays a master for some seconds. Then it copies the new one.
        let start = Instant::now();
        while !is_master(&replica) || is_master(&master) {
            assert!(start.elapsed() < wait::DEADLINE, "the failover does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        ends.store(true, Ordering::Relaxed);
    };
    tokio::join!(traffic(1), traffic(2), traffic(3), traffic(4), failover);
    let readings = once_it_works(async || ledger.readings(Moment::now()).await).await;
    let counted: Vec<_> = readings.iter().map(|reading| (reading.used, reading.held)).collect();
    assert_eq!(counted, [(acknowledged.load(Ordering::Relaxed) + 10, 0)]);
}

#[tokio::test]
async fn installations_with_different_prefixes_share_a_redis() {
    let (redis, nodes) = (Redis::start(), Redis::cluster(3));
    for place in [redis.url(0), format!("redis+cluster://127.0.0.1:{}", nodes[0].port())] {
        let open = |prefix: &str| ledger(&place).with_prefix(prefix).into_ledger();
        let (production, staging, again) = (open(""), open("staging:"), open("staging:"));
        works(&*staging).await;
        works(&*staging).await;
        let used = async |ledger: &dyn Ledger| {
            let readings = once_it_works(async || ledger.readings(Moment::now()).await).await;
            readings.iter().map(|reading| reading.used).collect::<Vec<_>>()
        };
        assert_eq!(
            (used(&*production).await, used(&*staging).await, used(&*again).await),
            (vec![], vec![20], vec![20])
        );
        works(&*production).await;
        assert_eq!((used(&*production).await, used(&*staging).await), (vec![10], vec![20]));
    }
    assert!(redis.command(&["EXISTS", "{weir}:buckets", "staging:{weir}:buckets"]) == ":2");
}
