//! Everything that serves, started and drained together.

use crate::admin::Access;
use crate::cli::{Serve, Storage};
use crate::filters::Filters;
use crate::follow::{Policies, Publish};
use crate::grpc::{Plans, RateLimits};
use crate::http::Pages;
use crate::in_force::InForce;
use crate::ledger::Ledger;
use crate::limiter::Limiter;
use crate::memory::MemoryLedger;
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::redis::RedisLedger;
use crate::room;
use crate::services::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer as EnvoyServer;
use crate::services::kuadrant::service::ratelimit::v1::rate_limit_service_server::RateLimitServiceServer as KuadrantServer;
use crate::services::weir::v1::policy_service_server::PolicyServiceServer;
use crate::services::weir::v1::reservation_service_server::ReservationServiceServer;
use crate::shares::Capacity;
use crate::sources::Missing;
use crate::stream::Reservations;
use crate::tls::{self, TlsAcceptor};
use crate::wasm::Module;
use crate::workers::Workers;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

/// Calls that are under way when a drain begins have this long to end.
const DRAIN: Duration = Duration::from_secs(10);

/// A connection whose other side has vanished without a word is known to be dead after these two: the holds of a worker
/// that died with its machine end within a minute, too.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(5);

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
    /// There is no cluster.
    #[error("--kubernetes: {0}")]
    Kubernetes(String),
    /// Certificates or keys are not what they should be.
    #[error("TLS: {0}")]
    Tls(tls::Unusable),
    /// The filter's module cannot be read.
    #[error("--wasm {0}")]
    Module(String),
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
        let tls = tls::Files::new(config).map(tls::Files::open).transpose().map_err(ServeError::Tls)?;
        let module = config.wasm.as_deref().map(Module::read).transpose().map_err(ServeError::Module)?;
        let policies = Policies::open(config).await?;
        let metrics = Metrics::new().map_err(|error| ServeError::Metrics(error.to_string()))?;
        let metrics = Arc::new(metrics);
        let ledger = ledger(config)?;
        let (publish, in_force) = watch::channel(Arc::default());
        let (drain, draining) = watch::channel(false);
        let (grpc_listener, grpc) = listen(config.grpc_listen).await?;
        let (http_listener, http) = listen(config.http_listen).await?;

        let filters = Arc::new(Filters::default());
        let (known, are_known) = watch::channel(false);
        let workers = Workers::new(Arc::clone(&ledger), config.worker_grace);
        let routes = routes(&ledger, &workers, &in_force, &draining, &metrics, Arc::clone(&filters)).await?;
        let pages = Pages {
            ledger: Arc::clone(&ledger),
            in_force,
            metrics: Arc::clone(&metrics),
            drain: draining.clone(),
            known: are_known.clone(),
            module,
            access: Access::new(http, config.admin_token_file.clone()),
        };
        pages.access.log();
        let mut servers = JoinSet::new();
        let publish =
            Publish { to: publish, known, metrics: Arc::clone(&metrics), ledger: Arc::clone(&ledger) };
        let following = policies.follow(publish, &filters, &draining, &mut servers);
        servers.spawn(serve_grpc(grpc_listener, tls, routes, draining.clone(), are_known));
        servers.spawn(serve_http(http_listener, pages, draining));
        let looking_after = tokio::spawn(workers.look_after(Arc::clone(&metrics)));
        let upkeep = vec![following, looking_after, tokio::spawn(sweep(ledger, metrics))];
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
    let storage = config.storage.as_ref().map_err(|error| ServeError::Storage(error.to_string()))?;
    Ok(match storage {
        Storage::Memory => {
            let capacity = config.capacity().unwrap_or_else(|| Capacity::Bytes(room::of_this_machine()));
            Arc::new(MemoryLedger::new(capacity, Moment::now()))
        }
        Storage::Redis(place) => {
            let ledger = RedisLedger::new(place.clone(), config.capacity());
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
    workers: &Arc<Workers>,
    in_force: &watch::Receiver<Arc<InForce>>,
    draining: &watch::Receiver<bool>,
    metrics: &Arc<Metrics>,
    filters: Arc<Filters>,
) -> Result<Routes, ServeError> {
    let limiter = Limiter::new(Arc::clone(ledger), in_force.clone(), Arc::clone(metrics));
    let limits = Arc::new(RateLimits::new(Arc::new(limiter)));
    let plans = Plans::new(in_force.clone(), draining.clone(), Arc::clone(metrics), filters);
    let reservations = Reservations::new(Arc::clone(&limits), Arc::clone(workers), draining.clone());
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
    tls: Option<watch::Receiver<TlsAcceptor>>,
    routes: Routes,
    mut draining: watch::Receiver<bool>,
    mut known: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    // Before the policies are known, everything would be let through as if there were none.
    let mut ended = draining.clone();
    tokio::select! {
        _ = known.wait_for(|known| *known) => {}
        _ = ended.wait_for(|draining| *draining) => return Ok(()),
    }
    let drained = async move { drop(draining.wait_for(|draining| *draining).await) };
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_PATIENCE))
        .add_routes(routes);
    let ended = match tls {
        Some(tls) => server.serve_with_incoming_shutdown(tls::incoming(listener, tls), drained).await,
        None => {
            // The server's own `tcp_nodelay` is for listeners it opens itself: without this an answer waits for the
            // acknowledgement of the one before.
            let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(connections, drained).await
        }
    };
    ended.map_err(|error| ServeError::Ended("the gRPC server", error.to_string()))
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
