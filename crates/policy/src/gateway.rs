//! Determines which Gateway a proxy belongs to, from the filter's configuration or the node's metadata.

use crate::model::names;

/// Istio passes the labels of its proxies' pods to the proxies. Gateway API's label names the Gateway.
const ISTIO: [&[&str]; 2] = [
    &["xds", "node", "metadata", "NAMESPACE"],
    &["xds", "node", "metadata", "LABELS", "gateway.networking.k8s.io/gateway-name"],
];
/// The labels of Envoy Gateway's pods, if they were copied into the node's metadata.
const ENVOY_GATEWAY: [&[&str]; 2] = [
    &["xds", "node", "metadata", "LABELS", "gateway.envoyproxy.io/owning-gateway-namespace"],
    &["xds", "node", "metadata", "LABELS", "gateway.envoyproxy.io/owning-gateway-name"],
];
/// Envoy Gateway names the node's cluster NAMESPACE/NAME after the Gateway.
const CLUSTER: [&str; 3] = ["xds", "node", "cluster"];

/// Returns "NAMESPACE/NAME", or `*` if it is unknown. `property` reads a property of the proxy.
pub fn find(written: Option<&str>, property: impl Fn(&[&str]) -> Option<Vec<u8>>) -> String {
    let text = |path: &[&str]| String::from_utf8(property(path)?).ok();
    let labelled = |[namespace, name]: &[&[&str]; 2]| Some(format!("{}/{}", text(namespace)?, text(name)?));
    let told = || {
        let found = labelled(&ISTIO).or_else(|| labelled(&ENVOY_GATEWAY)).or_else(|| text(&CLUSTER));
        found.filter(|gateway| is_gateway(gateway))
    };
    written.map(str::to_owned).or_else(told).unwrap_or_else(|| "*".to_owned())
}

/// Returns whether it has the form NAMESPACE/NAME.
pub fn is_gateway(text: &str) -> bool {
    text.split_once('/')
        .is_some_and(|(namespace, name)| names::is_namespace(namespace) && names::is_object(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(written: Option<&str>, node: &[(&str, &str)]) -> String {
        find(written, |path| {
            let known = node.iter().find(|(known, _)| *known == path.join(" "));
            known.map(|(_, value)| value.as_bytes().to_vec())
        })
    }

    #[test]
    fn the_configuration_wins_then_labels_then_the_name_of_the_cluster() {
        let istio = [
            ("xds node metadata NAMESPACE", "apps"),
            ("xds node metadata LABELS gateway.networking.k8s.io/gateway-name", "llm"),
            ("xds node cluster", "llm-istio.apps"),
        ];
        let [namespace, _, cluster] = istio;
        assert_eq!(found(Some("a/b"), &istio), "a/b");
        assert_eq!(found(Some("*"), &istio), "*");
        assert_eq!(found(None, &istio), "apps/llm");
        assert_eq!(found(None, &[namespace, cluster]), "*", "no label, and the cluster is named otherwise");
        assert_eq!(found(None, &[("xds node cluster", "default/eg")]), "default/eg");
        for cluster in ["", "/", "a/", "/b", "A/b", "a/b/c"] {
            assert_eq!(found(None, &[("xds node cluster", cluster)]), "*", "{cluster}");
        }
    }
}
