//! Everything that serves, started and drained together.

use crate::cli::{Serve, Storage};
use crate::collection::Collected;
use crate::grpc::{Plans, RateLimits};
use crate::http::Pages;
use crate::in_force::{Gateway, InForce};
use crate::ledger::Ledger;
use crate::limiter::Limiter;
use crate::memory::MemoryLedger;
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::redis::RedisLedger;
use crate::services::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer as EnvoyServer;
use crate::services::kuadrant::service::ratelimit::v1::rate_limit_service_server::RateLimitServiceServer as KuadrantServer;
use crate::services::weir::v1::policy_service_server::PolicyServiceServer;
use crate::services::weir::v1::reservation_service_server::ReservationServiceServer;
use crate::sources::{LOOK_EVERY, Missing, Sources};
use crate::stream::Reservations;
use policy::watch::number;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

/// Calls that are under way when a drain begins have this long to end.
const DRAIN: Duration = Duration::from_secs(10);

/// After a watch of the policies that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Streams of one connection: Envoy has one connection per worker, and long polls stay open.
const STREAMS: u32 = 4096;

/// What is open, for a caller that asked for port 0.
#[derive(Debug)]
pub struct Serving {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    drain: watch::Sender<bool>,
    servers: JoinSet<Result<(), ServeError>>,
    upkeep: Vec<JoinHandle<()>>,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Policies are not where they should be.
    #[error("--policies {0}")]
    Policies(Missing),
    /// An address cannot be had.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The exporter does not accept our metrics.
    #[error("metrics: {0}")]
    Metrics(String),
    /// The reflection service does not accept our descriptors.
    #[error("gRPC reflection: {0}")]
    Reflection(String),
    /// The storage can never be reached.
    #[error("--storage {0}")]
    Storage(String),
    /// A server ended on its own.
    #[error("{0} ended: {1}")]
    Ended(&'static str, String),
}

impl Serving {
    /// Starts everything.
    pub async fn start(config: &Serve) -> Result<Self, ServeError> {
        let sources = Sources::open(&config.policies).map_err(ServeError::Policies)?;
        let metrics = Metrics::new().map_err(|error| ServeError::Metrics(error.to_string()))?;
        let metrics = Arc::new(metrics);
        let ledger = ledger(config)?;
        let first = comes_into_force(sources.collection.collect(), &InForce::default(), &metrics);
        let (publish, in_force) = watch::channel(first);
        let (drain, draining) = watch::channel(false);
        let (grpc_listener, grpc) = listen(config.grpc_listen).await?;
        let (http_listener, http) = listen(config.http_listen).await?;

        let routes = routes(&ledger, &in_force, &draining, &metrics).await?;
        let pages = Pages {
            ledger: Arc::clone(&ledger),
            in_force,
            metrics: Arc::clone(&metrics),
            drain: draining.clone(),
        };
        let mut servers = JoinSet::new();
        servers.spawn(serve_grpc(grpc_listener, routes, draining.clone()));
        servers.spawn(serve_http(http_listener, pages, draining));
        let upkeep = vec![
            tokio::spawn(watch_sources(sources, config.policies.clone(), publish, Arc::clone(&metrics))),
            tokio::spawn(sweep(ledger, metrics)),
        ];
        tracing::info!(%grpc, %http, "serving");
        Ok(Self { grpc, http, drain, servers, upkeep })
    }

    /// Resolves when a server has ended although nobody asked it to.
    pub async fn failed(&mut self) -> ServeError {
        match self.servers.join_next().await {
            Some(ended) => {
                flatten(ended).err().unwrap_or(ServeError::Ended("a server", "without a word".into()))
            }
            None => ServeError::Ended("everything", "nothing serves".into()),
        }
    }

    /// Takes no more calls, answers those that wait, and ends. Bounded in time.
    pub async fn drain(mut self) {
        self.drain.send_replace(true);
        let ended = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!("calls were still under way when the time to drain was over");
        }
        self.upkeep.iter().for_each(JoinHandle::abort);
        tracing::info!("drained");
    }
}

/// What counts. A Redis need not be there yet: until it is, calls fail and `/readyz` says so.
fn ledger(config: &Serve) -> Result<Arc<dyn Ledger>, ServeError> {
    Ok(match &config.storage {
        Storage::Memory => Arc::new(MemoryLedger::new(config.max_counters, Moment::now())),
        Storage::Redis(place) => {
            let ledger = RedisLedger::new(place.clone(), config.max_counters);
            Arc::new(ledger.map_err(ServeError::Storage)?)
        }
    })
}

fn flatten(ended: Result<Result<(), ServeError>, JoinError>) -> Result<(), ServeError> {
    ended.map_err(|error| ServeError::Ended("a server", error.to_string()))?
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |error| ServeError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn routes(
    ledger: &Arc<dyn Ledger>,
    in_force: &watch::Receiver<Arc<InForce>>,
    draining: &watch::Receiver<bool>,
    metrics: &Arc<Metrics>,
) -> Result<Routes, ServeError> {
    let limiter = Limiter::new(Arc::clone(ledger), in_force.clone(), Arc::clone(metrics));
    let limits = Arc::new(RateLimits::new(Arc::new(limiter)));
    let plans = Plans::new(in_force.clone(), draining.clone(), Arc::clone(metrics));
    let reservations = Reservations::new(Arc::clone(&limits), draining.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<KuadrantServer<RateLimits>>().await;
    health.set_serving::<EnvoyServer<RateLimits>>().await;
    health.set_serving::<ReservationServiceServer<Reservations>>().await;
    health.set_serving::<PolicyServiceServer<Plans>>().await;
    let mut draining = draining.clone();
    tokio::spawn(async move {
        if draining.wait_for(|draining| *draining).await.is_ok() {
            health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        }
    });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::services::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| ServeError::Reflection(error.to_string()))?;
    Ok(Routes::new(KuadrantServer::from_arc(Arc::clone(&limits)))
        .add_service(EnvoyServer::from_arc(limits))
        .add_service(ReservationServiceServer::new(reservations))
        .add_service(PolicyServiceServer::new(plans))
        .add_service(health_service)
        .add_service(reflection)
        .prepare())
}

async fn serve_grpc(
    listener: TcpListener,
    routes: Routes,
    mut draining: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    // The server's own `tcp_nodelay` is for listeners it opens itself: without this an answer waits for the
    // acknowledgement of the one before.
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let drained = async move { drop(draining.wait_for(|draining| *draining).await) };
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, drained)
        .await
        .map_err(|error| ServeError::Ended("the gRPC server", error.to_string()))
}

async fn serve_http(
    listener: TcpListener,
    pages: Pages,
    mut draining: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let drained = async move { drop(draining.wait_for(|draining| *draining).await) };
    axum::serve(listener, pages.router())
        .with_graceful_shutdown(drained)
        .await
        .map_err(|error| ServeError::Ended("the HTTP server", error.to_string()))
}

/// Looks for changes for ever. Files are read where they may block. A look that dies takes what it had read with it;
/// then everything is read anew, and until that succeeds the policies stay as they are.
async fn watch_sources(
    sources: Sources,
    paths: Vec<PathBuf>,
    publish: watch::Sender<Arc<InForce>>,
    metrics: Arc<Metrics>,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut kept = Some(sources);
    loop {
        look.tick().await;
        let (before, paths) = (kept.take(), paths.clone());
        let looked = tokio::task::spawn_blocking(move || look_once(before, &paths));
        let failure = match looked.await {
            Ok(Ok((sources, collected))) => {
                kept = Some(sources);
                if let Some(collected) = collected {
                    let current = Arc::clone(&publish.borrow());
                    publish.send_replace(comes_into_force(collected, &current, &metrics));
                }
                continue;
            }
            Ok(Err(missing)) => missing.to_string(),
            Err(died) => died.to_string(),
        };
        metrics.watch_failures.increment(1);
        tracing::error!(failure, "the policies could not be looked at; those in force stay");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What there is now, and what it comes to if that is new.
fn look_once(before: Option<Sources>, paths: &[PathBuf]) -> Result<(Sources, Option<Collected>), Missing> {
    let (sources, changed) = match before {
        Some(mut sources) => {
            let changed = sources.look();
            (sources, changed)
        }
        None => (Sources::open(paths)?, true),
    };
    let collected = changed.then(|| sources.collection.collect());
    Ok((sources, collected))
}

/// Tells people what has changed, in the log and in numbers.
fn comes_into_force(collected: Collected, before: &InForce, metrics: &Metrics) -> Arc<InForce> {
    let now = InForce::new(collected, metrics);
    let told: HashSet<_> =
        before.entries.iter().flat_map(|entry| entry.messages().collect::<Vec<_>>()).collect();
    for message in now.entries.iter().flat_map(|entry| entry.messages().collect::<Vec<_>>()) {
        if !told.contains(&message) {
            tracing::error!("{message}");
        }
    }
    let version = now.version(&Gateway::Any);
    if before.version(&Gateway::Any) != version {
        metrics.plan_changes.increment(1);
        tracing::info!(policies = now.len(), invalid = now.invalid(), version, "policies in force");
    }
    // A gateway that no policy names any more has a plan still.
    for gateway in now.gateways().union(&before.gateways()) {
        if let Some(named) = Gateway::parse(gateway) {
            metrics.plan_version(gateway).set(number(&now.version(&named)) as f64);
        }
    }
    metrics.plan_version("*").set(number(&version) as f64);
    metrics.loaded.set(now.len() as f64);
    metrics.invalid.set(now.invalid() as f64);
    Arc::new(now)
}

/// Forgets what is over, for ever.
async fn sweep(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) {
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    every_second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every_second.tick().await;
        metrics.upkeep();
        if let Err(error) = ledger.sweep(Moment::now()).await {
            tracing::warn!(%error, "the ledger could not be swept");
        }
    }
}
