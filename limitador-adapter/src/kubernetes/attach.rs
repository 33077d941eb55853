//! Which routes are attached to which Gateway, and so what each policy applies to.

use super::objects::{
    AllowedKind, AllowedRoutes, GatewayObject, HttpRoute, Labels, Listener, ObjectName, Parent, ParentStatus,
};
use kube::core::{Selector, SelectorExt};
use protocol::wire::weir::v1;
use std::collections::{BTreeMap, BTreeSet};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// A route at a Gateway, with the hosts and ports at which it is.
#[derive(Clone, Debug)]
pub struct Attached<'a> {
    /// Which one.
    pub name: &'a ObjectName,
    /// Itself.
    pub route: &'a HttpRoute,
    /// Where it is.
    pub places: Vec<At>,
}

/// Some hosts and ports at which a route is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// None: any.
    pub ports: Vec<u32>,
    /// None: any.
    pub hosts: Vec<String>,
    /// Whether its requests surely come here.
    pub certainty: Certainty,
}

/// How sure it is that a gateway uses a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// Its controller has accepted the route, and no other listener owns the host.
    Sure,
    /// Its controller says nothing yet, or proxies differ. Policies of the route apply, and it takes no request away from
    /// other routes.
    InDoubt,
}

/// What else decides which routes a Gateway takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The name of the Gateway's controller, by its GatewayClass.
    pub controller: Option<&'a str>,
    /// The labels of every namespace. `None`: they cannot be read.
    pub namespaces: Option<&'a BTreeMap<String, Labels>>,
}

impl Surroundings<'_> {
    /// Where a proxy asks a route's regular expressions, Gateway API leaves open: Istio does so after prefixes, Envoy
    /// Gateway before.
    pub fn asks_regexes_last(self) -> bool {
        self.controller.is_some_and(|controller| controller.starts_with("istio.io/"))
    }
}

/// The routes of a Gateway, the one that wins among equals first.
pub fn attached<'a>(
    name: &ObjectName,
    gateway: &GatewayObject,
    around: Surroundings<'_>,
    routes: &'a BTreeMap<ObjectName, HttpRoute>,
) -> Vec<Attached<'a>> {
    let mut attached: Vec<_> = routes
        .iter()
        .filter_map(|(route_name, route)| {
            let places = places(name, gateway, around, route_name, route);
            (!places.is_empty()).then_some(Attached { name: route_name, route, places })
        })
        .collect();
    attached.sort_by_key(|attached| (attached.route.created, attached.name));
    attached
}

fn places(
    gateway_name: &ObjectName,
    gateway: &GatewayObject,
    around: Surroundings<'_>,
    name: &ObjectName,
    route: &HttpRoute,
) -> Vec<At> {
    let mut found: Vec<(&Listener, String, Certainty)> = Vec::new();
    for parent in route.parents.iter().filter(|parent| parent.is(gateway_name, name)) {
        let Some(accepted) = route.acceptance(parent, around.controller, name) else { continue };
        for listener in gateway.listeners.iter().filter(|listener| listener.is_of(parent)) {
            let Some(allowed) = listener.allows(gateway_name, name, around.namespaces) else { continue };
            // A controller that accepts a route at one listener knows more than we do.
            let allowed = if parent.section_name.is_some() { Certainty::Sure } else { allowed };
            for host in common(&listener.hostname, &route.hostnames) {
                found.push((listener, host, accepted.max(allowed)));
            }
        }
    }
    let mut ports: BTreeMap<(Certainty, &str), BTreeSet<u32>> = BTreeMap::new();
    for (listener, host, certainty) in &found {
        let owner = gateway.owner(listener.port, host);
        let is_there = owner.is_none_or(|owner| {
            owner.hostname == listener.hostname || found.iter().any(|(at, ..)| at.name == owner.name)
        });
        let certainty = if is_there { *certainty } else { Certainty::InDoubt };
        ports.entry((certainty, host)).or_default().insert(listener.port);
    }
    let mut places: BTreeMap<(Certainty, Vec<u32>), Vec<String>> = BTreeMap::new();
    for ((certainty, host), ports) in ports {
        // Where ports make no difference for the host, they are not asked for.
        let everywhere = gateway.listeners.iter().all(|listener| ports.contains(&listener.port));
        let ports = if everywhere { Vec::new() } else { ports.into_iter().flat_map(seen_ports).collect() };
        places.entry((certainty, ports)).or_default().push(host.to_owned());
    }
    for hosts in places.values_mut() {
        hosts.sort();
        hosts.dedup();
        if hosts.iter().any(String::is_empty) {
            hosts.clear();
        }
    }
    places.into_iter().map(|((certainty, ports), hosts)| At { ports, hosts, certainty }).collect()
}

/// The hosts that both a listener and a route are for; an empty one is any.
fn common(listener: &str, route: &[String]) -> Vec<String> {
    if route.is_empty() {
        return vec![listener.to_owned()];
    }
    let narrower = |host: &String| {
        if covers(listener, host) {
            Some(host.clone())
        } else {
            covers(host, listener).then(|| listener.to_owned())
        }
    };
    route.iter().filter_map(narrower).collect()
}

/// Whether every host of the narrow one is one of the wide one, either perhaps with a wildcard.
fn covers(wide: &str, narrow: &str) -> bool {
    let is_suffix = |suffix: &str| narrow.len() > suffix.len() && narrow.ends_with(suffix);
    wide.is_empty() || wide == narrow || wide.strip_prefix('*').is_some_and(is_suffix)
}

impl HttpRoute {
    /// Whether a Gateway's controller has accepted the route there. `None`: it has refused it. Another controller has
    /// no say; what is known of an earlier version of the route is not known of this one.
    fn acceptance(&self, parent: &Parent, controller: Option<&str>, name: &ObjectName) -> Option<Certainty> {
        let says = self.statuses.iter().filter(|status| {
            status.parent_ref.is_same(parent, name)
                && controller.is_none_or(|controller| controller == status.controller_name)
        });
        let accepted = |status: &ParentStatus| {
            let condition = status.conditions.iter().find(|condition| condition.kind == "Accepted")?;
            let is_current = condition.observed_generation.is_none_or(|of| of == self.generation);
            is_current.then_some(condition.status == "True")
        };
        let answers: Vec<Option<bool>> = says.map(accepted).collect();
        match answers.as_slice() {
            [] => Some(Certainty::InDoubt),
            all if all.iter().all(|answer| *answer == Some(true)) => Some(Certainty::Sure),
            all if all.iter().all(|answer| *answer == Some(false)) => None,
            _ => Some(Certainty::InDoubt),
        }
    }
}

impl Parent {
    fn is(&self, gateway: &ObjectName, route: &ObjectName) -> bool {
        let (group, kind, namespace) = self.defaulted(route);
        group == GATEWAY_API
            && kind == "Gateway"
            && namespace == gateway.namespace
            && self.name == gateway.name
    }

    /// The same parent, defaults written out or not.
    fn is_same(&self, other: &Parent, route: &ObjectName) -> bool {
        self.defaulted(route) == other.defaulted(route)
            && self.name == other.name
            && self.section_name == other.section_name
            && self.port == other.port
    }

    fn defaulted<'a>(&'a self, route: &'a ObjectName) -> (&'a str, &'a str, &'a str) {
        (
            self.group.as_deref().unwrap_or(GATEWAY_API),
            self.kind.as_deref().unwrap_or("Gateway"),
            self.namespace.as_deref().unwrap_or(&route.namespace),
        )
    }
}

impl GatewayObject {
    /// The listener to which requests for this host go, where a proxy keeps its listeners apart.
    fn owner(&self, port: u32, host: &str) -> Option<&Listener> {
        let reached = |listener: &&Listener| listener.port == port && covers(&listener.hostname, host);
        let is_exact =
            |listener: &Listener| !listener.hostname.is_empty() && !listener.hostname.starts_with('*');
        let specificity = |listener: &&Listener| (is_exact(listener), listener.hostname.len());
        self.listeners.iter().filter(reached).max_by_key(specificity)
    }

    fn has_one_port(&self) -> bool {
        let mut ports = self.listeners.iter().map(|listener| listener.port);
        let first = ports.next();
        ports.all(|port| Some(port) == first)
    }

    /// Its listeners, without policies.
    pub fn hosts(&self) -> Vec<v1::Listener> {
        let ports = |listener: &Listener| if self.has_one_port() { Vec::new() } else { listener.ports() };
        let hosts = self.listeners.iter().map(|listener| v1::Listener {
            hostname: listener.hostname.clone(),
            ports: ports(listener),
            policies: Vec::new(),
        });
        hosts.collect()
    }
}

impl Listener {
    fn is_of(&self, parent: &Parent) -> bool {
        parent.section_name.as_ref().is_none_or(|section| *section == self.name)
            && parent.port.is_none_or(|port| port == self.port)
    }

    /// Whether routes of this namespace may attach. `None`: they may not.
    fn allows(
        &self,
        gateway: &ObjectName,
        route: &ObjectName,
        namespaces: Option<&BTreeMap<String, Labels>>,
    ) -> Option<Certainty> {
        let AllowedRoutes { namespaces: allowed, kinds } = &self.allowed_routes;
        let is_http = |kind: &AllowedKind| {
            kind.kind == "HTTPRoute" && kind.group.as_deref().is_none_or(|group| group == GATEWAY_API)
        };
        if !kinds.is_empty() && !kinds.iter().any(is_http) {
            return None;
        }
        match allowed.from.as_str() {
            "All" => Some(Certainty::Sure),
            "None" => None,
            "Selector" => {
                let labels = namespaces.map(|all| all.get(&route.namespace));
                let selector = Selector::try_from(allowed.selector.clone());
                match (labels, selector) {
                    (Some(Some(labels)), Ok(selector)) => selector.matches(labels).then_some(Certainty::Sure),
                    // A namespace that is not there has no routes, but its route may be heard of first.
                    _ => Some(Certainty::InDoubt),
                }
            }
            _ => (route.namespace == gateway.namespace).then_some(Certainty::Sure),
        }
    }

    /// As the proxy may see its port: Envoy Gateway's listen 10000 higher where only root may.
    pub fn ports(&self) -> Vec<u32> {
        seen_ports(self.port)
    }
}

fn seen_ports(port: u32) -> Vec<u32> {
    if port < 1024 { vec![port, port.saturating_add(10_000)] } else { vec![port] }
}

/// The policies (by their places in the plan) of one target.
#[derive(Clone, Debug, Default)]
pub struct Targeted {
    /// Those for all of it.
    pub whole: Vec<u32>,
    /// Those for one of its sections.
    pub sections: BTreeMap<String, Vec<u32>>,
}

/// What the policies of a Gateway's plan apply to.
pub fn placement(
    gateway: &GatewayObject,
    own: &Targeted,
    routes: &[Attached<'_>],
    of_routes: &BTreeMap<ObjectName, Targeted>,
    regexes_last: bool,
) -> v1::Placement {
    let mut placement =
        v1::Placement { everywhere: own.whole.clone(), regexes_last, ..v1::Placement::default() };
    if !own.sections.is_empty() {
        placement.listeners = gateway.hosts();
        for (placed, listener) in placement.listeners.iter_mut().zip(&gateway.listeners) {
            placed.policies = own.sections.get(&listener.name).cloned().unwrap_or_default();
        }
    }
    if routes.iter().any(|attached| of_routes.contains_key(attached.name)) {
        placement.rules =
            routes.iter().flat_map(|attached| attached.rules(of_routes.get(attached.name))).collect();
    }
    placement
}

impl Attached<'_> {
    fn rules(&self, targeted: Option<&Targeted>) -> Vec<v1::Rule> {
        let rule = |rule: &super::objects::HttpRouteRule| {
            let mut policies = targeted.map(|targeted| targeted.whole.clone()).unwrap_or_default();
            let section = targeted.and_then(|targeted| targeted.sections.get(&rule.name));
            policies.extend(section.into_iter().flatten());
            policies.sort_unstable();
            self.places
                .iter()
                .map(move |at| v1::Rule {
                    hostnames: at.hosts.clone(),
                    ports: at.ports.clone(),
                    matches: rule.matches.clone(),
                    policies: policies.clone(),
                    in_doubt: at.certainty == Certainty::InDoubt,
                })
                .collect::<Vec<_>>()
        };
        self.route.rules.iter().flat_map(rule).collect()
    }
}
