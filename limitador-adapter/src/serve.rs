//! Starts and drains all servers and tasks.

use crate::admin::access::ApiAccess;
use crate::admin::http::{FORGETS, Pages};
use crate::admin::live::{Live, LiveSource};
use crate::admin::module::Modules;
use crate::admin::usage::UsageReports;
use crate::cli::{ServeArgs, Storage};
use crate::grpc::leases::LeaseTerms;
use crate::grpc::limiter::Limiter;
use crate::grpc::workers::Workers;
use crate::grpc::{server, tls};
#[cfg(feature = "kubernetes")]
use crate::kubernetes::source::ClusterSource;
use crate::ledger::Ledger;
use crate::ledger::fault::FaultLog;
use crate::ledger::memory::{MemoryLedger, budget};
use crate::ledger::moment::Moment;
#[cfg(feature = "redis")]
use crate::ledger::redis::RedisLedger;
use crate::ledger::shares::Capacity;
#[cfg(feature = "sqlite")]
use crate::ledger::sqlite::SqliteLedger;
use crate::metrics::AdapterMetrics;
use crate::policies::audit::{AuditRecord, AuditTrail};
use crate::policies::filters::Filters;
use crate::policies::publish::Publish;
use crate::policies::snapshot::WantedReports;
use crate::policies::sources::{Missing, Sources};
use crate::policies::watch::watch as watch_files;
use crate::spans::SpanExportError;
use crate::usage::recorder::{UsageRecorder, expire};
use crate::usage::store;
use crate::warnings::webhook::{Attempts, Webhook, WebhookQueue};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};

/// How long running calls may take after a drain begins.
const DRAIN: Duration = Duration::from_secs(10);

/// How long warnings may wait for the webhook, and spans for their export, after a drain.
const FLUSH: Duration = Duration::from_secs(3);

/// The running servers.
pub struct Serving {
    /// The address of the gRPC server.
    pub grpc: SocketAddr,
    /// The address of the HTTP server.
    pub http: SocketAddr,
    drain: watch::Sender<bool>,
    servers: JoinSet<Result<(), ServeError>>,
    upkeep: Vec<JoinHandle<()>>,
    ledger: Arc<dyn Ledger>,
    /// Ends when the servers have ended and every warning is delivered.
    webhook: Option<JoinHandle<()>>,
    /// Ends when the servers have ended and every span is exported.
    exporting: Option<JoinHandle<()>>,
}

/// Why the adapter cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A path has no policies.
    #[error("--policies {0}")]
    Policies(Missing),
    /// There is no usable cluster.
    #[error("--kubernetes: {0}")]
    Kubernetes(String),
    /// Certificates or keys are unusable.
    #[error("TLS: {0}")]
    Tls(tls::Unusable),
    /// A filter module cannot be read.
    #[error("--wasm or --wasm-previous: {0}")]
    Module(String),
    /// An address cannot be used.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The exporter rejected the metrics.
    #[error("metrics: {0}")]
    Metrics(String),
    /// The reflection service rejected the descriptors.
    #[error("gRPC reflection: {0}")]
    Reflection(String),
    /// The storage's URL is unusable.
    #[error("--storage {0}")]
    Storage(String),
    /// The webhook is unusable.
    #[error("--webhook {0}")]
    Webhook(String),
    /// The store of usage records is unusable.
    #[error("--usage: {0}")]
    Usage(String),
    /// Spans cannot be exported.
    #[error("--otlp-endpoint: {0}")]
    Spans(SpanExportError),
    /// A server ended unexpectedly.
    #[error("{0} ended: {1}")]
    Ended(&'static str, String),
}

impl Serving {
    /// Starts everything.
    pub async fn start(config: &ServeArgs) -> Result<Self, ServeError> {
        let tls = tls_files(config).map(tls::TlsFiles::open).transpose().map_err(ServeError::Tls)?;
        let modules =
            Modules::read(config.wasm.as_deref(), &config.wasm_previous).map_err(ServeError::Module)?;
        let metrics = AdapterMetrics::new().map_err(|error| ServeError::Metrics(error.to_string()))?;
        let metrics = Arc::new(metrics);
        let policies = PolicyOrigin::open(config, &metrics).await?;
        let ledger = ledger(config)?;
        let (recorder, writing) = recorder(config, &metrics)?.unzip();
        let spans = config.spans.export().map(|export| export.open(&metrics)).transpose();
        let (spans, exporting) = spans.map_err(ServeError::Spans)?.unzip();
        let wanted = WantedReports { records: recorder.is_some(), traces: spans.is_some() };
        let (publish, in_force) = watch::channel(Arc::default());
        let (drain, draining) = watch::channel(false);
        let (grpc_listener, grpc) = listen(config.grpc_listen).await?;
        let (http_listener, http) = listen(config.http_listen).await?;

        let filters = Arc::new(Filters::default());
        let (known, are_known) = watch::channel(false);
        let workers = Workers::new(Arc::clone(&ledger), config.worker_grace);
        let (webhook, queue) = webhook(config, &metrics)?;
        let limiter = Limiter::new(Arc::clone(&ledger), in_force.clone(), Arc::clone(&metrics));
        let leases = LeaseTerms { percent: config.lease_percent };
        let limiter = limiter.with_webhook(queue).leasing(leases);
        let observers = limiter.observers();
        let with_filters = Arc::clone(&filters);
        let reports = (recorder.clone(), spans);
        let routes =
            server::routes(limiter, &workers, &in_force, &draining, &metrics, with_filters, reports).await;
        let routes = routes.map_err(|error| ServeError::Reflection(error.to_string()))?;
        let (audit, records) = AuditTrail::new();
        let access = ApiAccess::new(http, config.admin_token_file.clone());
        let live = Live::new(LiveSource {
            ledger: Arc::clone(&ledger),
            in_force: in_force.clone(),
            metrics: Arc::clone(&metrics),
            can_change: access.can_change(),
        });
        let pages = Pages {
            ledger: Arc::clone(&ledger),
            in_force,
            metrics: Arc::clone(&metrics),
            drain: draining.clone(),
            known: are_known.clone(),
            modules,
            observers,
            access,
            live,
            usage: recorder.clone().map(UsageReports::new),
            audit: if policies.is_of_cluster() { audit } else { AuditTrail::default() },
        };
        pages.access.log();
        let mut servers = JoinSet::new();
        let publish = Publish {
            to: publish,
            known,
            metrics: Arc::clone(&metrics),
            ledger: Arc::clone(&ledger),
            wanted,
        };
        let following = policies.follow(publish, &filters, &draining, records, &mut servers);
        servers
            .spawn(ended("the gRPC server", server::serve(grpc_listener, tls, routes, draining, are_known)));
        servers.spawn(ended("the HTTP server", pages.serve(http_listener)));
        let looking_after = tokio::spawn(workers.look_after(Arc::clone(&metrics)));
        let mut upkeep = vec![following, looking_after];
        upkeep.extend(writing.map(tokio::spawn));
        if let (Some(recorder), Some(days)) = (recorder, config.usage.retention()) {
            let store = Arc::clone(recorder.store());
            upkeep.push(tokio::spawn(expire(store, days, Arc::clone(&metrics))));
        }
        upkeep.push(tokio::spawn(sweep(Arc::clone(&ledger), metrics)));
        tracing::info!(%grpc, %http, "serving");
        let webhook = webhook.map(|webhook| tokio::spawn(webhook.deliver()));
        let exporting = exporting.map(tokio::spawn);
        Ok(Self { grpc, http, drain, servers, upkeep, ledger, webhook, exporting })
    }

    /// Resolves when a server has ended unexpectedly.
    pub async fn failed(&mut self) -> ServeError {
        match self.servers.join_next().await {
            Some(ended) => {
                flatten(ended).err().unwrap_or(ServeError::Ended("a server", "without a reason".into()))
            }
            None => ServeError::Ended("everything", "nothing serves".into()),
        }
    }

    /// Stops accepting calls, answers waiting ones, and stops within a bounded time.
    pub async fn drain(mut self) {
        self.drain.send_replace(true);
        let ended = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!("calls were still running when the drain timed out");
        }
        for task in self.upkeep {
            task.abort();
            // It has been cancelled.
            drop(task.await);
        }
        // Holds are written a little later than they are answered.
        if let Err(error) = self.ledger.durable().await {
            tracing::error!(%error, "the adapter ends with counters that could not be written");
        }
        if let Some(mut webhook) = self.webhook
            && tokio::time::timeout(FLUSH, &mut webhook).await.is_err()
        {
            webhook.abort();
            tracing::warn!("warnings still waited for the webhook when the adapter ended");
        }
        if let Some(mut exporting) = self.exporting
            && tokio::time::timeout(FLUSH, &mut exporting).await.is_err()
        {
            exporting.abort();
            tracing::warn!("spans still waited for their export when the adapter ended");
        }
        tracing::info!("drained");
    }
}

enum PolicyOrigin {
    Files(Sources, Vec<PathBuf>),
    #[cfg(feature = "kubernetes")]
    Cluster(ClusterSource),
}

impl PolicyOrigin {
    /// Returns whether there is a cluster to write events to.
    fn is_of_cluster(&self) -> bool {
        match self {
            Self::Files(..) => false,
            #[cfg(feature = "kubernetes")]
            Self::Cluster(_) => true,
        }
    }

    /// Opens the source that the command line names.
    #[cfg_attr(not(feature = "kubernetes"), expect(unused_variables))]
    async fn open(config: &ServeArgs, metrics: &Arc<AdapterMetrics>) -> Result<Self, ServeError> {
        #[cfg(feature = "kubernetes")]
        if config.cluster.kubernetes {
            let controller = config.cluster.controller_name.clone();
            let cluster = ClusterSource::connect(!config.cluster.ignore_kuadrant, controller, metrics).await;
            return cluster.map(Self::Cluster).map_err(ServeError::Kubernetes);
        }
        let sources = Sources::open(&config.policies).map_err(ServeError::Policies)?;
        Ok(Self::Files(sources, config.policies.clone()))
    }

    /// Follows the source. Adds the tasks that must end cleanly in a drain to `servers`.
    #[cfg_attr(not(feature = "kubernetes"), expect(unused_variables))]
    fn follow(
        self,
        publish: Publish,
        filters: &Arc<Filters>,
        drain: &watch::Receiver<bool>,
        audit: mpsc::Receiver<AuditRecord>,
        servers: &mut JoinSet<Result<(), ServeError>>,
    ) -> JoinHandle<()> {
        match self {
            Self::Files(sources, paths) => {
                publish.publish(sources.collection.collect());
                tokio::spawn(watch_files(sources, paths, publish))
            }
            #[cfg(feature = "kubernetes")]
            Self::Cluster(cluster) => {
                let (following, telling) = cluster.follow(publish, filters, drain, audit);
                servers.spawn(async move {
                    telling.await;
                    Ok(())
                });
                tokio::spawn(following)
            }
        }
    }
}

/// Returns the TLS configuration, or `None` without TLS.
fn tls_files(config: &ServeArgs) -> Option<tls::TlsFiles> {
    let (certificate, key) = (config.tls_cert.clone()?, config.tls_key.clone()?);
    Some(tls::TlsFiles { certificate, key, clients: config.tls_client_ca.clone() })
}

/// Creates the webhook and its queue, if there is one.
fn webhook(
    config: &ServeArgs,
    metrics: &Arc<AdapterMetrics>,
) -> Result<(Option<Webhook>, Option<WebhookQueue>), ServeError> {
    let Some(url) = &config.webhook else { return Ok((None, None)) };
    let url = url.as_ref().map_err(|error| ServeError::Webhook(error.to_string()))?;
    let created = Webhook::new(url.clone(), Attempts::default(), Arc::clone(metrics));
    let (queue, webhook) = created.map_err(ServeError::Webhook)?;
    Ok((Some(webhook), Some(queue)))
}

/// Opens the ledger. Redis does not have to be reachable yet. Until it answers, calls fail and `/readyz`
/// reports it.
fn ledger(config: &ServeArgs) -> Result<Arc<dyn Ledger>, ServeError> {
    let storage = config.storage.as_ref().map_err(|error| ServeError::Storage(error.to_string()))?;
    Ok(match storage {
        Storage::Memory => {
            tracing::warn!("{FORGETS}");
            Arc::new(MemoryLedger::new(capacity(config), Moment::now()))
        }
        #[cfg(feature = "sqlite")]
        Storage::Sqlite(path) => {
            let ledger = SqliteLedger::open(path, capacity(config));
            let ledger = ledger.map_err(|error| ServeError::Storage(format!("sqlite:{error}")))?;
            tracing::info!(path = %path.display(), "counters are in a file");
            Arc::new(ledger)
        }
        #[cfg(feature = "redis")]
        Storage::Redis(place) => {
            let ledger = RedisLedger::new(place.clone(), config.capacity());
            let access = &config.storage_access;
            let ledger = ledger.map_err(ServeError::Storage)?.with_credentials(access.files());
            ledger.with_prefix(&access.prefix()).into_ledger()
        }
    })
}

/// The room for counters in this process's memory.
fn capacity(config: &ServeArgs) -> Capacity {
    config.capacity().unwrap_or_else(|| Capacity::Bytes(budget::of_this_machine()))
}

/// Opens the store of usage records. Returns the recorder and its task. A database server does not have to be
/// reachable yet.
fn recorder(
    config: &ServeArgs,
    metrics: &Arc<AdapterMetrics>,
) -> Result<Option<(Arc<UsageRecorder>, impl Future<Output = ()> + Send + 'static)>, ServeError> {
    let Some(access) = config.usage.access().map_err(|error| ServeError::Usage(error.to_string()))? else {
        return Ok(None);
    };
    let store = store::open(&access).map_err(|error| ServeError::Usage(error.to_string()))?;
    let (recorder, writing) = UsageRecorder::new(store, config.usage.users(), Arc::clone(metrics));
    Ok(Some((Arc::new(recorder), writing)))
}

fn flatten(ended: Result<Result<(), ServeError>, JoinError>) -> Result<(), ServeError> {
    ended.map_err(|error| ServeError::Ended("a server", error.to_string()))?
}

async fn ended<E: ToString>(
    server: &'static str,
    serving: impl Future<Output = Result<(), E>>,
) -> Result<(), ServeError> {
    serving.await.map_err(|error| ServeError::Ended(server, error.to_string()))
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |error| ServeError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Removes expired data, and logs when the storage fails and recovers. Never returns.
async fn sweep(ledger: Arc<dyn Ledger>, metrics: Arc<AdapterMetrics>) {
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    every_second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut faults = FaultLog::default();
    loop {
        every_second.tick().await;
        metrics.upkeep();
        let state = match ledger.sweep(Moment::now()).await {
            Ok(()) => ledger.ready().await,
            failed => failed,
        };
        faults.record(state, Instant::now());
    }
}
