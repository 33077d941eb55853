//! Determines which routes are attached to which Gateway, and therefore which requests each policy applies
//! to.

mod listener;

use super::objects::{
    GatewayObject, HttpRoute, HttpRouteRule, Labels, Listener, ObjectName, Parent, ParentStatus, RouteKind,
    RouteName, SetName,
};
use listener::seen_ports;
use protocol::wire::weir::v1::{self, r#match::Path};
use std::collections::{BTreeMap, BTreeSet};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// A route at a Gateway, with its hosts and ports there.
#[derive(Clone, Debug)]
pub struct Attached<'a> {
    pub name: &'a RouteName,
    pub route: &'a HttpRoute,
    pub places: Vec<At>,
}

/// A set of hosts and ports of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// Empty means any port.
    pub ports: Vec<u32>,
    /// Empty means any host.
    pub hosts: Vec<String>,
    /// Whether requests are certain to arrive here.
    pub certainty: Certainty,
}

/// How certain it is that a gateway uses a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The controller has accepted the route, and no other listener owns the host.
    Sure,
    /// The controller has not decided yet, or proxies differ. Policies of the route apply, but the route does
    /// not take requests away from other routes.
    InDoubt,
}

/// Other inputs that determine which routes a Gateway accepts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The controller of the Gateway's GatewayClass.
    pub controller: Option<&'a str>,
    /// The labels of every namespace. `None` if they cannot be read.
    pub namespaces: Option<&'a BTreeMap<String, Labels>>,
}

impl Surroundings<'_> {
    /// The order of regular expressions among a route's matches, which Gateway API leaves open.
    pub fn regex_order(self) -> RegexOrder {
        match self.controller {
            Some(controller) if controller.starts_with("istio.io/") => RegexOrder::AfterPrefixes,
            Some(controller) if controller.starts_with("gateway.envoyproxy.io/") => {
                RegexOrder::BeforePrefixes
            }
            _ => RegexOrder::Unknown,
        }
    }
}

/// When a proxy tries the regular expressions of its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegexOrder {
    /// Before prefixes, as Envoy Gateway does.
    BeforePrefixes,
    /// After prefixes, as Istio does.
    AfterPrefixes,
    /// In another order. It is uncertain which match takes a request.
    Unknown,
}

/// Returns the routes of a Gateway. Of equal routes, the winner comes first.
pub fn attached<'a>(
    name: &ObjectName,
    gateway: &GatewayObject,
    around: Surroundings<'_>,
    routes: &'a BTreeMap<RouteName, HttpRoute>,
) -> Vec<Attached<'a>> {
    let mut attached: Vec<_> = routes
        .iter()
        .filter_map(|(route_name, route)| {
            let places = places(name, gateway, around, route_name, route);
            (!places.is_empty()).then_some(Attached { name: route_name, route, places })
        })
        .collect();
    attached.sort_by_key(|attached| (attached.route.created, attached.name));
    let (mut grpc, http): (Vec<_>, Vec<_>) =
        attached.iter_mut().partition(|attached| attached.name.kind == RouteKind::Grpc);
    // If an HTTPRoute and a GRPCRoute have the same host, a controller accepts one. If it has accepted both,
    // the outcome is unknown.
    for place in grpc.iter_mut().flat_map(|attached| &mut attached.places) {
        if http.iter().flat_map(|attached| &attached.places).any(|other| place.meets(other)) {
            place.certainty = Certainty::InDoubt;
        }
    }
    attached
}

impl At {
    fn meets(&self, other: &Self) -> bool {
        let same_port = self.ports.is_empty()
            || other.ports.is_empty()
            || self.ports.iter().any(|port| other.ports.contains(port));
        let same_host = self.hosts.iter().any(|host| other.hosts.contains(host))
            || self.hosts.is_empty() && other.hosts.is_empty();
        same_port && same_host
    }
}

fn places(
    gateway_name: &ObjectName,
    gateway: &GatewayObject,
    around: Surroundings<'_>,
    route_name: &RouteName,
    route: &HttpRoute,
) -> Vec<At> {
    let mut found: Vec<(&Listener, String, Certainty)> = Vec::new();
    let name = &route_name.name;
    for parent in &route.parents {
        let at = |listener: &&Listener| listener.is_of(parent, gateway_name, name);
        let listeners: Vec<&Listener> = gateway.listeners.iter().filter(at).collect();
        if listeners.is_empty() {
            continue;
        }
        let Some(accepted) = route.acceptance(parent, around.controller, name) else { continue };
        let allowed: Vec<_> = listeners
            .into_iter()
            .map(|listener| (listener, listener.allows(gateway_name, route_name, around.namespaces)))
            .collect();
        // A controller that has accepted the route knows better what its listeners allow. So a possible
        // attachment to a named listener is certain, and a refusal by all listeners is in doubt.
        let is_known = accepted == Certainty::Sure && around.controller.is_some();
        let refused = allowed.iter().all(|(_, allowed)| allowed.is_none());
        for (listener, allowed) in allowed {
            let allowed = match allowed {
                Some(_) if is_known && parent.section_name.is_some() => Certainty::Sure,
                Some(allowed) => allowed,
                None if is_known && refused => Certainty::InDoubt,
                None => continue,
            };
            for host in common(&listener.hostname, &route.hostnames) {
                found.push((listener, host, accepted.max(allowed)));
            }
        }
    }
    let mut ports: BTreeMap<(Certainty, &str), BTreeSet<u32>> = BTreeMap::new();
    for (listener, host, certainty) in &found {
        // If another listener owns the host, the route is at most as certain here as at that listener.
        let at_owner = match gateway.owner(listener.port, host) {
            Some(owner) if owner.hostname != listener.hostname => {
                let at = found.iter().filter(|(at, of, _)| std::ptr::eq(*at, owner) && of == host);
                at.map(|(.., certainty)| *certainty).min().unwrap_or(Certainty::InDoubt)
            }
            _ => Certainty::Sure,
        };
        ports.entry(((*certainty).max(at_owner), host)).or_default().insert(listener.port);
    }
    let mut places: BTreeMap<(Certainty, Vec<u32>), Vec<String>> = BTreeMap::new();
    for ((certainty, host), ports) in ports {
        // If ports make no difference for the host, they are ignored.
        let everywhere = gateway.http_listeners().all(|listener| ports.contains(&listener.port));
        let ports = if everywhere { Vec::new() } else { ports.into_iter().flat_map(seen_ports).collect() };
        places.entry((certainty, ports)).or_default().push(host.to_owned());
    }
    let mut all = Vec::new();
    for ((certainty, ports), mut hosts) in places {
        hosts.sort();
        hosts.dedup();
        // A named host takes precedence over any host, so both are kept.
        if hosts.first().is_some_and(String::is_empty) {
            hosts.remove(0);
            all.push(At { ports: ports.clone(), hosts: Vec::new(), certainty });
        }
        if !hosts.is_empty() {
            all.push(At { ports, hosts, certainty });
        }
    }
    all
}

/// Returns the hosts that both a listener and a route serve. An empty host means any host.
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

/// Returns whether every host of `narrow` belongs to `wide`. Either may have a wildcard.
fn covers(wide: &str, narrow: &str) -> bool {
    let is_suffix = |suffix: &str| narrow.len() > suffix.len() && narrow.ends_with(suffix);
    wide.is_empty() || wide == narrow || wide.strip_prefix('*').is_some_and(is_suffix)
}

impl HttpRoute {
    /// Returns how certain it is that the Gateway's controller has accepted the route at this parent, or
    /// `None` if it has rejected it. Statuses of other controllers and of earlier generations are ignored. If
    /// the Gateway's controller is unknown, a rejection may come from another controller, so it only causes
    /// doubt.
    fn acceptance(&self, parent: &Parent, controller: Option<&str>, name: &ObjectName) -> Option<Certainty> {
        let says = self.statuses.iter().filter(|status| {
            status.parent_ref.is_same(parent, name)
                && controller.is_none_or(|controller| controller == status.controller_name)
        });
        let answers: Vec<Option<bool>> = says.map(|status| status.accepts(self.generation)).collect();
        match answers.as_slice() {
            [] => Some(Certainty::InDoubt),
            all if all.iter().all(|answer| *answer == Some(true)) => Some(Certainty::Sure),
            all if controller.is_some() && all.iter().all(|answer| *answer == Some(false)) => None,
            _ => Some(Certainty::InDoubt),
        }
    }
}

impl ParentStatus {
    /// Returns `None` if the controller has not decided on this generation of the route, or has accepted only
    /// some of its rules.
    fn accepts(&self, generation: i64) -> Option<bool> {
        let condition = |kind: &str| self.conditions.iter().find(|condition| condition.kind == kind);
        let accepted = condition("Accepted")?;
        let is_current = accepted.observed_generation.is_none_or(|of| of == generation);
        // The proxy has dropped some rules, but it is unknown which. Dropped rules take no requests.
        let is_partial = condition("PartiallyInvalid").is_some_and(|partial| partial.status == "True");
        match accepted.status.as_str() {
            _ if !is_current => None,
            "True" => (!is_partial).then_some(true),
            "False" => Some(false),
            _ => None,
        }
    }
}

impl Parent {
    fn is_set(&self, set: &SetName, route: &ObjectName) -> bool {
        let wanted = match set.is_experimental {
            true => ("gateway.networking.x-k8s.io", "XListenerSet"),
            false => (GATEWAY_API, "ListenerSet"),
        };
        let (group, kind, namespace) = self.defaulted(route);
        (group, kind) == wanted && namespace == set.name.namespace && self.name == set.name.name
    }

    fn is(&self, gateway: &ObjectName, route: &ObjectName) -> bool {
        let (group, kind, namespace) = self.defaulted(route);
        group == GATEWAY_API
            && kind == "Gateway"
            && namespace == gateway.namespace
            && self.name == gateway.name
    }

    /// Returns whether both name the same parent, with or without explicit defaults.
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

/// The policies of one target, by their positions in the plan.
#[derive(Clone, Debug, Default)]
pub struct Targeted {
    /// The policies for the whole target.
    pub whole: Vec<u32>,
    /// The policies for one of its sections.
    pub sections: BTreeMap<String, Vec<u32>>,
}

/// Computes which requests the policies of a Gateway's plan apply to.
pub fn placement(
    gateway: &GatewayObject,
    own: &Targeted,
    routes: &[Attached<'_>],
    of_routes: &BTreeMap<RouteName, Targeted>,
    regexes: RegexOrder,
) -> v1::Placement {
    let mut placement = v1::Placement {
        everywhere: own.whole.clone(),
        regexes_last: regexes == RegexOrder::AfterPrefixes,
        // Envoy Gateway, which tries regular expressions before prefixes, also ranks a method like a header.
        methods_are_headers: regexes == RegexOrder::BeforePrefixes,
        ..v1::Placement::default()
    };
    if !own.sections.is_empty() {
        // A listener that may not exist takes no requests away from other listeners' policies.
        for listener in gateway.http_listeners().filter(|listener| !listener.in_doubt) {
            let own = own.sections.get(&listener.name).filter(|_| listener.set.is_none());
            let policies = own.cloned().unwrap_or_default();
            placement.listeners.push(v1::Listener { policies, ..gateway.host(listener) });
        }
    }
    if routes.iter().any(|attached| of_routes.contains_key(attached.name)) {
        placement.rules = routes
            .iter()
            .flat_map(|attached| attached.rules(of_routes.get(attached.name), regexes))
            .collect();
    }
    placement
}

impl Attached<'_> {
    fn rules(&self, targeted: Option<&Targeted>, regexes: RegexOrder) -> Vec<v1::Rule> {
        let rule = |rule: &HttpRouteRule| {
            let mut policies = targeted.map(|targeted| targeted.whole.clone()).unwrap_or_default();
            let section = targeted.and_then(|targeted| targeted.sections.get(&rule.name));
            policies.extend(section.into_iter().flatten());
            policies.sort_unstable();
            policies.dedup();
            let is_unclear = |found: &v1::Match| {
                regexes == RegexOrder::Unknown && matches!(found.path, Some(Path::Regex(_)))
            };
            let (mut unclear, clear): (Vec<_>, Vec<_>) = rule.matches.iter().cloned().partition(is_unclear);
            unclear.extend_from_slice(&rule.unclear);
            let route_name = match regexes {
                RegexOrder::BeforePrefixes => self.name.in_envoy_gateway(),
                RegexOrder::AfterPrefixes | RegexOrder::Unknown => String::new(),
            };
            let rule = |at: &At, matches: &[v1::Match], in_doubt: bool| v1::Rule {
                route_name: if in_doubt { route_name.clone() } else { String::new() },
                hostnames: at.hosts.clone(),
                ports: at.ports.clone(),
                matches: matches.to_vec(),
                policies: policies.clone(),
                in_doubt,
            };
            let mut rules = Vec::new();
            for at in &self.places {
                let in_doubt = at.certainty == Certainty::InDoubt;
                rules.extend((!clear.is_empty()).then(|| rule(at, &clear, in_doubt)));
                rules.extend((!unclear.is_empty()).then(|| rule(at, &unclear, true)));
            }
            rules
        };
        self.route.rules.iter().flat_map(rule).collect()
    }
}
