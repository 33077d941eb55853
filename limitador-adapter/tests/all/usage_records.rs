//! Usage records: one test body over SQLite and PostgreSQL, and the calls, pages and commands around them.

use crate::binary::adapter;
use crate::server::{POLICY, Server, commit, descriptor, reserve};
use e2e::certificates::Authority;
use e2e::postgres::{PASSWORD, Postgres};
use jiff::Timestamp;
use jiff::civil::Date;
use limitador_adapter::admin::http::FORGETS;
use limitador_adapter::cli::{Storage, UsageStoreArgs};
use limitador_adapter::metrics::AdapterMetrics;
use limitador_adapter::usage::query::{TotalsQuery, UsageTotal};
use limitador_adapter::usage::recorder::UsageRecorder;
use limitador_adapter::usage::row::USERS;
use limitador_adapter::usage::store::{self, StoreError, UsageStore};
use protocol::wire::envoy::extensions::common::ratelimit::v3::DeferredCharge;
use protocol::wire::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ParkedResult, SeenResult};
use protocol::wire::weir::v1::{ChargedLimit, CounterValue, GetPlanRequest, SettledUsage};
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;
use tonic::Code as Grpc;

/// A database, of which some tests open several stores.
enum Database {
    Sqlite(TempDir),
    Postgres(Box<Postgres>),
}

impl Database {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Self {
        Self::Postgres(Box::new(Postgres::start()))
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join("usage.db").display()),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    fn args(&self) -> UsageStoreArgs {
        UsageStoreArgs { usage: Some(self.url().parse()), ..UsageStoreArgs::default() }
    }

    fn open(&self) -> Arc<dyn UsageStore> {
        store::open(&self.args().access().unwrap().unwrap()).unwrap()
    }

    fn recorder(&self) -> Arc<UsageRecorder> {
        let metrics = Arc::new(AdapterMetrics::new().unwrap());
        let (recorder, writing) = UsageRecorder::new(self.open(), USERS.map(str::to_owned).to_vec(), metrics);
        tokio::spawn(writing);
        Arc::new(recorder)
    }
}

macro_rules! on_every_database {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Database::sqlite()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Database::postgres()).await;
            })*
        }
    };
}

on_every_database! {
    a_record_is_written_once,
    totals_by_every_name,
    an_exchange_counts_for_each_of_its_policies_and_values,
    several_adapters_start_at_once_and_write_the_same_records,
    one_bad_record_does_not_block_the_others,
    old_records_are_deleted_in_steps,
    an_adapter_serves_records,
    a_result_that_is_seen_completes_the_record_of_its_creation,
}

/// 2026-11-15T12:00:00Z.
const NOON: u64 = 1_794_744_000_000;
const DAY: u64 = 24 * 60 * 60 * 1000;

fn limit(policy: &str, charged: u64, counters: &[(&str, &str)]) -> ChargedLimit {
    let counter = |(expression, value): &(&str, &str)| CounterValue {
        expression: (*expression).to_owned(),
        value: (*value).to_owned(),
    };
    ChargedLimit {
        policy: policy.to_owned(),
        limit: "free".to_owned(),
        unit: "tokens".to_owned(),
        charged,
        counters: counters.iter().map(counter).collect(),
        ..ChargedLimit::default()
    }
}

fn record(id: &str, user: &str, total: u64) -> SettledUsage {
    SettledUsage {
        id: id.to_owned(),
        time_ms: NOON,
        gateway: "default/gateway".to_owned(),
        route: "route".to_owned(),
        request_id: format!("request-{id}"),
        limits: vec![limit("default/llm", total, &[("auth.identity.userid", user)])],
        provider: "openai".to_owned(),
        model: "gpt".to_owned(),
        status: "ok".to_owned(),
        source: "reported".to_owned(),
        input: total / 2,
        cached: 1,
        cache_write: 2,
        output: total - total / 2,
        reasoning: 3,
        total,
        micro_usd: Some(5),
        first_byte_ms: Some(7),
        duration_ms: Some(9),
        ..SettledUsage::default()
    }
}

fn query(text: &str) -> TotalsQuery {
    let query = format!("from=2026-11-01&to=2026-12-01&{text}");
    TotalsQuery::parse(&query, Date::constant(2026, 11, 29)).unwrap()
}

/// Returns the rows as `keys: requests total`.
async fn totals(store: &Arc<dyn UsageStore>, by: &str) -> Vec<String> {
    let mut totals = store.totals(&query(by)).await.unwrap();
    totals.sort();
    let row = |UsageTotal { keys, sums }: &UsageTotal| {
        let keys: Vec<&str> = keys.iter().map(|key| key.as_deref().unwrap_or("-")).collect();
        format!("{}: {} {}", keys.join(" "), sums[0], sums[6])
    };
    totals.iter().map(row).collect()
}

async fn a_record_is_written_once(database: Database) {
    let recorder = database.recorder();
    for further in 0..3 {
        let all = SettledUsage {
            further: (0..further).map(|at| record(&format!("b{at}"), "bob", 10)).collect(),
            ..record("a", "alice", 100)
        };
        assert_eq!(recorder.record(all).await.unwrap().settled, further + 1);
    }
    let all = store_totals(recorder.store()).await;
    assert_eq!(all, [3, 60, 3, 6, 60, 9, 120, 15], "{all:?}");
    // The same id with other numbers changes nothing.
    recorder.record(record("a", "mallory", 1)).await.unwrap();
    assert_eq!(totals(recorder.store(), "by=user").await, ["alice: 1 100", "bob: 2 20"]);
    // Another adapter reads the same.
    assert_eq!(store_totals(&database.open()).await, all);
}

async fn store_totals(store: &Arc<dyn UsageStore>) -> [i64; 8] {
    store.totals(&query("")).await.unwrap()[0].sums
}

async fn totals_by_every_name(database: Database) {
    let recorder = database.recorder();
    let others = [
        SettledUsage { time_ms: NOON - 15 * DAY, ..record("before", "alice", 1000) },
        SettledUsage { time_ms: NOON + 16 * DAY, ..record("after", "alice", 1000) },
        SettledUsage { time_ms: NOON + DAY, status: "client_disconnect".into(), ..record("2", "alice", 20) },
        SettledUsage { model: String::new(), provider: String::new(), ..record("3", "bob", 30) },
        SettledUsage {
            gateway: "*".into(),
            route: String::new(),
            source: "none".into(),
            ..record("4", "null", 0)
        },
    ];
    recorder.record(SettledUsage { further: others.to_vec(), ..record("1", "alice", 10) }).await.unwrap();
    let store = recorder.store();
    for (by, wanted) in [
        ("", &[": 4 60"][..]),
        ("by=day", &["2026-11-15: 3 40", "2026-11-16: 1 20"]),
        ("by=user", &["-: 1 0", "alice: 2 30", "bob: 1 30"]),
        ("by=model", &["-: 1 30", "gpt: 3 30"]),
        ("by=provider", &["-: 1 30", "openai: 3 30"]),
        ("by=gateway", &["*: 1 0", "default/gateway: 3 60"]),
        ("by=route", &["-: 1 0", "route: 3 60"]),
        ("by=status", &["client_disconnect: 1 20", "ok: 3 40"]),
        ("by=source", &["none: 1 0", "reported: 3 60"]),
        ("by=policy", &["default/llm: 4 60"]),
        (
            "by=user,day",
            &[
                "- 2026-11-15: 1 0",
                "alice 2026-11-15: 1 10",
                "alice 2026-11-16: 1 20",
                "bob 2026-11-15: 1 30",
            ],
        ),
    ] {
        assert_eq!(totals(store, by).await, wanted, "{by}");
    }
}

async fn an_exchange_counts_for_each_of_its_policies_and_values(database: Database) {
    let recorder = database.recorder();
    let team = |name| ("request.headers[\"x-team\"]", name);
    let both = SettledUsage {
        limits: vec![
            limit("b/second", 100, &[team("red")]),
            limit("a/first", 100, &[("auth.identity.sub", "alice")]),
            limit("a/first", 1, &[("auth.identity.sub", "alice")]),
            limit("b/second", 100, &[team("blue")]),
        ],
        ..record("both", "", 100)
    };
    let one = SettledUsage { limits: vec![limit("b/second", 7, &[team("red")])], ..record("one", "", 7) };
    recorder.record(SettledUsage { further: vec![one], ..both }).await.unwrap();
    let store = recorder.store();
    assert_eq!(totals(store, "").await, [": 2 107"]);
    assert_eq!(totals(store, "by=policy").await, ["a/first: 1 100", "b/second: 2 107"]);
    let by_team = "by=counter:request.headers%5B%22x-team%22%5D";
    assert_eq!(totals(store, by_team).await, ["blue: 1 100", "red: 2 107"]);
    assert_eq!(totals(store, "by=counter:auth.identity.sub").await, ["-: 1 7", "alice: 1 100"]);
    assert_eq!(totals(store, "by=counter:'").await, ["-: 2 107"], "an expression is no part of the SQL");
    let both = format!("{by_team}&by=policy,user");
    assert_eq!(
        totals(store, &both).await,
        [
            "blue a/first alice: 1 100",
            "blue b/second alice: 1 100",
            "red a/first alice: 1 100",
            "red b/second -: 1 7",
            "red b/second alice: 1 100"
        ]
    );
}

async fn several_adapters_start_at_once_and_write_the_same_records(database: Database) {
    let recorders: Vec<_> = (0..4).map(|_| database.recorder()).collect();
    let calls = recorders.iter().flat_map(|recorder| {
        (0..10).map(|call| {
            let recorder = Arc::clone(recorder);
            let further = (0..20).map(|at| record(&format!("{}", (call * 7 + at) % 100), "alice", 1));
            let all = SettledUsage { further: further.collect(), ..record("same", "alice", 1) };
            tokio::spawn(async move {
                // A replica may have to wait for the others.
                while let Err(error) = recorder.record(all.clone()).await {
                    assert!(
                        matches!(error, limitador_adapter::usage::recorder::RecordError::Store(_)),
                        "{error}"
                    );
                }
            })
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let distinct: std::collections::BTreeSet<_> =
        (0..10).flat_map(|call| (0..20).map(move |at| (call * 7 + at) % 100)).collect();
    let wanted = distinct.len() + 1;
    assert_eq!(totals(recorders[0].store(), "").await, [format!(": {wanted} {wanted}")]);
}

async fn one_bad_record_does_not_block_the_others(database: Database) {
    let recorder = database.recorder();
    let bad = [
        SettledUsage { id: String::new(), ..record("", "alice", 1) },
        SettledUsage { limits: Vec::new(), ..record("no limits", "alice", 1) },
        SettledUsage { model: "\0\u{1}\u{10ffff}\"'\\".into(), total: u64::MAX, ..record("odd", "\0", 1) },
    ];
    let call = SettledUsage { further: bad.to_vec(), ..record("good", "alice", 1) };
    assert_eq!(recorder.record(call).await.unwrap().settled, 4, "sending them again would not help");
    let all = store_totals(recorder.store()).await;
    assert_eq!((all[0], all[6]), (2, 1_000_000_000_001));
    // If the database rejects a row, only this row is lost.
    let store = database.open();
    let error = store.insert(json!([{ "id": "x" }]).to_string()).await.unwrap_err();
    assert!(matches!(error, StoreError::Rejected(_)), "{error}");
    recorder.record(record("later", "alice", 1)).await.unwrap();
    assert_eq!(store_totals(recorder.store()).await[0], 3);
}

async fn old_records_are_deleted_in_steps(database: Database) {
    let recorder = database.recorder();
    let old = |at: u64| SettledUsage { time_ms: NOON - 5 * DAY, ..record(&format!("old{at}"), "alice", 1) };
    let call = SettledUsage { further: (0..25).map(old).collect(), ..record("new", "alice", 1) };
    recorder.record(call).await.unwrap();
    let store = recorder.store();
    let mut deleted = Vec::new();
    for _ in 0..4 {
        deleted.push(store.expire("2026-11-15", 10).await.unwrap());
    }
    assert_eq!(deleted, [10, 10, 5, 0]);
    assert_eq!(totals(store, "by=day").await, ["2026-11-15: 1 1"]);
}

async fn an_adapter_serves_records(database: Database) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
    let (policies, token) = (folder.path().join("llm.yaml"), folder.path().join("token"));
    std::fs::write(&token, "s3cret").unwrap();
    let mut config = Server::config(vec![policies], 100, Storage::Memory);
    config.usage = database.args();
    config.admin_token_file = Some(token.clone());
    let server = Server::configured(folder, config).await;

    // The plan tells filters to send records.
    let asked = GetPlanRequest { gateway: "*".into(), knows_doubt: true, ..GetPlanRequest::default() };
    let plan = server.plans().get_plan(asked.clone()).await.unwrap().into_inner();
    assert!(plan.records_usage);
    let without = Server::start(&[("llm.yaml", POLICY)]).await;
    let other = without.plans().get_plan(asked).await.unwrap().into_inner();
    assert!(!other.records_usage && other.version != plan.version, "a change reaches waiting filters");
    let refused = without.usage().record_usage(record("1", "alice", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Grpc::Aborted, "another replica may store it");
    assert_eq!(without.get("/api/usage").await.0, 404);

    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap();
    let call = SettledUsage {
        time_ms: now,
        further: vec![SettledUsage { time_ms: now, ..record("2", "=bob", 30) }],
        ..record("1", "alice", 100)
    };
    for _ in 0..2 {
        assert_eq!(server.usage().record_usage(call.clone()).await.unwrap().into_inner().settled, 2);
    }
    assert_eq!(server.get("/api/usage").await.0, 401);
    let authorized = "host: localhost\r\nauthorization: Bearer s3cret\r\n";
    let (head, body) = server.get_with("/api/usage?by=user,policy", authorized).await;
    assert!(head.contains("200"), "{head} {body}");
    let rows: Value = serde_json::from_str(&body).unwrap();
    let alice = json!({ "user": "alice", "policy": "default/llm", "requests": 1, "input": 50, "cached": 1,
        "cacheWrite": 2, "output": 50, "reasoning": 3, "total": 100, "microUsd": 5 });
    assert_eq!((rows.as_array().unwrap().len(), &rows[1]), (2, &alice), "{rows}");
    let (head, body) = server.get_with("/api/usage?by=nobody", authorized).await;
    assert!(head.contains("400") && body.starts_with("by: \"nobody\" is unknown"), "{head} {body}");
    assert_eq!(server.metric("weir_usage_records_total{outcome=\"written\"}").await, 2.0);
    assert_eq!(server.metric("weir_usage_records_total{outcome=\"repeated\"}").await, 2.0);
    assert_eq!(server.metric("weir_usage_store_up").await, 1.0);
    assert_eq!(server.get("/readyz").await, (200, format!("ok, but {FORGETS}\n")));

    // The command asks the adapter.
    let url = format!("http://127.0.0.1:{}", server.serving.http.port());
    let mut command = adapter();
    command.args(["usage", "--server", &url, "--by", "user", "--csv", "--token-file"]).arg(&token);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "user,requests,input,cached,cacheWrite,output,reasoning,total,microUsd\n\
         '=bob,1,15,1,2,15,3,30,5\nalice,1,50,1,2,50,3,100,5\n",
        "{output:?}"
    );
}

async fn a_result_that_is_seen_completes_the_record_of_its_creation(database: Database) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
    let mut config = Server::config(vec![folder.path().join("llm.yaml")], 100, Storage::Memory);
    config.usage = database.args();
    let server = Server::configured(folder, config).await;
    let store = database.open();
    let now = || u64::try_from(Timestamp::now().as_millisecond()).unwrap();
    let seen = |id: &str, total: u64, partial: bool| SettledUsage {
        time_ms: now(),
        seen: Some(SeenResult {
            id: id.to_owned(),
            partial,
            output: total - 30,
            total,
            input: 30,
            ends: !partial,
            ..SeenResult::default()
        }),
        ..SettledUsage::default()
    };
    let rows = async || {
        let mut rows = store.totals(&TotalsQuery::parse("by=user,source", today()).unwrap()).await.unwrap();
        rows.sort();
        rows.into_iter().map(|row| (row.keys, row.sums)).collect::<Vec<_>>()
    };
    let row = |source: &str, [input, output, total]: [i64; 3]| {
        let keys = vec![Some("alice".to_owned()), Some(source.to_owned())];
        vec![(keys, [1, input, 0, 0, output, 0, total, 0])]
    };
    // Nobody knows the result yet. Another gateway may have created it, but this adapter will not learn how.
    server.usage().record_usage(seen("resp_1", 100, false)).await.unwrap();
    // The creation is charged nothing for now.
    let mut tokens = descriptor("default/llm/free", Some(("tokens", "3600s")), Some(600));
    tokens.entries.push(Entry { key: "auth.identity.userid".into(), value: "alice".into() });
    server.kuadrant().reserve(reserve("2", vec![tokens.clone()])).await.unwrap();
    tokens.deferred =
        Some(DeferredCharge { input: 1_000_000, output: 1_000_000, ..DeferredCharge::default() });
    let parked = Some(ParkedResult { id: "resp_2".to_owned(), input: 20 });
    let creation = CommitRequest { parked, ..commit("2", vec![tokens]) };
    server.kuadrant().commit(creation).await.unwrap();

    // The read arrives before the record of the creation, from another gateway.
    let early = server.usage().record_usage(seen("resp_2", 100, false)).await;
    early.expect("a missing record holds nothing back");
    assert_eq!(server.books("free", "tokens").await, [(100, 0)], "it is charged nevertheless");
    let created = SettledUsage {
        time_ms: now(),
        source: "deferred".to_owned(),
        limits: vec![limit("default/llm", 0, &[("auth.identity.userid", "alice")])],
        result_id: "resp_2".to_owned(),
        micro_usd: None,
        ..record("2", "alice", 0)
    };
    let created = SettledUsage { input: 0, cached: 0, cache_write: 0, reasoning: 0, ..created };
    server.usage().record_usage(created.clone()).await.unwrap();
    assert_eq!(rows().await, row("deferred", [0, 0, 0]));
    server.usage().record_usage(seen("resp_2", 100, false)).await.unwrap();
    assert_eq!(rows().await, row("reported", [30, 70, 100]));
    // Repeated records, parts, and the creation's own record change nothing. More usage is charged and recorded.
    for again in [seen("resp_2", 100, false), seen("resp_2", 60, true), created] {
        server.usage().record_usage(again).await.unwrap();
        assert_eq!(rows().await, row("reported", [30, 70, 100]));
    }
    let both = SettledUsage { further: vec![seen("resp_2", 140, false)], ..record("3", "bob", 1) };
    server.usage().record_usage(SettledUsage { time_ms: NOON, ..both }).await.unwrap();
    assert_eq!(rows().await.first(), row("reported", [30, 110, 140]).first());
    assert_eq!(server.books("free", "tokens").await, [(140, 0)]);
    let charged = store.totals(&TotalsQuery::parse("by=policy,user", today()).unwrap()).await.unwrap();
    assert!(
        charged.iter().any(|row| row.keys[1].as_deref() == Some("alice") && row.sums[6] == 140),
        "{charged:?}"
    );
}

fn today() -> Date {
    Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_records_are_not_acknowledged_and_charging_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let mut postgres = Postgres::start();
    let mut config = Server::config(vec![folder.path().join("llm.yaml")], 100, Storage::Memory);
    config.usage.usage = Some(postgres.url_without_password().parse());
    config.usage.usage_password_file = Some(password);
    let server = Server::configured(folder, config).await;
    server.usage().record_usage(record("1", "alice", 1)).await.unwrap();

    postgres.kill();
    let refused = server.usage().record_usage(record("2", "alice", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Grpc::Aborted);
    assert!(!refused.message().contains(PASSWORD), "{refused}");
    server.kuadrant().reserve(crate::server::reserve("2", crate::server::whole(10, 1))).await.unwrap();
    server.kuadrant().commit(crate::server::commit("2", crate::server::whole(10, 1))).await.unwrap();
    assert_eq!(server.books("free", "tokens").await, [(10, 0)]);
    let (status, ready) = server.get("/readyz").await;
    assert!(status == 200 && ready.starts_with("ok, but the usage store is unavailable"), "{ready}");
    assert_eq!(server.metric("weir_usage_store_up").await, 0.0);
    assert_eq!(server.get("/api/usage").await.0, 503);

    postgres.restart();
    while server.usage().record_usage(record("2", "alice", 1)).await.is_err() {}
    assert_eq!(postgres.sql("SELECT id, \"user\", total FROM usage ORDER BY id"), "1|alice|1\n2|alice|1");
    assert_eq!(server.metric("weir_usage_store_up").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_that_is_replaced_is_opened_again() {
    let database = Database::sqlite();
    let recorder = database.recorder();
    recorder.record(record("1", "alice", 1)).await.unwrap();
    let Database::Sqlite(folder) = &database else { panic!("it is SQLite") };
    for file in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    recorder.record(record("2", "alice", 1)).await.unwrap();
    assert_eq!(store_totals(&database.open()).await[0], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_the_certificate_is_verified() {
    let (authority, other) = (Authority::new("db"), Authority::new("another"));
    let postgres = Postgres::start_with_tls(&authority);
    let folder = tempfile::tempdir().unwrap();
    let open = |authority: &Authority, name: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, authority.pem()).unwrap();
        let url = format!("{}?sslmode=require&sslrootcert={}", postgres.url(), file.display());
        let args = UsageStoreArgs { usage: Some(url.parse()), ..UsageStoreArgs::default() };
        store::open(&args.access().unwrap().unwrap()).unwrap()
    };
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND application_name = 'weir'";
    let store = open(&authority, "ca.crt");
    store.prepare().await.unwrap();
    assert_eq!(postgres.sql(encrypted), "1");
    let error = open(&other, "other.crt").prepare().await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("ertificate")), "{error}");
    let system = format!("{}?sslmode=require", postgres.url());
    let args = UsageStoreArgs { usage: Some(system.parse()), ..UsageStoreArgs::default() };
    if let Ok(store) = store::open(&args.access().unwrap().unwrap()) {
        assert!(store.prepare().await.is_err(), "the system does not trust it");
    }
}

#[test]
fn a_wrong_store_is_reported_without_its_password() {
    for store in [
        "mysql://weir:hunter2@db/usage",
        "sqlite:",
        "postgres://weir:hunter2@h:hunter2/d",
        "postgres://w:hunter2@h/d?sslmode=prefer",
    ] {
        let mut command = adapter();
        command.args([
            "serve",
            "--grpc-listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--usage",
            store,
        ]);
        let folder = crate::binary::folder(&[("llm.yaml", POLICY)]);
        let output = command.args(["--policies", "."]).current_dir(folder.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("--usage"), "{store}: {error}");
        assert!(!error.contains("hunter2"), "{store}: {error}");
    }
}
