//! A cluster as the source of policies: publishes the watched policies and writes statuses.

use super::index::View;
use super::status_writer::{ClusterStatuses, Install};
use super::{heard, status_writer, watch as cluster};
use crate::metrics::AdapterMetrics;
use crate::policies::audit::AuditRecord;
use crate::policies::filters::Filters;
use crate::policies::publish::Publish;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A reachable cluster.
pub struct ClusterSource {
    client: kube::Client,
    kuadrant: bool,
    controller: String,
    metrics: Arc<AdapterMetrics>,
}

/// Watches restart often enough that a response is due within this time. A connection that is silent for
/// longer is dead, and there is no other sign of it.
const SILENCE: Duration = Duration::from_secs(20);

impl ClusterSource {
    /// Connects to the cluster that the adapter runs in or that KUBECONFIG names. If `kuadrant` is set, also
    /// follows Kuadrant's policies.
    pub async fn connect(
        kuadrant: bool,
        controller: String,
        metrics: &Arc<AdapterMetrics>,
    ) -> Result<Self, String> {
        let config = kube::Config::infer().await.map_err(kube::Error::InferConfig);
        let client = config.and_then(|mut config| {
            config.read_timeout = Some(SILENCE);
            config.reset_reader_on_write = true;
            kube::Client::try_from(config)
        });
        let client = client.map_err(|error| told(&error))?;
        let client = heard::heard(client, Arc::clone(metrics));
        Ok(Self { client, kuadrant, controller, metrics: Arc::clone(metrics) })
    }

    /// Starts two tasks. One follows the policies and never ends. The other writes their statuses until the
    /// drain and must be awaited, because it releases its Lease.
    pub fn follow(
        self,
        publish: Publish,
        filters: &Arc<Filters>,
        drain: &watch::Receiver<bool>,
        audit: mpsc::Receiver<AuditRecord>,
    ) -> (impl Future<Output = ()> + use<>, impl Future<Output = ()> + use<>) {
        let Self { client, kuadrant, controller, metrics } = self;
        let (tell_of, statuses) = watch::channel(Arc::default());
        let identity = std::env::var("POD_NAME").unwrap_or_else(|_| uuid::Uuid::new_v4().to_string());
        let install = Install { controller, identity, metrics, audit };
        let telling =
            status_writer::tell(client.clone(), install, statuses, Arc::clone(filters), drain.clone());
        let following = cluster::follow(client, kuadrant, move |View { collected, statuses, gateways }| {
            publish.publish(collected);
            tell_of.send_replace(Arc::new(ClusterStatuses { statuses, gateways }));
        });
        (following, telling)
    }
}

/// Formats an error. Omits the content of an invalid kubeconfig, because it contains tokens and keys.
pub fn told(error: &impl fmt::Display) -> String {
    const PARSED: &str = "failed to parse kubeconfig YAML";
    let text = error.to_string();
    match text.split_once(PARSED) {
        Some((before, _)) => format!("{before}{PARSED}"),
        None => text,
    }
}
