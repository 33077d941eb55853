//! The webhook against a real HTTP server, alone and in an adapter.

use crate::binary::{adapter, folder};
use crate::server::{Server, commit, descriptor, whole};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use e2e::certificates::Authority;
use e2e::process::{Process, free_port};
use e2e::redis::Redis;
use e2e::wait;
use limitador_adapter::cli::{ServeArgs, Storage};
use limitador_adapter::grpc::services::kuadrant::service::ratelimit::v1::rate_limit_service_client::RateLimitServiceClient;
use limitador_adapter::ledger::crossing::Crossing;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::metrics::{AdapterMetrics, StorageState};
use limitador_adapter::warnings::event::WarningEvent;
use limitador_adapter::warnings::webhook::{Attempts, Webhook, WebhookQueue};
use policy::model::{Threshold, Unit};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::Endpoint;

/// A receiver that answers with these statuses, and then with 204.
#[derive(Clone, Default)]
struct Receiver {
    statuses: Arc<Mutex<VecDeque<u16>>>,
    calls: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
}

async fn received(
    State(receiver): State<Receiver>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap) {
    receiver.calls.lock().unwrap().push((headers, serde_json::from_slice(&body).unwrap()));
    let status = receiver.statuses.lock().unwrap().pop_front().unwrap_or(204);
    let mut answer = HeaderMap::new();
    if (300..400).contains(&status) {
        answer.insert(header::LOCATION, "/elsewhere".parse().unwrap());
    }
    (StatusCode::from_u16(status).unwrap(), answer)
}

impl Receiver {
    fn answering(statuses: &[u16]) -> Self {
        let receiver = Self::default();
        receiver.statuses.lock().unwrap().extend(statuses);
        receiver
    }

    async fn serve_on(&self, port: u16) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(received).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// Returns the ids of the events in the order of the calls.
    fn ids(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|(_, event)| event["id"].as_str().unwrap().to_owned()).collect()
    }

    fn events(&self) -> Vec<Value> {
        self.calls.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }
}

const QUICK: Attempts = Attempts { most: 1000, pauses: (1, 20), timeout: Duration::from_secs(10) };

fn metrics() -> Arc<AdapterMetrics> {
    Arc::new(AdapterMetrics::new().unwrap())
}

fn webhook(
    address: SocketAddr,
    attempts: Attempts,
    metrics: &Arc<AdapterMetrics>,
) -> (WebhookQueue, Webhook) {
    let url = format!("http://{address}/weir?token=secret").parse().unwrap();
    Webhook::new(url, attempts, Arc::clone(metrics)).unwrap()
}

fn event(used: u64) -> WarningEvent {
    let key = crate::ledger::key("alice", Unit::Tokens);
    let threshold = Threshold::of_percent(80).unwrap();
    let crossing = Crossing { key, threshold, max: 1000, used, reset: Duration::from_secs(60) };
    WarningEvent::new("default/llm", "free", crossing, Moment::now())
}

/// Returns the number of deliveries with this outcome.
fn deliveries(metrics: &AdapterMetrics, outcome: &str) -> u64 {
    let text = metrics.render(&StorageState::default());
    let start = format!("weir_webhook_deliveries_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_call_that_fails_twice_is_delivered_once() {
    let receiver = Receiver::answering(&[500, 429]);
    let metrics = metrics();
    let (queue, webhook) = webhook(receiver.serve_on(0).await, QUICK, &metrics);
    queue.push(event(801));
    queue.push(event(802));
    drop(queue);
    webhook.deliver().await;
    let (ids, events) = (receiver.ids(), receiver.events());
    assert_eq!(ids.len(), 4);
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    assert_eq!((&events[0]["data"]["used"], &events[3]["data"]["used"]), (&json!(801), &json!(802)));
    let calls = receiver.calls.lock().unwrap();
    assert_eq!(calls[0].0[header::CONTENT_TYPE], "application/cloudevents+json; charset=utf-8");
    assert_eq!(
        ["delivered", "failed", "rejected", "dropped"].map(|it| deliveries(&metrics, it)),
        [2, 0, 0, 0]
    );
}

#[tokio::test]
async fn warnings_wait_for_a_receiver_that_is_away() {
    let (receiver, metrics) = (Receiver::default(), metrics());
    let restarting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = restarting.local_addr().unwrap();
    let (queue, webhook) = webhook(address, QUICK, &metrics);
    (0..5).for_each(|used| queue.push(event(used)));
    drop(queue);
    let delivering = tokio::spawn(webhook.deliver());
    // The first attempt has no answer, and the port is closed for a while.
    drop(restarting.accept().await.unwrap());
    drop(restarting);
    receiver.serve_on(address.port()).await;
    delivering.await.unwrap();
    let used: Vec<_> = receiver.events().iter().map(|event| event["data"]["used"].clone()).collect();
    assert_eq!(used, [0, 1, 2, 3, 4].map(|used| json!(used)));
    assert_eq!(deliveries(&metrics, "delivered"), 5);
}

#[tokio::test]
async fn a_warning_that_cannot_be_delivered_does_not_stop_the_next_one() {
    let receiver = Receiver::answering(&[503, 503, 503, 400, 302]);
    let metrics = metrics();
    let attempts = Attempts { most: 3, ..QUICK };
    let (queue, webhook) = webhook(receiver.serve_on(0).await, attempts, &metrics);
    // The first one fails three times. The second and third are rejected, which is final.
    (0..4).for_each(|used| queue.push(event(used)));
    drop(queue);
    webhook.deliver().await;
    let used: Vec<_> = receiver.events().iter().map(|event| event["data"]["used"].clone()).collect();
    assert_eq!(used, [0, 0, 0, 1, 2, 3].map(|used| json!(used)));
    assert_eq!(["delivered", "failed", "rejected"].map(|it| deliveries(&metrics, it)), [1, 1, 2]);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_asked_again() {
    let (metrics, silent) = (metrics(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let attempts = Attempts { most: 2, timeout: Duration::from_millis(20), ..QUICK };
    let (queue, webhook) = webhook(silent.local_addr().unwrap(), attempts, &metrics);
    queue.push(event(1));
    drop(queue);
    webhook.deliver().await;
    assert_eq!(deliveries(&metrics, "failed"), 1);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let receiver = Receiver::default();
    let metrics = metrics();
    let (queue, webhook) = webhook(receiver.serve_on(0).await, QUICK, &metrics);
    (0..1007).for_each(|used| queue.push(event(used)));
    assert_eq!(deliveries(&metrics, "dropped"), 7);
    drop(queue);
    webhook.deliver().await;
    assert_eq!(receiver.ids().len(), 1000);
    assert_eq!(deliveries(&metrics, "delivered"), 1000);
}

const POLICY: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: TokenRateLimitPolicy
metadata: {name: llm}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gateway}
  limits:
    free:
      warnAt: ["80%", "50%"]
      counters: [{expression: auth.identity.userid}]
      rates:
      - {limit: 1000, window: 1h}
      - {limit: 3, window: 60s, unit: requests}
    all:
      counterKey: everybody
      warnAt: ["50%"]
      rates: [{limitFrom: auth.identity.budget, window: 24h}]
"#;

/// Starts an adapter that calls the receiver.
async fn calling(address: SocketAddr, storage: Storage) -> Server {
    let folder = folder(&[("llm.yaml", POLICY)]);
    let config = Server::config(vec![folder.path().to_owned()], 10_000, storage);
    let url = format!("http://{address}/").parse();
    Server::configured(folder, ServeArgs { webhook: Some(url), ..config }).await
}

#[tokio::test]
async fn an_adapter_counts_and_sends_each_warning() {
    let receiver = Receiver::default();
    let server = calling(receiver.serve_on(0).await, Storage::Memory).await;
    let warned = |limit: &str, unit: &str, at: &str| {
        format!("weir_warnings_total{{policy=\"default/llm\",limit=\"{limit}\",unit=\"{unit}\",at=\"{at}\"}}")
    };
    // The metrics exist from the start.
    assert_eq!(server.metric(&warned("free", "tokens", "80%")).await, 0.0);
    let mut client = server.kuadrant();
    for id in ["1", "2"] {
        // Only the charge of `free` reaches its thresholds.
        let amounts = whole(if id == "1" { 850 } else { 100 }, 1);
        client.commit(commit(id, amounts)).await.unwrap();
    }
    assert_eq!(server.metric(&warned("free", "tokens", "80%")).await, 1.0);
    assert_eq!(server.metric(&warned("free", "tokens", "50%")).await, 1.0);
    assert_eq!(server.metric(&warned("free", "requests", "50%")).await, 1.0);
    assert_eq!(server.metric(&warned("free", "requests", "80%")).await, 0.0);
    // The call does not say what the maximum of `all` is.
    assert_eq!(server.metric(&warned("all", "tokens", "50%")).await, 0.0);
    let mut descriptor = descriptor("default/llm/all", Some(("tokens", "86400s")), Some(10));
    descriptor.max = Some(1900);
    client.commit(commit("3", vec![descriptor])).await.unwrap();
    assert_eq!(server.metric(&warned("all", "tokens", "50%")).await, 1.0);

    // The drain delivers what still waits.
    server.serving.drain().await;
    let sent = |event: &Value| {
        let data = &event["data"];
        let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
        (text("limit"), text("unit"), text("threshold"), data["used"].as_u64().unwrap())
    };
    let events = receiver.events();
    let sent: Vec<_> = events.iter().map(sent).collect();
    let free = |unit: &str, at: &str, used| ("free".to_owned(), unit.to_owned(), at.to_owned(), used);
    let all = ("all".to_owned(), "tokens".to_owned(), "50%".to_owned(), 960);
    let wanted = [free("tokens", "50%", 850), free("tokens", "80%", 850), free("requests", "50%", 2), all];
    assert_eq!(sent, wanted);
    assert_eq!(events[0]["type"], "dev.weir.limit.warning.v1");
    assert_eq!(events[0]["data"]["counters"], json!({"auth.identity.userid": "alice"}));
    assert_eq!(events[3]["data"]["counters"], json!({}));
    assert_eq!(
        (&events[3]["data"]["policy"], &events[3]["data"]["max"]),
        (&json!("default/llm"), &json!(1900))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_adapters_of_one_redis_send_a_warning_once() {
    let (redis, receiver) = (Redis::start(), Receiver::default());
    let address = receiver.serve_on(0).await;
    let storage = || redis.url(0).parse().unwrap();
    let servers = [calling(address, storage()).await, calling(address, storage()).await];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..64 {
        let mut client = servers[number % 2].kuadrant();
        let charge = vec![descriptor("default/llm/free", Some(("tokens", "3600s")), Some(20))];
        tasks.spawn(async move { client.commit(commit(&number.to_string(), charge)).await.unwrap() });
    }
    tasks.join_all().await;
    for server in servers {
        server.serving.drain().await;
    }
    let events = receiver.events();
    let mut thresholds: Vec<_> = events.iter().map(|event| event["data"]["threshold"].to_string()).collect();
    thresholds.sort();
    assert_eq!(thresholds, ["\"50%\"", "\"80%\""]);
}

/// Answers every request with 204 over TLS, and returns the first request as text.
async fn receive_over_tls(listener: TcpListener, authority: &Authority) -> String {
    let (chain, key) = authority.sign(&["localhost"]);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}}") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the request is not complete");
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(request).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn https_trusts_the_machine_s_certificates_and_the_log_hides_the_url() {
    let (authority, folder) = (Authority::new("a test"), folder(&[("llm.yaml", POLICY)]));
    let certificates = folder.path().join("roots.pem");
    std::fs::write(&certificates, authority.pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/hunter2", listener.local_addr().unwrap().port());
    let (grpc, http) = (free_port(), free_port());
    let mut command = adapter();
    command.args(["serve", "--policies", "llm.yaml"]).current_dir(folder.path());
    command.args(["--grpc-listen", &format!("127.0.0.1:{grpc}")]);
    command.args(["--http-listen", &format!("127.0.0.1:{http}")]);
    command.env("SSL_CERT_FILE", certificates).env("WEIR_WEBHOOK", url).env("WEIR_LOG", "debug");
    let process = Process::start("the adapter", command, &folder.path().join("adapter.log"));
    wait::until("the adapter", || {
        crate::binary::get(([127, 0, 0, 1], http).into(), "/readyz")?.contains("200 OK").then_some(())
    });
    let channel = Endpoint::try_from(format!("http://127.0.0.1:{grpc}")).unwrap().connect_lazy();
    let mut client = RateLimitServiceClient::new(channel);
    let charge = vec![descriptor("default/llm/free", Some(("tokens", "3600s")), Some(600))];
    client.commit(commit("1", charge)).await.unwrap();
    let request = receive_over_tls(listener, &authority).await;
    assert!(request.starts_with("POST /hunter2 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\"threshold\":\"50%\""), "{request}");
    let log = process.log();
    assert!(log.contains("a counter reached a threshold of its limit"), "{log}");
    assert!(!log.contains("hunter2") && !log.contains("alice"), "{log}");
}
