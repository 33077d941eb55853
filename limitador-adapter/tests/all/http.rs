//! The HTTP endpoints, and the auxiliary gRPC services.

use crate::server::{POLICY, Server, reserve, whole};
use jiff::Timestamp;
use limitador_adapter::admin::http::FORGETS;
use limitador_adapter::cli::Storage;
use protocol::wire::weir::v1::GetPlanRequest;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};

#[tokio::test]
async fn the_counters_are_those_of_the_contract() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    server.kuadrant().reserve(reserve("1", whole(400, 1))).await.unwrap();
    let told = server.json("/api/counters").await;
    let alice = json!({"auth.identity.userid": "alice"});
    let resets = told[1]["resetsInSeconds"].as_u64().unwrap();
    assert!((50..=60).contains(&resets));
    let since = &told[0]["countingSince"];
    let begun = since.as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!((0..=60).contains(&begun.until(Timestamp::now()).unwrap().get_seconds()), "{since}");
    let wanted = json!([
        {"policy": "default/llm", "limit": "all", "unit": "tokens", "window": "24h", "counters": {}, "max": 100_000, "used": 0,
         "held": 400, "leased": 0, "granted": 0, "remaining": 99_600, "resetsInSeconds": 86_400, "countingSince": since},
        {"policy": "default/llm", "limit": "free", "unit": "requests", "window": "1m", "counters": alice, "max": 3, "used": 1,
         "held": 0, "leased": 0, "granted": 0, "remaining": 2, "resetsInSeconds": resets, "countingSince": since},
        {"policy": "default/llm", "limit": "free", "unit": "tokens", "window": "1h", "counters": alice, "max": 1000, "used": 0,
         "held": 400, "leased": 0, "granted": 0, "remaining": 600, "resetsInSeconds": 3600, "countingSince": since},
    ]);
    assert_eq!(told, wanted);
    assert_eq!(server.metric("weir_holds").await, 2.0);
    assert_eq!(server.metric("weir_counters").await, 3.0);
    assert_eq!(server.metric("weir_reservations").await, 1.0);
}

#[tokio::test]
async fn whoever_watches_sees_the_next_reserve_of_the_limit() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let mut watching = std::process::Command::new(env!("CARGO_BIN_EXE_limitador-adapter"))
        .args([
            "explain",
            "--watch",
            "--limit",
            "free",
            "--server",
            &format!("http://{}", server.serving.http),
        ])
        .env_clear()
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The test cannot observe when the call starts waiting, so it keeps sending.
    let mut client = server.kuadrant();
    while watching.try_wait().unwrap().is_none() {
        client.reserve(reserve("1", whole(400, 1))).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let told = String::from_utf8(watching.wait_with_output().unwrap().stdout).unwrap();
    let without_time = |line: &str| line.split(", resets in").next().unwrap_or_default().to_owned();
    insta::assert_snapshot!(told.lines().map(without_time).collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn counters_of_limits_that_are_gone_are_told_until_their_window_ends() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    server.kuadrant().reserve(reserve("1", whole(400, 1))).await.unwrap();
    server.replace("llm.yaml", &POLICY.replace("    all:\n", "    everyone:\n"));
    let gone = |told: &serde_json::Value| told[0]["inForce"] == false;
    let told = loop {
        let told = server.json("/api/counters").await;
        if gone(&told) {
            break told;
        }
        tokio::task::yield_now().await;
    };
    let wanted = json!({"policy": "default/llm", "limit": "all", "unit": "tokens", "window": "24h", "counters": {}, "used": 0,
        "held": 400, "leased": 0, "granted": 0, "resetsInSeconds": 86_400, "countingSince": told[0]["countingSince"], "inForce": false});
    assert_eq!(told[0], wanted);
    assert_eq!(told.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_version_of_each_plan_is_exported_as_its_filters_export_it() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    for gateway in ["*", "default/gateway"] {
        let request = GetPlanRequest {
            gateway: gateway.into(),
            version: String::new(),
            headers_alone: false,
            knows_doubt: true,
        };
        let plan = server.plans().get_plan(request).await.unwrap().into_inner();
        let told = server.metric(&format!("weir_plan_version{{gateway=\"{gateway}\"}}")).await;
        assert_eq!(told, engine::watch::number(&plan.version) as f64, "{gateway}");
        assert_ne!(told, 0.0);
    }
    assert_eq!(server.metric("weir_policy_watch_failures_total").await, 0.0);
}

#[tokio::test]
async fn health_and_what_is_not_there() {
    let server = Server::start(&[]).await;
    for (path, status, body) in [
        ("/healthz", 200, "ok\n"),
        ("/readyz", 200, &format!("ok, but {FORGETS}\n")),
        ("/api/counters", 200, "[]"),
        ("/api/policies", 200, "[]"),
        ("/nothing", 404, ""),
    ] {
        assert_eq!(server.get(path).await, (status, body.to_owned()), "{path}");
    }
    let mut health = HealthClient::new(server.channel());
    for service in ["", "kuadrant.service.ratelimit.v1.RateLimitService", "weir.v1.PolicyService"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = Server::start(&[]).await;
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.channel());
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|ServiceResponse { name }| name).collect();
    names.sort();
    let wanted = [
        "envoy.service.ratelimit.v3.RateLimitService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "kuadrant.service.ratelimit.v1.RateLimitService",
        "weir.v1.PolicyService",
        "weir.v1.ReservationService",
        "weir.v1.UsageService",
    ];
    assert_eq!(names, wanted);
}

/// An upgrade does not change the adapter and the proxies' configuration at the same time, so both digests
/// are served meanwhile.
#[tokio::test]
async fn modules_of_other_versions_are_served_by_their_digests() {
    let folder = tempfile::tempdir().unwrap();
    let previous = folder.path().join("previous");
    std::fs::create_dir(&previous).unwrap();
    let files = [
        ("current.wasm", "new"),
        ("previous/a.wasm", "old"),
        ("single", "older"),
        ("previous/b.txt", "none"),
    ];
    for (file, bytes) in files {
        std::fs::write(folder.path().join(file), bytes).unwrap();
    }
    let mut config = Server::config(Vec::new(), 1000, Storage::Memory);
    config.policies = vec![previous.clone()];
    config.wasm = Some(folder.path().join("current.wasm"));
    config.wasm_previous = vec![previous, folder.path().join("single")];
    let server = Server::configured(folder, config).await;
    assert_eq!(server.get("/weir.wasm").await, (200, "new".to_owned()));
    let named = |bytes: &str| format!("/weir-{}.wasm", sha256(bytes));
    for bytes in ["new", "old", "older"] {
        assert_eq!(server.get(&named(bytes)).await, (200, bytes.to_owned()));
    }
    for path in [named("none"), "/weir-.wasm".to_owned(), "/weir-new.wasm".to_owned(), "/a.wasm".to_owned()] {
        assert_eq!(server.get(&path).await.0, 404, "{path}");
    }
}

fn sha256(bytes: &str) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
