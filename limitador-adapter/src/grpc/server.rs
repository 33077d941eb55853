//! The gRPC server: its services, health checks and reflection, served until a drain.

use super::limiter::Limiter;
use super::plans::Plans;
use super::rate_limits::RateLimits;
use super::services::DESCRIPTORS;
use super::services::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer as EnvoyServer;
use super::services::kuadrant::service::ratelimit::v1::rate_limit_service_server::RateLimitServiceServer as KuadrantServer;
use super::services::weir::v1::policy_service_server::PolicyServiceServer;
use super::services::weir::v1::reservation_service_server::ReservationServiceServer;
use super::services::weir::v1::usage_service_server::UsageServiceServer;
use super::stream::Reservations;
use super::tls::{self, TlsAcceptor};
use super::workers::Workers;
use crate::metrics::AdapterMetrics;
use crate::policies::filters::Filters;
use crate::policies::snapshot::PolicySnapshot;
use crate::spans::Spans;
use crate::usage::recorder::UsageRecorder;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

/// The interval and the timeout of keepalive pings. Pings detect a peer that has vanished silently, so that
/// the holds of a worker end within a minute even if its machine has died.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of streams per connection. Each Envoy worker has one connection, and long polls stay open.
const STREAMS: u32 = 4096;

/// All services.
pub async fn routes(
    limiter: Limiter,
    workers: &Arc<Workers>,
    in_force: &watch::Receiver<Arc<PolicySnapshot>>,
    draining: &watch::Receiver<bool>,
    metrics: &Arc<AdapterMetrics>,
    filters: Arc<Filters>,
    (recorder, spans): (Option<Arc<UsageRecorder>>, Option<Spans>),
) -> Result<Routes, tonic_reflection::server::Error> {
    let limits = Arc::new(RateLimits::new(Arc::new(limiter)).recording_usage(recorder).tracing(spans));
    let plans = Plans::new(in_force.clone(), draining.clone(), Arc::clone(metrics), filters);
    let reservations = Reservations::new(Arc::clone(&limits), Arc::clone(workers), draining.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<KuadrantServer<RateLimits>>().await;
    health.set_serving::<EnvoyServer<RateLimits>>().await;
    health.set_serving::<ReservationServiceServer<Reservations>>().await;
    health.set_serving::<PolicyServiceServer<Plans>>().await;
    health.set_serving::<UsageServiceServer<RateLimits>>().await;
    let mut draining = draining.clone();
    tokio::spawn(async move {
        if draining.wait_for(|draining| *draining).await.is_ok() {
            health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        }
    });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    Ok(Routes::new(KuadrantServer::from_arc(Arc::clone(&limits)))
        .add_service(UsageServiceServer::from_arc(Arc::clone(&limits)))
        .add_service(EnvoyServer::from_arc(limits))
        .add_service(ReservationServiceServer::new(reservations))
        .add_service(PolicyServiceServer::new(plans))
        .add_service(health_service)
        .add_service(reflection)
        .prepare())
}

/// Serves once the policies are known, until the drain.
pub async fn serve(
    listener: TcpListener,
    tls: Option<watch::Receiver<TlsAcceptor>>,
    routes: Routes,
    mut draining: watch::Receiver<bool>,
    mut known: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    // Without policies, every request would be admitted.
    let mut ended = draining.clone();
    tokio::select! {
        _ = known.wait_for(|known| *known) => {}
        _ = ended.wait_for(|draining| *draining) => return Ok(()),
    }
    let drained = async move { drop(draining.wait_for(|draining| *draining).await) };
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_routes(routes);
    match tls {
        Some(tls) => server.serve_with_incoming_shutdown(tls::incoming(listener, tls), drained).await,
        None => {
            // The server's own `tcp_nodelay` applies only to listeners that it opens itself. Without it, each
            // reply waits for the acknowledgement of the one before.
            let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(connections, drained).await
        }
    }
}
