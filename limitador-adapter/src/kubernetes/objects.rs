//! Reads the cluster's objects. Irrelevant fields are ignored.

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

/// The "NAMESPACE/NAME" of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ObjectName {
    /// Reads the name of a namespaced object.
    pub fn of(object: &DynamicObject) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

/// A route, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteName {
    pub name: ObjectName,
    /// Routes of different kinds may have the same name.
    pub kind: RouteKind,
}

impl RouteName {
    /// The prefix of the names that Envoy Gateway gives the route in its proxies. Only Envoy Gateway can
    /// assign such names. In Istio's proxies, a rule has the name of its route, so the name proves nothing.
    pub fn in_envoy_gateway(&self) -> String {
        format!("{}/{}/", self.kind.name().to_ascii_lowercase(), self.name)
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

/// The kinds of routes for requests to LLM APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    Http,
    Grpc,
}

impl RouteKind {
    /// The kind's name in Gateway API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
        }
    }
}

/// A policy, by the group of its CustomResourceDefinition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyObject {
    pub group: Group,
    pub name: ObjectName,
    /// The UID of the object.
    pub uid: String,
    /// Increases with each change of the spec.
    pub generation: i64,
    /// The author's document, without the fields that the server adds and changes.
    pub document: Value,
    /// The current status.
    pub status: Value,
    /// The installations of the adapter that have written the status.
    pub writers: Vec<StatusManager>,
}

/// An installation of the adapter, identified by the field manager of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusManager {
    pub name: String,
    /// When it last wrote, in seconds.
    pub time: i64,
    /// Whether it wrote the conditions of the policy as a whole.
    pub has_conditions: bool,
}

/// The prefix of Weir's field managers.
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
    /// Converts an object from the API server.
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

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayObject {
    /// The GatewayClass. It names the controller.
    pub class: String,
    /// The listeners, except those that cannot own a host.
    pub listeners: Vec<Listener>,
    /// The namespaces with ListenerSets that may add listeners. `None` means no namespace.
    pub allowed_listeners: Option<AllowedNamespaces>,
}

/// A ListenerSet or XListenerSet: listeners that others add to a Gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerSetObject {
    pub parent: Parent,
    pub listeners: Vec<Listener>,
    /// Whether the Gateway's controller has accepted it. `None` if it has not decided on this generation.
    pub accepted: Option<bool>,
}

/// A ListenerSet, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    pub name: ObjectName,
    /// Whether it is an XListenerSet, the experimental kind.
    pub is_experimental: bool,
}

impl ListenerSetObject {
    /// Converts an object from the API server.
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

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    pub name: String,
    /// Empty means any hostname.
    pub hostname: String,
    /// The Gateway's port. The proxy may listen on another one.
    pub port: u32,
    /// HTTP, HTTPS or something else.
    pub protocol: String,
    /// Which routes may attach.
    pub allowed_routes: AllowedRoutes,
    /// The set that adds the listener. `None` if it belongs to the Gateway itself.
    #[serde(skip)]
    pub set: Option<SetName>,
    /// Whether it is uncertain that the Gateway uses this listener.
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
    pub namespaces: AllowedNamespaces,
    /// Empty means all kinds that the listener's protocol allows.
    pub kinds: Vec<AllowedKind>,
}

/// The namespaces from which routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedNamespaces {
    /// `Same` (the default), `All`, `Selector` or `None`.
    pub from: String,
    /// Used with `Selector`.
    pub selector: Option<LabelSelector>,
}

/// A kind of route that may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AllowedKind {
    /// `None` means Gateway API's group.
    pub group: Option<String>,
    pub kind: String,
}

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

impl GatewayObject {
    /// Converts an object from the API server.
    pub fn new(object: &DynamicObject) -> Self {
        let listeners: Vec<Listener> = read(&object.data, "/spec/listeners");
        Self {
            class: read(&object.data, "/spec/gatewayClassName"),
            listeners: listeners.into_iter().filter(Listener::may_own_hosts).collect(),
            allowed_listeners: read(&object.data, "/spec/allowedListeners/namespaces"),
        }
    }
}

/// An HTTPRoute, or the equivalent of a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpRoute {
    /// The creation time in seconds. Of two equal routes, the older one wins.
    pub created: i64,
    pub parents: Vec<Parent>,
    /// Empty means any hostname.
    pub hostnames: Vec<String>,
    pub rules: Vec<HttpRouteRule>,
    /// Increases with each change of the spec.
    pub generation: i64,
    /// The statuses that controllers have written.
    pub statuses: Vec<ParentStatus>,
}

/// A parent that a route attaches to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Parent {
    /// `None` means Gateway API's group.
    pub group: Option<String>,
    /// `None` means Gateway.
    pub kind: Option<String>,
    /// `None` means the route's own namespace.
    pub namespace: Option<String>,
    /// The name of the Gateway.
    pub name: String,
    /// Restricts the attachment to one listener.
    pub section_name: Option<String>,
    /// Restricts the attachment to listeners with this port.
    pub port: Option<u32>,
}

/// A controller's status of a route at one parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentStatus {
    pub parent_ref: Parent,
    pub controller_name: String,
    pub conditions: Vec<ParentCondition>,
}

/// A condition of a route at a parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentCondition {
    /// The type, for example `Accepted`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The generation of the route that it describes.
    pub observed_generation: Option<i64>,
}

impl HttpRoute {
    /// Converts a GRPCRoute from the API server.
    pub fn grpc(object: &DynamicObject) -> Self {
        let rules: Vec<GrpcRuleObject> = read(&object.data, "/spec/rules");
        let rules = rules.into_iter().map(RuleObject::from).collect();
        Self::with_rules(object, rules)
    }

    /// Converts an HTTPRoute from the API server.
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

/// Reads a field. The API server has validated the object, so an unexpected value counts as absent.
fn read<T: serde::de::DeserializeOwned + Default>(data: &Value, pointer: &str) -> T {
    data.pointer(pointer).and_then(|value| T::deserialize(value).ok()).unwrap_or_default()
}
