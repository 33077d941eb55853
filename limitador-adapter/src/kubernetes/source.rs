//! A cluster as the source of policies: what is watched is published, and statuses are written.

use super::{status_writer, watch as cluster};
use crate::policies::filters::Filters;
use crate::policies::publish::Publish;
use std::sync::Arc;
use tokio::sync::watch;

/// A cluster that can be reached.
pub struct ClusterSource {
    client: kube::Client,
    kuadrant: bool,
}

impl ClusterSource {
    /// The cluster that this runs in, or that KUBECONFIG names. `kuadrant`: whether Kuadrant's policies are followed, too.
    pub async fn connect(kuadrant: bool) -> Result<Self, String> {
        let client = kube::Client::try_default().await;
        client.map(|client| Self { client, kuadrant }).map_err(|error| told(&error))
    }

    /// Two tasks: one follows the policies for ever; the other writes their statuses until the drain, and has to be waited
    /// for, since it gives its Lease back.
    pub fn follow(
        self,
        publish: Publish,
        filters: &Arc<Filters>,
        drain: &watch::Receiver<bool>,
    ) -> (impl Future<Output = ()> + use<>, impl Future<Output = ()> + use<>) {
        let Self { client, kuadrant } = self;
        let (tell_of, statuses) = watch::channel(Arc::default());
        let identity = std::env::var("POD_NAME").unwrap_or_else(|_| uuid::Uuid::new_v4().to_string());
        let telling =
            status_writer::tell(client.clone(), identity, statuses, Arc::clone(filters), drain.clone());
        let following = cluster::follow(client, kuadrant, move |view| {
            publish.publish(view.collected);
            tell_of.send_replace(Arc::new(view.statuses));
        });
        (following, telling)
    }
}

/// Without what a kubeconfig that is no YAML says: tokens and keys are in it.
fn told(error: &kube::Error) -> String {
    const PARSED: &str = "failed to parse kubeconfig YAML";
    let text = error.to_string();
    match text.split_once(PARSED) {
        Some((before, _)) => format!("{before}{PARSED}"),
        None => text,
    }
}
