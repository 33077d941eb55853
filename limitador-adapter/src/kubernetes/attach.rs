//! Which routes are attached to which Gateway, and so what each policy applies to.

use super::objects::{GatewayObject, HttpRoute, Listener, ObjectName, Parent};
use protocol::wire::weir::v1;
use std::collections::BTreeMap;

/// A route at a Gateway, with the hosts and ports at which it is.
#[derive(Clone, Debug)]
pub struct Attached<'a> {
    /// Which one.
    pub name: &'a ObjectName,
    /// Itself.
    pub route: &'a HttpRoute,
    /// By ports; no ports: any.
    pub places: Vec<(Vec<u32>, Vec<String>)>,
}

/// The routes of a Gateway, the one that wins among equals first.
pub fn attached<'a>(
    name: &ObjectName,
    gateway: &GatewayObject,
    routes: &'a BTreeMap<ObjectName, HttpRoute>,
) -> Vec<Attached<'a>> {
    let mut attached: Vec<_> = routes
        .iter()
        .filter_map(|(route_name, route)| {
            let places = places(name, gateway, route_name, route);
            (!places.is_empty()).then_some(Attached { name: route_name, route, places })
        })
        .collect();
    attached.sort_by_key(|attached| (attached.route.created, attached.name));
    attached
}

fn places(
    gateway_name: &ObjectName,
    gateway: &GatewayObject,
    name: &ObjectName,
    route: &HttpRoute,
) -> Vec<(Vec<u32>, Vec<String>)> {
    let mut found: Vec<(&Listener, Vec<String>)> = Vec::new();
    for parent in route.parents.iter().filter(|parent| parent.is(gateway_name, name)) {
        if route.refused_by.contains(parent) {
            continue;
        }
        for listener in gateway.listeners.iter().filter(|listener| listener.takes(parent, gateway_name, name))
        {
            if let Some(hosts) = common(&listener.hostname, &route.hostnames) {
                found.push((listener, hosts));
            }
        }
    }
    let everywhere =
        gateway.listeners.iter().all(|listener| found.iter().any(|(at, _)| at.port == listener.port));
    let mut places: BTreeMap<Vec<u32>, Vec<String>> = BTreeMap::new();
    for (listener, hosts) in found {
        // Where ports make no difference, they are not asked for.
        let ports = if everywhere { Vec::new() } else { listener.ports() };
        let known = places.entry(ports).or_default();
        known.extend(hosts);
    }
    for hosts in places.values_mut() {
        hosts.sort();
        hosts.dedup();
        if hosts.iter().any(String::is_empty) {
            hosts.clear();
        }
    }
    places.into_iter().collect()
}

/// The hosts that both a listener and a route are for; an empty one is any. `None`: there are none.
fn common(listener: &str, route: &[String]) -> Option<Vec<String>> {
    let covers = |wide: &str, narrow: &str| {
        wide.is_empty()
            || wide == narrow
            || wide
                .strip_prefix('*')
                .is_some_and(|suffix| narrow.len() > suffix.len() && narrow.ends_with(suffix))
    };
    if route.is_empty() {
        return Some(vec![listener.to_owned()]);
    }
    let hosts = route.iter().filter_map(|host| {
        if covers(listener, host) {
            Some(host.clone())
        } else {
            covers(host, listener).then(|| listener.to_owned())
        }
    });
    let hosts: Vec<_> = hosts.collect();
    (!hosts.is_empty()).then_some(hosts)
}

impl Parent {
    fn is(&self, gateway: &ObjectName, route: &ObjectName) -> bool {
        let namespace = self.namespace.as_ref().unwrap_or(&route.namespace);
        self.kind.as_deref().is_none_or(|kind| kind == "Gateway")
            && *namespace == gateway.namespace
            && self.name == gateway.name
    }
}

impl Listener {
    fn takes(&self, parent: &Parent, gateway: &ObjectName, route: &ObjectName) -> bool {
        let allowed = match self.allowed_routes.namespaces.from.as_str() {
            // Labels of namespaces are not watched: who may not attach gets no requests anyway.
            "All" | "Selector" => true,
            "None" => false,
            _ => route.namespace == gateway.namespace,
        };
        allowed
            && parent.section_name.as_ref().is_none_or(|section| *section == self.name)
            && parent.port.is_none_or(|port| port == self.port)
    }

    /// As the proxy may see its port: Envoy Gateway's listen 10000 higher where only root may.
    pub fn ports(&self) -> Vec<u32> {
        if self.port < 1024 { vec![self.port, self.port.saturating_add(10_000)] } else { vec![self.port] }
    }
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
) -> v1::Placement {
    let mut placement = v1::Placement { everywhere: own.whole.clone(), ..v1::Placement::default() };
    if !own.sections.is_empty() {
        let listeners = gateway.listeners.iter().map(|listener| v1::Listener {
            hostname: listener.hostname.clone(),
            ports: if gateway.has_one_port() { Vec::new() } else { listener.ports() },
            policies: own.sections.get(&listener.name).cloned().unwrap_or_default(),
        });
        placement.listeners = listeners.collect();
    }
    if routes.iter().any(|attached| of_routes.contains_key(attached.name)) {
        placement.rules =
            routes.iter().flat_map(|attached| attached.rules(of_routes.get(attached.name))).collect();
    }
    placement
}

impl GatewayObject {
    fn has_one_port(&self) -> bool {
        let mut ports = self.listeners.iter().map(|listener| listener.port);
        let first = ports.next();
        ports.all(|port| Some(port) == first)
    }
}

impl Attached<'_> {
    fn rules(&self, targeted: Option<&Targeted>) -> Vec<v1::Rule> {
        let rule = |rule: &super::objects::HttpRouteRule| {
            let mut policies = targeted.map(|targeted| targeted.whole.clone()).unwrap_or_default();
            let section = rule.name.as_ref().and_then(|name| targeted?.sections.get(name));
            policies.extend(section.into_iter().flatten());
            policies.sort_unstable();
            self.places
                .iter()
                .map(move |(ports, hostnames)| v1::Rule {
                    hostnames: hostnames.clone(),
                    ports: ports.clone(),
                    matches: rule.matches.clone(),
                    policies: policies.clone(),
                })
                .collect::<Vec<_>>()
        };
        self.route.rules.iter().flat_map(rule).collect()
    }
}
