//! Policies, wherever they come from, followed and brought into force.

use crate::cli::Serve;
use crate::collection::{Collected, Entry};
use crate::filters::Filters;
use crate::in_force::{Gateway, InForce};
use crate::kubernetes::{tell, watch as cluster};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::serve::ServeError;
use crate::sources::{LOOK_EVERY, Missing, Sources};
use engine::watch::number;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// After a watch of the policies that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Without what a kubeconfig that is no YAML says: tokens and keys are in it.
fn told(error: &kube::Error) -> String {
    const PARSED: &str = "failed to parse kubeconfig YAML";
    let text = error.to_string();
    match text.split_once(PARSED) {
        Some((before, _)) => format!("{before}{PARSED}"),
        None => text,
    }
}

/// Where policies come from.
pub enum Policies {
    /// These files and folders.
    Files(Sources, Vec<PathBuf>),
    /// A cluster.
    Cluster {
        /// Its API server.
        client: kube::Client,
        /// Whether Kuadrant's policies are followed, too.
        kuadrant: bool,
    },
}

impl Policies {
    /// As the command line says.
    pub async fn open(config: &Serve) -> Result<Self, ServeError> {
        if config.kubernetes {
            let client = kube::Client::try_default().await;
            let kuadrant = !config.ignore_kuadrant;
            return client
                .map(|client| Self::Cluster { client, kuadrant })
                .map_err(|error| ServeError::Kubernetes(told(&error)));
        }
        let sources = Sources::open(&config.policies).map_err(ServeError::Policies)?;
        Ok(Self::Files(sources, config.policies.clone()))
    }

    /// Follows them for ever. What has to end well at a drain goes to `servers`.
    pub fn follow(
        self,
        publish: Publish,
        filters: &Arc<Filters>,
        drain: &watch::Receiver<bool>,
        servers: &mut JoinSet<Result<(), ServeError>>,
    ) -> JoinHandle<()> {
        match self {
            Self::Files(sources, paths) => {
                publish.publish(sources.collection.collect());
                tokio::spawn(watch_sources(sources, paths, publish))
            }
            Self::Cluster { client, kuadrant } => {
                let (tell_of, verdicts) = watch::channel(Arc::default());
                let identity = std::env::var("POD_NAME").unwrap_or_else(|_| uuid::Uuid::new_v4().to_string());
                let telling =
                    tell::tell(client.clone(), identity, verdicts, Arc::clone(filters), drain.clone());
                let following = cluster::follow(client, kuadrant, move |view| {
                    publish.publish(view.collected);
                    tell_of.send_replace(Arc::new(view.verdicts));
                });
                servers.spawn(async move {
                    telling.await;
                    Ok(())
                });
                tokio::spawn(following)
            }
        }
    }
}

/// Brings what was collected into force.
pub struct Publish {
    /// For those who ask what is in force.
    pub to: watch::Sender<Arc<InForce>>,
    /// Whether the policies are known.
    pub known: watch::Sender<bool>,
    /// The counts.
    pub metrics: Arc<Metrics>,
    /// What counts: each limit has its share of it.
    pub ledger: Arc<dyn Ledger>,
}

impl Publish {
    /// It comes into force.
    pub fn publish(&self, collected: Collected) {
        let current = Arc::clone(&self.to.borrow());
        let next = comes_into_force(collected, &current, &self.metrics);
        self.ledger.share_among(next.counting_limits());
        self.to.send_replace(next);
        self.known.send_replace(true);
    }
}

/// Looks for changes for ever. Files are read where they may block. A look that dies takes what it had read with it;
/// then everything is read anew, and until that succeeds the policies stay as they are.
async fn watch_sources(sources: Sources, paths: Vec<PathBuf>, publish: Publish) {
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
                    publish.publish(collected);
                }
                continue;
            }
            Ok(Err(missing)) => missing.to_string(),
            Err(died) => died.to_string(),
        };
        publish.metrics.watch_failures.increment(1);
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
    let warned: HashSet<_> = before.entries.iter().flat_map(Entry::warnings).collect();
    let warnings = now.entries.iter().flat_map(Entry::warnings);
    warnings.filter(|warning| !warned.contains(warning)).for_each(|warning| tracing::warn!("{warning}"));
    let version = now.version(&Gateway::Any, false);
    if before.version(&Gateway::Any, false) != version {
        metrics.plan_changes.increment(1);
        tracing::info!(policies = now.len(), invalid = now.invalid(), version, "policies in force");
    }
    // A gateway that no policy names any more has a plan still.
    for gateway in now.gateways().union(&before.gateways()) {
        if let Some(named) = Gateway::parse(gateway) {
            metrics.plan_version(gateway).set(number(&now.version(&named, false)) as f64);
        }
    }
    metrics.plan_version("*").set(number(&version) as f64);
    metrics.loaded.set(now.len() as f64);
    metrics.invalid.set(now.invalid() as f64);
    Arc::new(now)
}
