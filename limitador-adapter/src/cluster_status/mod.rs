//! `status`: shows what is installed in a cluster, what is wrong, and what to do next.
//!
//! [`fetch`] reads the objects from the cluster, and [`ClusterStatus::new`] evaluates them without access to
//! the cluster.

pub mod fetch;
mod filter;
mod problem;
mod text;

use crate::kubernetes::crd::Group;
use crate::kubernetes::objects::ObjectName;
use fetch::ClusterObjects;
use filter::InstalledFilter;
use problem::Problem;
use serde::Serialize;
use serde_json::Value;

/// The state of Weir in a cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    installs: Vec<InstallStatus>,
    gateways: Vec<GatewayStatus>,
    policies: Vec<PolicyOverview>,
    problems: Vec<Problem>,
}

/// A Deployment of the adapter.
#[derive(Clone, Debug, Serialize)]
struct InstallStatus {
    deployment: String,
    image: String,
    ready: u64,
    replicas: u64,
    /// The digest of the module that it serves, if known.
    module: Option<String>,
}

/// A Gateway and its filters.
#[derive(Clone, Debug, Serialize)]
struct GatewayStatus {
    gateway: String,
    class: String,
    filters: Vec<InstalledFilter>,
    policies: usize,
}

/// A policy and its status.
#[derive(Clone, Debug, Serialize)]
struct PolicyOverview {
    policy: String,
    group: &'static str,
    accepted: Option<bool>,
    enforced: Option<bool>,
    #[serde(skip)]
    gateways: Vec<String>,
}

impl ClusterStatus {
    /// Evaluates these objects.
    pub fn new(objects: &ClusterObjects) -> Self {
        let installs: Vec<_> = objects.deployments.items.iter().map(|it| install(objects, it)).collect();
        let policies: Vec<_> = [Group::Weir, Group::Kuadrant]
            .into_iter()
            .flat_map(|group| objects.policies_of(group).items.iter().map(move |it| policy(group, it)))
            .collect();
        let filters = filter::all(objects);
        let gateways = objects.gateways.items.iter().map(|it| gateway(it, &filters, &policies)).collect();
        let mut status = Self { installs, gateways, policies, problems: Vec::new() };
        status.problems = problem::all(objects, &status, &filters);
        status
    }

    /// Returns whether no problem was found.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

fn install(objects: &ClusterObjects, deployment: &Value) -> InstallStatus {
    let name = object_name(deployment);
    InstallStatus {
        image: text_at(deployment, "/spec/template/spec/containers/0/image").to_owned(),
        ready: number_at(deployment, "/status/readyReplicas"),
        replicas: number_at(deployment, "/spec/replicas"),
        module: objects.modules.get(&name).and_then(|served| served.digest.clone()),
        deployment: name.to_string(),
    }
}

fn gateway(object: &Value, filters: &[InstalledFilter], policies: &[PolicyOverview]) -> GatewayStatus {
    let name = object_name(object).to_string();
    GatewayStatus {
        class: text_at(object, "/spec/gatewayClassName").to_owned(),
        filters: filters.iter().filter(|filter| filter.gateway == name).cloned().collect(),
        policies: policies.iter().filter(|policy| policy.gateways.contains(&name)).count(),
        gateway: name,
    }
}

fn policy(group: Group, object: &Value) -> PolicyOverview {
    let name = object_name(object);
    let holds = |kind| condition(object, kind).map(|condition| text_at(condition, "/status") == "True");
    let ancestors = list_at(object, "/status/ancestors").map(|ancestor| {
        let part = |field| text_at(ancestor, &format!("/ancestorRef/{field}"));
        format!("{}/{}", part("namespace"), part("name"))
    });
    // Until an adapter has written a status, only the targets are known.
    let targets = list_at(object, "/spec/targetRefs").chain(object.pointer("/spec/targetRef"));
    let targets = targets.filter(|target| text_at(target, "/kind") == "Gateway");
    let targets = targets.map(|target| format!("{}/{}", name.namespace, text_at(target, "/name")));
    let mut gateways: Vec<String> = ancestors.chain(targets).collect();
    gateways.sort();
    gateways.dedup();
    PolicyOverview {
        policy: name.to_string(),
        group: group.name(),
        accepted: holds("Accepted"),
        enforced: holds("Enforced"),
        gateways,
    }
}

/// Returns a policy's condition of this type.
fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    list_at(object, "/status/conditions").find(|condition| text_at(condition, "/type") == kind)
}

fn object_name(object: &Value) -> ObjectName {
    let part = |field| text_at(object, &format!("/metadata/{field}")).to_owned();
    ObjectName { namespace: part("namespace"), name: part("name") }
}

fn text_at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number_at(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn list_at<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}
