//! Reads the objects that a status is computed from. If the cluster does not have a kind, its list is empty.
//! If a kind cannot be read, the error is reported and the other kinds are still shown.

use super::{filter, object_name};
use crate::kubernetes::crd::Group;
use crate::kubernetes::objects::ObjectName;
use crate::kubernetes::source::told;
use kube::api::ListParams;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tonic::codegen::http::Request;

/// The objects of one kind.
#[derive(Clone, Debug, Default)]
pub struct FetchedObjects {
    /// The objects as the API server returns them.
    pub items: Vec<Value>,
    /// Whether the cluster knows the kind.
    pub is_defined: bool,
    /// The error, if they cannot be read.
    pub error: Option<String>,
}

/// Everything that a status is computed from.
#[derive(Clone, Debug, Default)]
pub struct ClusterObjects {
    pub deployments: FetchedObjects,
    pub gateways: FetchedObjects,
    pub weir_policies: FetchedObjects,
    pub kuadrant_policies: FetchedObjects,
    pub patch_policies: FetchedObjects,
    /// The placeholders of Weir's filters in Envoy Gateway.
    pub extension_policies: FetchedObjects,
    pub envoy_filters: FetchedObjects,
    /// The modules by the adapter's Service.
    pub modules: BTreeMap<ObjectName, ServedModules>,
}

/// The modules that an adapter serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedModules {
    /// The digest of the adapter's own module. `None` if the adapter is unreachable.
    pub digest: Option<String>,
    /// The digests of other modules that it serves and that filters name.
    pub others: BTreeSet<String>,
}

impl ClusterObjects {
    /// Returns the policies of this group.
    pub fn policies_of(&self, group: Group) -> &FetchedObjects {
        match group {
            Group::Weir => &self.weir_policies,
            Group::Kuadrant => &self.kuadrant_policies,
        }
    }

    /// Returns each kind with its plural name.
    pub fn all(&self) -> [(&'static str, &FetchedObjects); 7] {
        [
            ("deployments.apps", &self.deployments),
            ("gateways.gateway.networking.k8s.io", &self.gateways),
            ("tokenratelimitpolicies.weir.dev", &self.weir_policies),
            ("tokenratelimitpolicies.kuadrant.io", &self.kuadrant_policies),
            ("envoypatchpolicies.gateway.envoyproxy.io", &self.patch_policies),
            ("envoyextensionpolicies.gateway.envoyproxy.io", &self.extension_policies),
            ("envoyfilters.networking.istio.io", &self.envoy_filters),
        ]
    }
}

/// Creates a client for the cluster that this kubeconfig, KUBECONFIG or the environment names.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, String> {
    let config = match kubeconfig {
        None => kube::Config::infer().await.map_err(|error| told(&error))?,
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(|error| told(&error))?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(read, &options).await.map_err(|error| told(&error))?
        }
    };
    Client::try_from(config).map_err(|error| told(&error))
}

/// Reads all kinds. Fails if the API server is unreachable.
pub async fn fetch(client: &Client) -> Result<ClusterObjects, kube::Error> {
    client.apiserver_version().await?;
    let policies =
        |group: &'static str| (group, "v1alpha1", "TokenRateLimitPolicy", "tokenratelimitpolicies");
    let of_envoy_gateway =
        |kind: &'static str, plural: &'static str| ("gateway.envoyproxy.io", "v1alpha1", kind, plural);
    let of_weir = "app.kubernetes.io/part-of=weir";
    let mut objects = ClusterObjects {
        deployments: list(client, ("apps", "v1", "Deployment", "deployments"), of_weir).await,
        gateways: list(client, ("gateway.networking.k8s.io", "v1", "Gateway", "gateways"), "").await,
        weir_policies: list(client, policies(Group::Weir.name()), "").await,
        kuadrant_policies: list(client, policies(Group::Kuadrant.name()), "").await,
        patch_policies: list(client, of_envoy_gateway("EnvoyPatchPolicy", "envoypatchpolicies"), "").await,
        extension_policies: list(
            client,
            of_envoy_gateway("EnvoyExtensionPolicy", "envoyextensionpolicies"),
            of_weir,
        )
        .await,
        envoy_filters: list(client, ("networking.istio.io", "v1alpha3", "EnvoyFilter", "envoyfilters"), "")
            .await,
        modules: BTreeMap::new(),
    };
    let filters = filter::all(&objects);
    let adapters: BTreeSet<ObjectName> = objects.deployments.items.iter().map(object_name).collect();
    for adapter in adapters {
        let named =
            filters.iter().filter(|filter| filter.adapter == adapter).map(|filter| filter.module.as_str());
        let served = served(client, &adapter, named.collect()).await;
        objects.modules.insert(adapter, served);
    }
    Ok(objects)
}

/// Asks the adapter's Service, through the API server's proxy, for the digest of its own module and which of
/// these modules it serves.
async fn served(client: &Client, adapter: &ObjectName, named: BTreeSet<&str>) -> ServedModules {
    let ObjectName { namespace, name } = adapter;
    let service = format!("/api/v1/namespaces/{namespace}/services/{name}:8080/proxy");
    let ask = |method: &str, page: String| Request::builder().method(method).uri(format!("{service}/{page}"));
    let digest = match ask("GET", "weir.wasm.sha256".to_owned()).body(Vec::new()) {
        Ok(request) => client.request_text(request).await.ok(),
        Err(_) => None,
    };
    let mut others = BTreeSet::new();
    for module in named {
        let Ok(request) = ask("HEAD", format!("weir-{module}.wasm")).body(Body::empty()) else { continue };
        if client.send(request).await.is_ok_and(|answer| answer.status().is_success()) {
            others.insert(module.to_owned());
        }
    }
    ServedModules { digest: digest.map(|text| text.trim().to_owned()), others }
}

/// Group, version, kind and plural.
type ListedKind = (&'static str, &'static str, &'static str, &'static str);

async fn list(client: &Client, (group, version, kind, plural): ListedKind, labels: &str) -> FetchedObjects {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match api.list(&ListParams::default().labels(labels)).await {
        Ok(list) => {
            let items = list.items.iter().map(|object| serde_json::to_value(object).unwrap_or_default());
            FetchedObjects { items: items.collect(), is_defined: true, error: None }
        }
        Err(kube::Error::Api(status)) if status.code == 404 => FetchedObjects::default(),
        Err(error) => FetchedObjects { items: Vec::new(), is_defined: true, error: Some(error.to_string()) },
    }
}
