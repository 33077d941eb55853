//! Finds the filters that control planes should configure, and the module that each filter names.

use super::fetch::ClusterObjects;
use super::{list_at, object_name, text_at};
use crate::kubernetes::objects::ObjectName;
use serde::Serialize;
use serde_json::Value;

/// A filter for one Gateway.
#[derive(Clone, Debug, Serialize)]
pub struct InstalledFilter {
    /// The name of the Gateway.
    pub gateway: String,
    /// The kind of the object that configures it, as kubectl prints it.
    pub kind: &'static str,
    /// The namespace and name of this object.
    pub object: String,
    /// The digest of the module.
    pub module: String,
    /// The adapter that serves the module through its Service.
    #[serde(skip)]
    pub adapter: ObjectName,
    /// Why the control plane does not use the filter, if it reports a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Parses the URL of a module: http://NAME.NAMESPACE.svc.cluster.local:8080/weir-DIGEST.wasm.
struct ModuleUrl {
    adapter: ObjectName,
    digest: String,
}

/// Returns all filters.
pub fn all(objects: &ClusterObjects) -> Vec<InstalledFilter> {
    let kinds =
        [("envoypatchpolicy", &objects.patch_policies.items), ("envoyfilter", &objects.envoy_filters.items)];
    kinds.into_iter().flat_map(|(kind, items)| items.iter().flat_map(move |it| of(kind, it))).collect()
}

fn of(kind: &'static str, object: &Value) -> Vec<InstalledFilter> {
    let Some(module) = module_url(object) else { return Vec::new() };
    let name = object_name(object);
    let targets = list_at(object, "/spec/targetRefs").chain(object.pointer("/spec/targetRef"));
    let targets = targets.filter(|target| text_at(target, "/kind") == "Gateway");
    let filter = |target| InstalledFilter {
        gateway: format!("{}/{}", name.namespace, text_at(target, "/name")),
        kind,
        object: name.to_string(),
        module: module.digest.clone(),
        adapter: module.adapter.clone(),
        refused: refused(object),
    };
    targets.map(filter).collect()
}

/// Returns the first URL of a module anywhere in the object.
fn module_url(value: &Value) -> Option<ModuleUrl> {
    match value {
        Value::String(text) => parse(text),
        Value::Array(items) => items.iter().find_map(module_url),
        Value::Object(fields) => fields.values().find_map(module_url),
        _ => None,
    }
}

fn parse(url: &str) -> Option<ModuleUrl> {
    let (host, path) = url.strip_prefix("http://")?.split_once('/')?;
    let digest = path.strip_prefix("weir-")?.strip_suffix(".wasm")?;
    let mut labels = host.split(['.', ':']);
    let (name, namespace) = (labels.next()?.to_owned(), labels.next()?.to_owned());
    Some(ModuleUrl { adapter: ObjectName { namespace, name }, digest: digest.to_owned() })
}

/// Returns why Envoy Gateway does not apply an object. Istio reports nothing about an EnvoyFilter.
pub fn refused(object: &Value) -> Option<String> {
    let conditions = list_at(object, "/status/ancestors").flat_map(|it| list_at(it, "/conditions"));
    let mut bad = conditions.filter(|it| text_at(it, "/status") == "False");
    bad.next().map(|it| format!("{}: {}", text_at(it, "/reason"), text_at(it, "/message")))
}
