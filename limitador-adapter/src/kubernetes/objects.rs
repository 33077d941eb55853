//! What is read of a cluster's objects, and how. Fields that mean nothing here are not looked at.

mod rule;

pub use rule::HttpRouteRule;

use super::crd::Group;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{DynamicObject, ResourceExt};
use rule::{GrpcRuleObject, RuleObject};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// "NAMESPACE/NAME" of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ObjectName {
    /// Of an object that is in a namespace.
    pub fn of(object: &DynamicObject) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

/// A route, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteName {
    /// Its name.
    pub name: ObjectName,
    /// Two routes of different kinds may have one name.
    pub kind: RouteKind,
}

impl RouteName {
    /// With what the names of its routes begin in Envoy Gateway's proxies. Nobody else can choose them. In Istio's, the name of a
    /// rule is that of its route, so they tell nothing.
    pub fn in_envoy_gateway(&self) -> String {
        format!("{}/{}/", self.kind.name().to_ascii_lowercase(), self.name)
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

/// The kinds of routes that requests for LLM APIs may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// An HTTPRoute.
    Http,
    /// A GRPCRoute.
    Grpc,
}

impl RouteKind {
    /// As Gateway API names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
        }
    }
}

/// A policy, by whose CustomResourceDefinition it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyObject {
    /// Its group.
    pub group: Group,
    /// Its name.
    pub name: ObjectName,
    /// Kubernetes' own name of it.
    pub uid: String,
    /// Counts changes of its spec.
    pub generation: i64,
    /// As its author wrote it: without what the server adds, which changes when nothing has.
    pub document: Value,
    /// As it is told now.
    pub status: Value,
    /// Which installs of the adapter have written it.
    pub writers: Vec<StatusManager>,
}

/// An install of the adapter, as a field manager of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusManager {
    /// Its name.
    pub name: String,
    /// Seconds; when it wrote last.
    pub time: i64,
    /// Whether the conditions of the policy as a whole are its own.
    pub has_conditions: bool,
}

/// With what the names of our field managers begin.
pub const MANAGER: &str = "weir/";

fn writers(object: &DynamicObject) -> Vec<StatusManager> {
    let entries = object.metadata.managed_fields.iter().flatten();
    let of_status = entries.filter(|entry| entry.subresource.as_deref() == Some("status"));
    of_status
        .filter_map(|entry| {
            let name = entry.manager.clone().filter(|name| name.starts_with(MANAGER))?;
            let time = entry.time.as_ref().map_or(0, |time| time.0.as_second());
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            let has_conditions = fields.and_then(|fields| fields.pointer("/f:status/f:conditions")).is_some();
            Some(StatusManager { name, time, has_conditions })
        })
        .collect()
}

impl PolicyObject {
    /// As the API server gives it.
    pub fn new(group: Group, object: &DynamicObject) -> Self {
        let name = ObjectName::of(object);
        let document = json!({
            "apiVersion": format!("{}/v1alpha1", group.name()),
            "kind": "TokenRateLimitPolicy",
            "metadata": { "name": name.name, "namespace": name.namespace },
            "spec": object.data.get("spec").cloned().unwrap_or_default(),
        });
        Self {
            group,
            name,
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            document,
            status: object.data.get("status").cloned().unwrap_or_default(),
            writers: writers(object),
        }
    }
}

/// A Gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayObject {
    /// Its GatewayClass, which names its controller.
    pub class: String,
    /// Its listeners, without those that cannot own a host.
    pub listeners: Vec<Listener>,
    /// From which namespaces ListenerSets may add to them. `None`: from none.
    pub allowed_listeners: Option<AllowedNamespaces>,
}

/// A ListenerSet, or an XListenerSet: listeners that others add to a Gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerSetObject {
    /// Its Gateway.
    pub parent: Parent,
    /// As a Gateway's.
    pub listeners: Vec<Listener>,
    /// Whether the Gateway's controller has accepted it. `None`: it has not decided on this generation.
    pub accepted: Option<bool>,
}

/// A ListenerSet, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    /// Its name.
    pub name: ObjectName,
    /// An XListenerSet, as it is called while it is an experiment.
    pub is_experimental: bool,
}

impl ListenerSetObject {
    /// As the API server gives it.
    pub fn new(name: &SetName, object: &DynamicObject) -> Self {
        let listeners: Vec<Listener> = read(&object.data, "/spec/listeners");
        let of_set = |listener| Listener { set: Some(name.clone()), ..listener };
        let conditions: Vec<ParentCondition> = read(&object.data, "/status/conditions");
        let generation = object.metadata.generation.unwrap_or_default();
        let accepted = conditions.iter().find(|condition| condition.kind == "Accepted");
        let accepted =
            accepted.filter(|condition| condition.observed_generation.is_none_or(|of| of == generation));
        Self {
            parent: read(&object.data, "/spec/parentRef"),
            listeners: listeners.into_iter().filter(Listener::may_own_hosts).map(of_set).collect(),
            accepted: accepted.map(|condition| condition.status == "True"),
        }
    }
}

/// A listener of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Empty: any.
    pub hostname: String,
    /// As the Gateway says it; the proxy may listen elsewhere.
    pub port: u32,
    /// HTTP, HTTPS or something else.
    pub protocol: String,
    /// Which routes may attach.
    pub allowed_routes: AllowedRoutes,
    /// Who has added it. `None`: it is the Gateway's own.
    #[serde(skip)]
    pub set: Option<SetName>,
    /// Whether the Gateway takes it is not certain.
    #[serde(skip)]
    pub in_doubt: bool,
}

impl Listener {
    fn may_own_hosts(&self) -> bool {
        !matches!(self.protocol.as_str(), "TCP" | "UDP")
    }
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    /// From which namespaces.
    pub namespaces: AllowedNamespaces,
    /// Empty: all kinds that the listener's protocol allows.
    pub kinds: Vec<AllowedKind>,
}

/// From which namespaces routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedNamespaces {
    /// `Same` (the default), `All`, `Selector` or `None`.
    pub from: String,
    /// With `Selector`.
    pub selector: Option<LabelSelector>,
}

/// A kind of route that may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AllowedKind {
    /// `None`: GatewayObject API's.
    pub group: Option<String>,
    /// Its name.
    pub kind: String,
}

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

impl GatewayObject {
    /// As the API server gives it.
    pub fn new(object: &DynamicObject) -> Self {
        let listeners: Vec<Listener> = read(&object.data, "/spec/listeners");
        Self {
            class: read(&object.data, "/spec/gatewayClassName"),
            listeners: listeners.into_iter().filter(Listener::may_own_hosts).collect(),
            allowed_listeners: read(&object.data, "/spec/allowedListeners/namespaces"),
        }
    }
}

/// An HTTPRoute, or a GRPCRoute as the HTTPRoute that it means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpRoute {
    /// Seconds; the older of two equals wins.
    pub created: i64,
    /// What it wants to attach to.
    pub parents: Vec<Parent>,
    /// Empty: any.
    pub hostnames: Vec<String>,
    /// In their order.
    pub rules: Vec<HttpRouteRule>,
    /// Counts changes of its spec.
    pub generation: i64,
    /// What controllers say of it.
    pub statuses: Vec<ParentStatus>,
}

/// Something that a route attaches to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Parent {
    /// `None`: Gateway API's.
    pub group: Option<String>,
    /// `None`: Gateway.
    pub kind: Option<String>,
    /// `None`: the route's own.
    pub namespace: Option<String>,
    /// Of the Gateway.
    pub name: String,
    /// Of one listener.
    pub section_name: Option<String>,
    /// Of all listeners with this port.
    pub port: Option<u32>,
}

/// What one controller says of a route at one parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentStatus {
    /// Which parent.
    pub parent_ref: Parent,
    /// Which controller.
    pub controller_name: String,
    /// What it says.
    pub conditions: Vec<ParentCondition>,
}

/// A condition of a route at a parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentCondition {
    /// Such as `Accepted`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Of which generation of the route.
    pub observed_generation: Option<i64>,
}

impl HttpRoute {
    /// A GRPCRoute, as the API server gives it.
    pub fn grpc(object: &DynamicObject) -> Self {
        let rules: Vec<GrpcRuleObject> = read(&object.data, "/spec/rules");
        let rules = rules.into_iter().map(RuleObject::from).collect();
        Self::with_rules(object, rules)
    }

    /// As the API server gives it.
    pub fn new(object: &DynamicObject) -> Self {
        Self::with_rules(object, read(&object.data, "/spec/rules"))
    }

    fn with_rules(object: &DynamicObject, rules: Vec<RuleObject>) -> Self {
        Self {
            created: object.creation_timestamp().map_or(0, |time| time.0.as_second()),
            parents: read(&object.data, "/spec/parentRefs"),
            hostnames: read(&object.data, "/spec/hostnames"),
            rules: (1..).zip(rules).map(|(number, rule)| HttpRouteRule::new(number, rule)).collect(),
            generation: object.metadata.generation.unwrap_or_default(),
            statuses: read(&object.data, "/status/parents"),
        }
    }
}

/// What the API server has checked is of the right shape; anything else is as good as absent.
fn read<T: serde::de::DeserializeOwned + Default>(data: &Value, pointer: &str) -> T {
    data.pointer(pointer).and_then(|value| T::deserialize(value).ok()).unwrap_or_default()
}
