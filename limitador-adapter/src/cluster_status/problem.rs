//! The problems in a cluster. Each one comes with the next command.

use super::fetch::{ClusterObjects, FetchedObjects};
use super::filter::{self, InstalledFilter};
use super::{ClusterStatus, InstallStatus, condition, object_name, text_at};
use crate::kubernetes::crd::Group;
use crate::kubernetes::reason::ConditionReason;
use serde::Serialize;
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The object.
    pub object: String,
    /// The problem.
    pub message: String,
    /// A command, or what to change.
    pub next: String,
}

const INSTALL: &str =
    "helm install weir dist/manifests/chart --namespace weir-system --create-namespace --values values.yaml";
const UPGRADE: &str = "helm upgrade weir dist/manifests/chart --namespace weir-system --values values.yaml";
/// The placeholder digest that `make manifests` replaces.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Lists all problems. Problems that cause others come first.
pub fn all(objects: &ClusterObjects, status: &ClusterStatus, filters: &[InstalledFilter]) -> Vec<Problem> {
    let mut problems = unreadable(objects);
    problems.extend(not_installed(objects, status));
    problems.extend(status.installs.iter().filter_map(not_ready));
    problems.extend(objects.extension_policies.items.iter().filter_map(placeholder_problem));
    problems.extend(filters.iter().filter_map(|filter| filter_problem(objects, filter)));
    problems.extend(without_filter(status));
    for group in [Group::Weir, Group::Kuadrant] {
        problems.extend(objects.policies_of(group).items.iter().filter_map(|it| policy_problem(group, it)));
    }
    problems
}

fn problem(object: impl Into<String>, message: impl Into<String>, next: impl Into<String>) -> Problem {
    Problem { object: object.into(), message: message.into(), next: next.into() }
}

fn unreadable(objects: &ClusterObjects) -> Vec<Problem> {
    let failed = |(plural, fetched): (&'static str, &FetchedObjects)| {
        let error = fetched.error.as_ref()?;
        Some(problem(plural, error.clone(), format!("kubectl auth can-i list {plural} --all-namespaces")))
    };
    objects.all().into_iter().filter_map(failed).collect()
}

fn not_installed(objects: &ClusterObjects, status: &ClusterStatus) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !objects.gateways.is_defined {
        let next = "install your gateway's Gateway API resources: https://gateway-api.sigs.k8s.io";
        problems.push(problem("gateways.gateway.networking.k8s.io", "Gateway API is not installed", next));
    }
    let is_installed = !status.installs.is_empty();
    if !is_installed && objects.deployments.error.is_none() {
        problems.push(problem("limitador-adapter", "the adapter is not installed", INSTALL));
    }
    if !objects.weir_policies.is_defined {
        let next = if is_installed { UPGRADE } else { INSTALL };
        let object = "tokenratelimitpolicies.weir.dev";
        problems.push(problem(object, "the CustomResourceDefinition is not installed", next));
    }
    problems
}

fn not_ready(install: &InstallStatus) -> Option<Problem> {
    let (namespace, name) = install.deployment.split_once('/')?;
    let message = match install.replicas {
        0 => "is scaled to zero: requests follow each policy's failureMode".to_owned(),
        wanted if install.ready < wanted => format!("{} of {wanted} replicas are ready", install.ready),
        _ => return None,
    };
    let next = match install.replicas {
        0 => format!("kubectl -n {namespace} scale deployment/{name} --replicas=1"),
        _ => format!("kubectl -n {namespace} describe pods -l app.kubernetes.io/name={name}"),
    };
    Some(problem(&install.deployment, message, next))
}

/// Returns the problem if a placeholder is rejected. Without its placeholder, a Gateway has no filter. If the
/// placeholder is invalid, Envoy Gateway answers 500 on all routes of the Gateway.
fn placeholder_problem(object: &Value) -> Option<Problem> {
    let refused = filter::refused(object)?;
    let name = object_name(object);
    let words = refused.to_lowercase();
    let next = if words.contains("lua") && words.contains("disabled") {
        enable("enableLua")
    } else {
        format!("kubectl -n {} describe envoyextensionpolicy {}", name.namespace, name.name)
    };
    let effect = if refused.starts_with("Invalid") {
        "and answers 500 on all routes of its Gateway"
    } else {
        "so its Gateway has no filter"
    };
    let message = format!("Envoy Gateway does not apply it ({refused}), {effect}");
    Some(problem(format!("envoyextensionpolicy {name}"), message, next))
}

/// Returns the command to run after changing Envoy Gateway's configuration.
fn enable(extension: &str) -> String {
    format!(
        "set extensionApis.{extension} in Envoy Gateway's configuration, then \
         kubectl -n envoy-gateway-system rollout restart deployment/envoy-gateway"
    )
}

fn filter_problem(objects: &ClusterObjects, filter: &InstalledFilter) -> Option<Problem> {
    let object = format!("{} {}", filter.kind, filter.object);
    if filter.module == NO_DIGEST {
        let message = "has no digest of a module, so no proxy can load the filter";
        return Some(problem(object, message, format!("make manifests, then {UPGRADE}")));
    }
    if let Some(refused) = &filter.refused {
        let next = if refused.starts_with("Disabled") {
            enable("enableEnvoyPatchPolicy")
        } else {
            let (namespace, name) = filter.object.split_once('/').unwrap_or_default();
            format!("kubectl -n {namespace} describe {} {name}", filter.kind)
        };
        return Some(problem(object, format!("Envoy Gateway does not apply it ({refused})"), next));
    }
    let served = objects.modules.get(&filter.adapter)?;
    let current = served.digest.as_ref().filter(|digest| **digest != filter.module)?;
    let (named, current) = (short(&filter.module), short(current));
    let message = if served.others.contains(&filter.module) {
        format!("names the module {named}, which {} still serves; its own is {current}", filter.adapter)
    } else {
        format!("names the module {named}, which {} does not serve; it serves {current}", filter.adapter)
    };
    Some(problem(object, message, format!("set module.digest in the chart's values, then {UPGRADE}")))
}

fn without_filter(status: &ClusterStatus) -> Vec<Problem> {
    let bare = status.gateways.iter().filter(|gateway| gateway.filters.is_empty() && gateway.policies > 0);
    bare.map(|gateway| {
        let message = format!("has no filter, so its policies ({}) are not enforced", gateway.policies);
        let next = format!("add the Gateway to `gateways` in the chart's values, then {UPGRADE}");
        problem(format!("gateway {}", gateway.gateway), message, next)
    })
    .collect()
}

fn policy_problem(group: Group, object: &Value) -> Option<Problem> {
    let name = object_name(object);
    let about = format!("{} {name}", group.short_name());
    let conditions: Vec<_> = ["Accepted", "Enforced"].map(|kind| condition(object, kind)).into();
    if conditions.iter().all(Option::is_none) {
        let next = "kubectl -n weir-system logs deployment/limitador-adapter";
        return Some(problem(about, "has no status: no adapter has read it", next));
    }
    let bad = conditions.into_iter().flatten().find(|it| text_at(it, "/status") != "True")?;
    let reason = text_at(bad, "/reason");
    let known = ConditionReason::ALL.iter().find(|known| known.name() == reason);
    let remedy = known.map(|reason| reason.remedy()).filter(|remedy| !remedy.is_empty());
    let next = remedy.map_or_else(
        || format!("kubectl -n {} describe {} {}", name.namespace, group.short_name(), name.name),
        str::to_owned,
    );
    Some(problem(about, format!("{reason}: {}", text_at(bad, "/message")), next))
}

/// Shortens a digest for display. The result is long enough to compare by eye.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
