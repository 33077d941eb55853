//! Finds the policies that apply to a request according to Gateway API's rules for listeners and routes.
//!
//! It compiles the placement of a plan, and returns the positions of policies in that plan. The cost grows
//! with the number of labels in the request's host and segments in its path that any route names, not with
//! the number of routes.

mod rule;
mod table;

use crate::validation_error::ValidationError;
use expression::facts::{Facts, Need, find, without_port};
use expression::small_sort;
use protocol::wire::weir::v1::{Listener, Placement};
use rule::{Ranking, RouteEntry};
use std::sync::Arc;
use table::RouteTable;

pub use rule::check_pattern;

/// A compiled placement.
#[derive(Debug, Default)]
pub struct Routes {
    everywhere: Vec<usize>,
    /// The most specific hostnames first.
    listeners: Vec<RoutePolicies>,
    /// The rules that the gateway uses. A request belongs to the most specific match.
    rules: RouteTable,
    /// The rules that the gateway may use. Each rule that matches a request adds its policies.
    in_doubt: RouteTable,
    /// All ports that rules name.
    ports: Vec<u32>,
    /// Whether the routes name more than one host. If so, the host of a request identifies its listener.
    has_hosts: bool,
    /// The routes of several Gateways. All of them apply.
    gateways: Vec<Routes>,
    needs: Vec<Need>,
}

/// The policies of a listener.
#[derive(Debug)]
struct RoutePolicies {
    hostname: String,
    ports: Arc<[u32]>,
    policies: Arc<[usize]>,
}

impl Routes {
    /// Compiles the placement of a plan with this many policies.
    pub fn compile(placement: &Placement, policies: usize) -> Result<Self, Vec<ValidationError>> {
        let mut mistakes = Vec::new();
        let routes = Self::checked(placement, "placement", policies, true, &mut mistakes);
        if mistakes.is_empty() { Ok(routes) } else { Err(mistakes) }
    }

    /// Compiles a placement. `is_whole` is false for one of several Gateways, which cannot contain further
    /// Gateways.
    fn checked(
        placement: &Placement,
        path: &str,
        policies: usize,
        is_whole: bool,
        mistakes: &mut Vec<ValidationError>,
    ) -> Self {
        let mut entries = Vec::new();
        for (index, rule) in placement.rules.iter().enumerate() {
            match rule::entries(rule, index) {
                Ok(found) => entries.extend(found),
                Err(message) => {
                    mistakes.push(ValidationError { path: format!("{path}.rules[{index}]"), message })
                }
            }
        }
        let mut listeners: Vec<_> = placement.listeners.iter().map(RoutePolicies::new).enumerate().collect();
        small_sort::sort_by(&mut listeners, |(first, one), (second, other)| {
            let specificity = |place: &RoutePolicies| rule::specificity(&place.hostname);
            specificity(other).cmp(&specificity(one)).then(first.cmp(second))
        });
        let listeners: Vec<RoutePolicies> = listeners.into_iter().map(|(_, place)| place).collect();
        let everywhere = rule::places(&placement.everywhere);
        let named = entries.iter().flat_map(|entry| entry.policies.iter());
        let named =
            named.chain(listeners.iter().flat_map(|place| place.policies.iter())).chain(everywhere.iter());
        if named.copied().any(|place| place >= policies) {
            let message = "names a policy that the plan does not have".to_owned();
            mistakes.push(ValidationError { path: path.to_owned(), message });
        }
        let mut gateways = Vec::new();
        for (index, of_gateway) in placement.gateways.iter().enumerate() {
            let path = format!("{path}.gateways[{index}]");
            if is_whole {
                gateways.push(Self::checked(of_gateway, &path, policies, false, mistakes));
            } else {
                mistakes.push(ValidationError { path, message: "is inside another gateway's".to_owned() });
            }
        }
        let ranking = if placement.methods_are_headers { Ranking::EnvoyGateway } else { Ranking::GatewayApi };
        Self::new(everywhere.to_vec(), listeners, entries, (placement.regexes_last, ranking), gateways)
    }

    fn new(
        everywhere: Vec<usize>,
        listeners: Vec<RoutePolicies>,
        entries: Vec<RouteEntry>,
        (regexes_last, ranking): (bool, Ranking),
        gateways: Vec<Routes>,
    ) -> Self {
        let ports =
            entries.iter().map(|entry| &entry.ports).chain(listeners.iter().map(|place| &place.ports));
        let mut ports: Vec<u32> = ports.flat_map(|ports| ports.iter().copied()).collect();
        small_sort::sort(&mut ports);
        ports.dedup();
        let hosts =
            listeners.iter().map(|place| &place.hostname).chain(entries.iter().map(|entry| &entry.host));
        let has_hosts = hosts.clone().zip(hosts.skip(1)).any(|(one, other)| one != other);
        let mut needs = needs(&listeners, &entries, !ports.is_empty(), has_hosts);
        needs.extend(gateways.iter().flat_map(|gateway| gateway.needs.iter().cloned()));
        small_sort::sort(&mut needs);
        needs.dedup();
        let (in_doubt, rules): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.in_doubt);
        let [rules, in_doubt] =
            [rules, in_doubt].map(|entries| RouteTable::new(entries, regexes_last, ranking));
        Self { everywhere, listeners, rules, in_doubt, ports, has_hosts, gateways, needs }
    }

    /// The facts of a request that `find` needs.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// The positions of the policies that apply to every request.
    pub fn everywhere(&self) -> &[usize] {
        &self.everywhere
    }

    /// Returns the positions of the policies that apply, in order.
    pub fn find(&self, facts: &Facts) -> Vec<usize> {
        let mut found = self.find_here(facts);
        found.extend_from_slice(&self.everywhere);
        small_sort::sort(&mut found);
        found
    }

    /// Like `find`, without those that apply to every request.
    pub fn find_here(&self, facts: &Facts) -> Vec<usize> {
        let mut found = Vec::new();
        if !self.listeners.is_empty() || !self.rules.is_empty() || !self.in_doubt.is_empty() {
            let host = facts.host().map(|host| without_port(host).to_ascii_lowercase()).unwrap_or_default();
            let port = self.port(facts);
            // If the port is unknown, rules for specific ports may apply, but they take no request away from
            // other rules.
            let is_here = |ports: &[u32]| ports.is_empty() || port.is_some_and(|port| ports.contains(&port));
            let may_be_here = |ports: &[u32]| port.is_none() || is_here(ports);
            found.extend(self.listeners_at(&host, port).iter().flat_map(|place| place.policies.iter()));
            // A client may name one host in its TLS handshake, which selects the listener, and another in its
            // request.
            let server_name = self.server_name(facts).filter(|name| *name != host);
            if let Some(name) = &server_name {
                found.extend(self.listeners_at(name, port).iter().flat_map(|place| place.policies.iter()));
            }
            let path_and_query = facts.path().map(|path| path.split_once('?').unwrap_or((path, "")));
            let (path, query) = path_and_query.unwrap_or_default();
            let matches = |entry: &&RouteEntry| entry.takes(path, query, facts);
            let takes = |entry: &&RouteEntry| is_here(&entry.ports) && matches(entry);
            let may_take = |entry: &&RouteEntry| may_be_here(&entry.ports) && matches(entry);
            let taker = self.rules.first(&host, path, &takes);
            let route = facts.route_name();
            let may_take_in_doubt = |entry: &&RouteEntry| !entry.is_elsewhere(route) && may_take(entry);
            let mut possible = self.in_doubt.all(&host, path, &may_take_in_doubt);
            if server_name.is_some() {
                possible.extend(self.rules.all(&host, path, &may_take));
            } else if port.is_none() && !self.ports.is_empty() {
                possible
                    .extend(self.rules.all(&host, path, &|entry| !entry.ports.is_empty() && matches(entry)));
            }
            found.extend(taker.into_iter().chain(possible).flat_map(|entry| entry.policies.iter()));
        }
        for gateway in &self.gateways {
            found.extend(gateway.find(facts));
        }
        small_sort::sort(&mut found);
        found.dedup();
        found
    }

    /// Returns the most specific listener for the host. If the port is unknown, returns one for each port.
    fn listeners_at(&self, host: &str, port: Option<u32>) -> Vec<&RoutePolicies> {
        let mut found: Vec<&RoutePolicies> = Vec::new();
        for place in self.listeners.iter().filter(|place| rule::covers(&place.hostname, host)) {
            let is_here = place.ports.is_empty() || port.is_none_or(|port| place.ports.contains(&port));
            let owns = |other: &&RoutePolicies| other.ports.is_empty() || other.ports == place.ports;
            let is_owned = if port.is_some() { !found.is_empty() } else { found.iter().any(owns) };
            if is_here && !is_owned {
                found.push(place);
            }
        }
        found
    }

    /// Returns the server name in the client's TLS handshake, if it distinguishes listeners.
    fn server_name(&self, facts: &Facts) -> Option<String> {
        let name = self.has_hosts.then(|| find("connection", "requested_server_name")).flatten();
        name.and_then(|name| facts.text(name)).filter(|name| !name.is_empty()).map(str::to_ascii_lowercase)
    }

    /// Returns the port that received the request, if the gateway has such a port. A proxy may listen on
    /// other ports than its Gateway. In that case, only hostnames distinguish listeners.
    fn port(&self, facts: &Facts) -> Option<u32> {
        let port = facts.number(find("destination", "port")?)?;
        u32::try_from(port).ok().filter(|port| self.ports.binary_search(port).is_ok())
    }
}

impl RoutePolicies {
    fn new(listener: &Listener) -> Self {
        Self {
            hostname: listener.hostname.to_ascii_lowercase(),
            ports: listener.ports.clone().into(),
            policies: rule::places(&listener.policies),
        }
    }
}

fn needs(listeners: &[RoutePolicies], entries: &[RouteEntry], ports: bool, hosts: bool) -> Vec<Need> {
    let mut needs = Vec::new();
    if !listeners.is_empty() || !entries.is_empty() {
        needs.push(Need::Header(":authority".to_owned()));
    }
    if ports {
        needs.push(Need::Property(vec!["destination".to_owned(), "port".to_owned()]));
    }
    if hosts {
        needs.push(Need::Property(vec!["connection".to_owned(), "requested_server_name".to_owned()]));
    }
    if entries.iter().any(|entry| entry.in_doubt && entry.has_route_name()) {
        needs.push(Need::Property(Facts::ROUTE_NAME.map(str::to_owned).to_vec()));
    }
    for entry in entries {
        needs.extend(entry.needs());
    }
    needs
}
