//! Lists all objects of a cluster by name, to compare them before and after an install.

use crate::nodes::NodeCluster;
use std::collections::BTreeSet;

/// Kinds of objects that come and go by themselves.
const VOLATILE: [&str; 7] =
    ["events", "pods", "replicasets", "jobs", "leases", "endpoints", "endpointslices"];
/// Objects that remain after an uninstall, as documented: the definitions with the policies, and the volume
/// with the counters.
const STAYS: [&str; 3] = [
    "tokenratelimitpolic",
    "apiregistration.k8s.io/v1alpha1.weir.dev",
    "persistentvolumeclaims/data-redis-0",
];
/// Objects that users create, as documented.
const CREATED: [&str; 5] = [
    "namespaces/weir-system",
    "secrets/limitador-adapter-tls",
    "secrets/limitador-adapter-admin",
    "secrets/weir-proxy-tls",
    // Kubernetes's own objects in that namespace.
    "weir-system ",
];

/// "RESOURCE/NAME in NAMESPACE" for each object.
pub struct ObjectNames(BTreeSet<String>);

impl ObjectNames {
    /// Lists all objects of all kinds that can be listed.
    pub fn of(cluster: &NodeCluster) -> Self {
        let kinds = cluster.run("kubectl", &["api-resources", "--verbs=list", "-o", "name"]);
        let mut all = BTreeSet::new();
        for kind in kinds.lines().filter(|kind| !VOLATILE.iter().any(|it| kind.split('.').next() == Some(it)))
        {
            let columns = "custom-columns=N:.metadata.namespace,M:.metadata.name";
            let listed = cluster.run("kubectl", &["get", kind, "-A", "--no-headers", "-o", columns]);
            all.extend(listed.lines().filter_map(|line| {
                let mut words = line.split_whitespace();
                Some(format!("{} {kind}/{}", words.next()?, words.next()?))
            }));
        }
        Self(all)
    }

    /// Checks that the objects are the same as before, except for those that remain on purpose or do not
    /// belong to the chart.
    pub fn are_as_before(&self, before: &Self) {
        let is_left = |name: &&String| {
            !STAYS.iter().any(|it| name.contains(it)) && !CREATED.iter().any(|it| is_created(name, it))
        };
        let left: Vec<_> = self.0.difference(&before.0).filter(is_left).collect();
        let lost: Vec<_> = before.0.difference(&self.0).collect();
        println!("left by the uninstall, on purpose:");
        self.0.difference(&before.0).for_each(|name| println!("  {name}"));
        assert!(left.is_empty() && lost.is_empty(), "left: {left:#?}\nlost: {lost:#?}");
    }
}

fn is_created(name: &str, created: &str) -> bool {
    match created.strip_suffix(' ') {
        Some(namespace) => {
            name == format!("{namespace} serviceaccounts/default")
                || name == format!("{namespace} configmaps/kube-root-ca.crt")
        }
        None => name.ends_with(&format!(" {created}")),
    }
}
