//! An adapter that serves on free ports in this process, with policies in a separate folder.

use e2e::redis::Redis;
use limitador_adapter::cli::{ClusterArgs, ServeArgs, SpanArgs, Storage, StorageAccessArgs, UsageStoreArgs};
use limitador_adapter::grpc::leases::LeaseTerms;
use limitador_adapter::grpc::services::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient as EnvoyClient;
use limitador_adapter::grpc::services::kuadrant::service::ratelimit::v1::rate_limit_service_client::RateLimitServiceClient as KuadrantClient;
use limitador_adapter::grpc::services::weir::v1::policy_service_client::PolicyServiceClient;
use limitador_adapter::grpc::services::weir::v1::reservation_service_client::ReservationServiceClient;
use limitador_adapter::grpc::services::weir::v1::usage_service_client::UsageServiceClient;
use limitador_adapter::serve::Serving;
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use protocol::wire::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use protocol::wire::envoy::service::ratelimit::v3::RateLimitRequest;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveRequest};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

pub const DEADLINE: Duration = Duration::from_secs(10);

/// The default grace period.
const GRACE: Duration = Duration::from_secs(35);

pub struct Server {
    pub serving: Serving,
    pub folder: TempDir,
}

/// A policy of three rates: `free` has tokens and requests per user, and `all` has shared tokens.
pub const POLICY: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: TokenRateLimitPolicy
metadata: {name: llm}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gateway}
  limits:
    free:
      counters: [{expression: auth.identity.userid}]
      rates:
      - {limit: 1000, window: 1h}
      - {limit: 3, window: 60s, unit: requests}
    all:
      rates: [{limit: 100000, window: 24h}]
"#;

impl Server {
    pub async fn start(policies: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in policies {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        Self::with(vec![folder.path().to_owned()], folder, 10_000).await
    }

    pub async fn with(policies: Vec<PathBuf>, folder: TempDir, max_counters: usize) -> Self {
        Self::serving(policies, folder, max_counters, Storage::Memory).await
    }

    /// Starts an adapter with the usual policy and a Redis that other adapters may share.
    pub async fn on(redis: &Redis) -> Self {
        Self::patient(redis.url(0).parse().unwrap(), GRACE).await
    }

    /// Starts an adapter with this grace period for workers without a stream.
    pub async fn patient(storage: Storage, worker_grace: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
        let config = Self::config(vec![folder.path().to_owned()], 10_000, storage);
        Self::configured(folder, ServeArgs { worker_grace, ..config }).await
    }

    async fn serving(policies: Vec<PathBuf>, folder: TempDir, max_counters: usize, storage: Storage) -> Self {
        Self::configured(folder, Self::config(policies, max_counters, storage)).await
    }

    /// Starts an adapter with these arguments.
    pub async fn configured(folder: TempDir, config: ServeArgs) -> Self {
        Self { serving: Serving::start(&config).await.unwrap(), folder }
    }

    pub fn config(policies: Vec<PathBuf>, max_counters: usize, storage: Storage) -> ServeArgs {
        ServeArgs {
            cluster: ClusterArgs {
                kubernetes: false,
                ignore_kuadrant: false,
                controller_name: "weir.dev/limitador-adapter".to_owned(),
            },
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            wasm: None,
            wasm_previous: Vec::new(),
            policies,
            grpc_listen: ([127, 0, 0, 1], 0).into(),
            http_listen: ([127, 0, 0, 1], 0).into(),
            admin_token_file: None,
            storage: Ok(storage),
            storage_access: StorageAccessArgs::default(),
            max_counters: Some(max_counters),
            counter_memory: None,
            webhook: None,
            worker_grace: GRACE,
            lease_percent: LeaseTerms::default().percent,
            usage: UsageStoreArgs::default(),
            spans: SpanArgs::default(),
        }
    }

    pub fn channel(&self) -> Channel {
        Endpoint::try_from(format!("http://{}", self.serving.grpc)).unwrap().connect_lazy()
    }

    pub fn kuadrant(&self) -> KuadrantClient<Channel> {
        KuadrantClient::new(self.channel())
    }

    pub fn envoy(&self) -> EnvoyClient<Channel> {
        EnvoyClient::new(self.channel())
    }

    pub fn reservations(&self) -> ReservationServiceClient<Channel> {
        ReservationServiceClient::new(self.channel())
    }

    pub fn usage(&self) -> UsageServiceClient<Channel> {
        UsageServiceClient::new(self.channel())
    }

    pub fn plans(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.channel())
    }

    /// Returns the status and body of a GET.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let (head, body) = self.get_with(path, "host: adapter\r\n").await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// Returns the head and body of a GET with these headers.
    pub async fn get_with(&self, path: &str, headers: &str) -> (String, String) {
        let to = SocketAddr::from(([127, 0, 0, 1], self.serving.http.port()));
        let mut stream = TcpStream::connect(to).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        head_and_body(&answer)
    }

    pub async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).unwrap()
    }

    /// Returns (used, held) of the buckets of a limit and unit.
    pub async fn books(&self, limit: &str, unit: &str) -> Vec<(u64, u64)> {
        let counters = self.json("/api/counters").await;
        let mine = counters.as_array().unwrap().iter();
        let mine = mine.filter(|counter| counter["limit"] == limit && counter["unit"] == unit);
        mine.map(|counter| (counter["used"].as_u64().unwrap(), counter["held"].as_u64().unwrap())).collect()
    }

    /// Returns a metric's value by the start of its line.
    pub async fn metric(&self, start: &str) -> f64 {
        let text = self.get("/metrics").await.1;
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Writes a file atomically, as editors do.
    pub fn replace(&self, file: &str, text: &str) {
        let new = self.folder.path().join(".new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.path().join(file)).unwrap();
    }

    /// Waits until `/api/policies` satisfies a condition, and returns how long that took.
    pub async fn policies_until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            let policies = self.json("/api/policies").await;
            if condition(&policies) {
                return start.elapsed();
            }
            assert!(start.elapsed() < DEADLINE, "{what}: {policies:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns a descriptor for alice. It has no user if all users share the limit.
pub fn descriptor(limit: &str, rate: Option<(&str, &str)>, amount: Option<u64>) -> RateLimitDescriptor {
    let entry = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.to_owned() };
    let mut entries = vec![entry("limit", limit)];
    entries
        .extend(rate.into_iter().flat_map(|(unit, window)| [entry("unit", unit), entry("window", window)]));
    if limit.ends_with("/free") {
        entries.push(entry("auth.identity.userid", "alice"));
    }
    RateLimitDescriptor { entries, hits_addend: amount, ..Default::default() }
}

/// Returns the filter's descriptors for alice: tokens and requests of `free`, and tokens of `all`.
pub fn whole(amount: u64, requests: u64) -> Vec<RateLimitDescriptor> {
    vec![
        descriptor("default/llm/free", Some(("tokens", "3600s")), Some(amount)),
        descriptor("default/llm/free", Some(("requests", "60s")), Some(requests)),
        descriptor("default/llm/all", Some(("tokens", "86400s")), Some(amount)),
    ]
}

pub fn reserve(id: &str, descriptors: Vec<RateLimitDescriptor>) -> ReserveRequest {
    ReserveRequest { domain: "weir".into(), descriptors, reservation_id: id.into(), ..Default::default() }
}

pub fn commit(id: &str, descriptors: Vec<RateLimitDescriptor>) -> CommitRequest {
    CommitRequest { domain: "weir".into(), descriptors, reservation_id: id.into(), ..Default::default() }
}

pub fn hits(descriptors: Vec<RateLimitDescriptor>, hits_addend: u32) -> RateLimitRequest {
    RateLimitRequest { domain: "weir".into(), descriptors, hits_addend }
}

/// Returns the head and the body of a response, without the marks of chunks.
pub fn head_and_body(response: &str) -> (String, String) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (head.to_owned(), body.to_owned());
    }
    let (mut rest, mut joined) = (body, String::new());
    loop {
        let (length, chunk) = rest.split_once("\r\n").unwrap();
        match usize::from_str_radix(length, 16).unwrap() {
            0 => return (head.to_owned(), joined),
            length => {
                joined += &chunk[..length];
                rest = chunk[length..].strip_prefix("\r\n").unwrap();
            }
        }
    }
}
