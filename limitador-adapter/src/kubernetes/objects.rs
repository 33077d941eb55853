//! What is read of a cluster's objects, and how. Fields that mean nothing here are not looked at.

use super::crd::Group;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{DynamicObject, ResourceExt};
use protocol::wire::weir::v1::{Field, Match, field, r#match::Path};
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
        let is_http = |listener: &Listener| !matches!(listener.protocol.as_str(), "TCP" | "UDP");
        Self {
            class: read(&object.data, "/spec/gatewayClassName"),
            listeners: listeners.into_iter().filter(is_http).collect(),
        }
    }
}

/// An HTTPRoute.
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

/// A rule of a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpRouteRule {
    /// Its own, or `rule-1` and so on.
    pub name: String,
    /// At least one.
    pub matches: Vec<Match>,
    /// Why matches that it has besides are left out.
    pub left_out: Vec<String>,
}

impl HttpRoute {
    /// As the API server gives it.
    pub fn new(object: &DynamicObject) -> Self {
        let rules: Vec<RuleObject> = read(&object.data, "/spec/rules");
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

#[derive(Deserialize, Default)]
#[serde(default)]
struct RuleObject {
    name: Option<String>,
    matches: Vec<WrittenMatch>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WrittenMatch {
    path: Option<WrittenValue>,
    headers: Vec<WrittenValue>,
    query_params: Vec<WrittenValue>,
    method: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenValue {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    value: String,
}

impl HttpRouteRule {
    /// A rule without a name is called after its place, as in Kuadrant.
    fn new(number: usize, rule: RuleObject) -> Self {
        let (mut matches, mut left_out) = (Vec::new(), Vec::new());
        if rule.matches.is_empty() {
            matches.push(Match::default());
        }
        for written in rule.matches {
            match written.read() {
                Ok(found) => matches.push(found),
                Err(why) => left_out.push(why),
            }
        }
        let name = rule.name.unwrap_or_else(|| format!("rule-{number}"));
        Self { name, matches, left_out }
    }
}

impl WrittenMatch {
    fn read(self) -> Result<Match, String> {
        let path = match self.path {
            None => None,
            Some(path) => Some(match path.kind.as_str() {
                "Exact" => Path::Exact(path.value),
                "RegularExpression" => Path::Regex(checked(path.value)?),
                _ => Path::Prefix(path.value),
            }),
        };
        let fields = |written: Vec<WrittenValue>| {
            written.into_iter().map(WrittenValue::field).collect::<Result<_, _>>()
        };
        Ok(Match {
            path,
            method: self.method,
            headers: fields(self.headers)?,
            query: fields(self.query_params)?,
        })
    }
}

impl WrittenValue {
    fn field(self) -> Result<Field, String> {
        let value = match self.kind.as_str() {
            "RegularExpression" => field::Value::Regex(checked(self.value)?),
            _ => field::Value::Exact(self.value),
        };
        Ok(Field { name: self.name, value: Some(value) })
    }
}

/// The filter's regular expressions are not all of Envoy's: one that it cannot compile must not cost it its plan.
fn checked(pattern: String) -> Result<String, String> {
    match policy::routes::check_pattern(&pattern) {
        Ok(()) => Ok(pattern),
        Err(error) => Err(format!("the regular expression `{pattern}` cannot be matched: {error}")),
    }
}
