//! GetPlan: a long poll that reports every change.

use crate::server::{POLICY, Server};
use protocol::wire::weir::v1::{GetPlanRequest, GetPlanResponse};
use serde_json::Value;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

use limitador_adapter::grpc::services::weir::v1::policy_service_client::PolicyServiceClient;

fn names(plan: &GetPlanResponse) -> Vec<String> {
    let name = |policy: &Vec<u8>| {
        let policy: Value = serde_json::from_slice(policy).unwrap();
        policy["metadata"]["name"].as_str().unwrap().to_owned()
    };
    plan.policies.iter().map(name).collect()
}

async fn poll(client: &mut PolicyServiceClient<Channel>, gateway: &str, version: &str) -> GetPlanResponse {
    let request = GetPlanRequest {
        gateway: gateway.into(),
        version: version.into(),
        headers_alone: false,
        knows_doubt: true,
    };
    client.get_plan(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn each_gateway_gets_its_own_policies_and_those_of_routes() {
    let other = POLICY.replace("name: gateway", "name: other").replace("name: llm", "name: b");
    let foreign = POLICY.replace("{name: llm}", "{name: c, namespace: elsewhere}");
    let route = POLICY.replace("kind: Gateway", "kind: HTTPRoute").replace("name: llm", "name: a");
    let server = Server::start(&[
        ("1.yaml", POLICY),
        ("2.yml", &other),
        ("3.json.yaml", &foreign),
        ("4.yaml", &route),
    ])
    .await;
    let mut client = server.plans();
    for (gateway, wanted) in [
        ("*", vec!["a", "b", "llm", "c"]),
        ("", vec!["a", "b", "llm", "c"]),
        ("default/gateway", vec!["a", "llm"]),
        ("elsewhere/gateway", vec!["a", "c"]),
        ("default/none", vec!["a"]),
    ] {
        assert_eq!(names(&poll(&mut client, gateway, "").await), wanted, "for {gateway:?}");
    }
    for bad in ["gateway", "a/b/c", "/gateway", "default/"] {
        let request = GetPlanRequest {
            gateway: bad.into(),
            version: String::new(),
            headers_alone: false,
            knows_doubt: true,
        };
        let error = client.get_plan(request).await.unwrap_err();
        assert_eq!(error.message(), format!("gateway: {bad:?} is neither NAMESPACE/NAME nor *"));
    }
}

#[tokio::test]
async fn a_poll_waits_for_a_change_of_its_own_plan() {
    let other = POLICY.replace("name: gateway", "name: other").replace("name: llm", "name: b");
    let server = Server::start(&[("1.yaml", POLICY), ("2.yaml", &other)]).await;
    let mut client = server.plans();
    let first = poll(&mut client, "default/gateway", "").await;
    let version = first.version.clone();
    let waiting = tokio::spawn(async move { poll(&mut client, "default/gateway", &version).await });
    // A change to another gateway's plan does not end the poll.
    server.replace("2.yaml", &other.replace("limit: 3", "limit: 4"));
    let mut others = server.plans();
    let before = poll(&mut others, "default/other", "").await;
    poll(&mut others, "default/other", &before.version).await;
    assert!(!waiting.is_finished());

    let edited = Instant::now();
    server.replace("1.yaml", &POLICY.replace("limit: 1000,", "limit: 2000,"));
    let second = waiting.await.unwrap();
    assert!(edited.elapsed() < Duration::from_secs(1), "{:?}", edited.elapsed());
    assert_ne!(second.version, first.version);
    assert!(String::from_utf8_lossy(&second.policies[0]).contains("2000"));

    // The version depends only on the content, so an earlier content has its earlier version again.
    server.replace("1.yaml", POLICY);
    let mut client = server.plans();
    assert_eq!(poll(&mut client, "default/gateway", &second.version).await, first);
}

#[tokio::test]
async fn a_drain_answers_those_who_wait() {
    let server = Server::start(&[("1.yaml", POLICY)]).await;
    let mut client = server.plans();
    let version = poll(&mut client, "*", "").await.version;
    let waiting = tokio::spawn({
        let version = version.clone();
        async move { poll(&mut client, "*", &version).await }
    });
    // When a third poll on a separate connection has been answered, the second poll is already waiting.
    let mut another = server.plans();
    poll(&mut another, "*", "").await;
    let start = Instant::now();
    server.serving.drain().await;
    assert_eq!(waiting.await.unwrap().version, version);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
