//! The listeners of a Gateway: which listener a request reaches, and which routes each listener accepts.

use super::{Certainty, GATEWAY_API, covers};
use crate::kubernetes::objects::{
    AllowedKind, AllowedNamespaces, AllowedRoutes, GatewayObject, Labels, Listener, ListenerSetObject,
    ObjectName, Parent, RouteName, SetName,
};
use kube::core::{Selector, SelectorExt};
use protocol::wire::weir::v1;
use std::collections::BTreeMap;

impl GatewayObject {
    /// Returns the listener that receives requests for this host, if the proxy separates its listeners.
    pub(super) fn owner(&self, port: u32, host: &str) -> Option<&Listener> {
        let reached = |listener: &&Listener| listener.port == port && covers(&listener.hostname, host);
        let is_exact =
            |listener: &Listener| !listener.hostname.is_empty() && !listener.hostname.starts_with('*');
        let specificity = |listener: &&Listener| (is_exact(listener), listener.hostname.len());
        self.listeners.iter().filter(reached).max_by_key(specificity)
    }

    /// Returns all listeners except TLS listeners. They pass connections through, so no HTTP filter sees
    /// their requests.
    pub fn http_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| listener.protocol != "TLS")
    }

    pub(super) fn has_one_port(&self) -> bool {
        let mut ports = self.http_listeners().map(|listener| listener.port);
        let first = ports.next();
        ports.all(|port| Some(port) == first)
    }

    /// Returns the listeners without policies.
    pub fn hosts(&self) -> Vec<v1::Listener> {
        self.http_listeners().map(|listener| self.host(listener)).collect()
    }

    pub(super) fn host(&self, listener: &Listener) -> v1::Listener {
        let ports = if self.has_one_port() { Vec::new() } else { listener.ports() };
        v1::Listener { hostname: listener.hostname.clone(), ports, policies: Vec::new() }
    }

    /// Adds the listeners of these sets if the Gateway accepts them.
    pub fn with_sets<'s>(
        &self,
        name: &ObjectName,
        sets: impl Iterator<Item = (&'s SetName, &'s ListenerSetObject)>,
        namespaces: Option<&BTreeMap<String, Labels>>,
    ) -> Self {
        let mut gateway = self.clone();
        for (set_name, set) in sets.filter(|(set_name, set)| set.parent.is(name, &set_name.name)) {
            let allowed = self.allowed_listeners.as_ref();
            let allowed = allowed.filter(|allowed| !allowed.from.is_empty());
            let allowed = allowed
                .and_then(|allowed| allowed.allow(&name.namespace, &set_name.name.namespace, namespaces));
            let Some(allowed) = allowed.filter(|_| set.accepted != Some(false)) else { continue };
            let is_sure = allowed == Certainty::Sure && set.accepted == Some(true);
            for listener in &set.listeners {
                // The Gateway's own listeners come first, then those of the sets by age.
                let same =
                    |other: &Listener| other.port == listener.port && other.hostname == listener.hostname;
                let in_doubt = !is_sure || gateway.listeners.iter().any(same);
                gateway.listeners.push(Listener { in_doubt, ..listener.clone() });
            }
        }
        gateway
    }
}

impl Listener {
    pub(super) fn is_of(&self, parent: &Parent, gateway: &ObjectName, route: &ObjectName) -> bool {
        let is_home = match &self.set {
            None => parent.is(gateway, route),
            Some(set) => parent.is_set(set, route),
        };
        is_home
            && parent.section_name.as_ref().is_none_or(|section| *section == self.name)
            && parent.port.is_none_or(|port| port == self.port)
    }

    /// Returns how certain it is that routes of this kind and namespace may attach, or `None` if they may
    /// not.
    pub(super) fn allows(
        &self,
        gateway: &ObjectName,
        route: &RouteName,
        namespaces: Option<&BTreeMap<String, Labels>>,
    ) -> Option<Certainty> {
        let AllowedRoutes { namespaces: allowed, kinds } = &self.allowed_routes;
        let is_it = |kind: &AllowedKind| {
            kind.kind == route.kind.name() && kind.group.as_deref().is_none_or(|group| group == GATEWAY_API)
        };
        if !kinds.is_empty() && !kinds.iter().any(is_it) {
            return None;
        }
        let of_protocol = match self.protocol.as_str() {
            "HTTP" | "HTTPS" | "" => Certainty::Sure,
            // HTTPRoutes cannot attach to these protocols.
            "TLS" | "TCP" | "UDP" => return None,
            // The controller defines this protocol.
            _ => Certainty::InDoubt,
        };
        let of_protocol = if self.in_doubt { Certainty::InDoubt } else { of_protocol };
        let own = self.set.as_ref().map_or(&gateway.namespace, |set| &set.name.namespace);
        allowed.allow(own, &route.name.namespace, namespaces).map(|allowed| allowed.max(of_protocol))
    }

    /// Returns the ports that the proxy may use. Envoy Gateway's proxies add 10000 to privileged ports.
    pub fn ports(&self) -> Vec<u32> {
        seen_ports(self.port)
    }
}

impl AllowedNamespaces {
    /// Returns how certain it is that this namespace is allowed, or `None` if it is not.
    pub(super) fn allow(
        &self,
        own: &str,
        namespace: &str,
        namespaces: Option<&BTreeMap<String, Labels>>,
    ) -> Option<Certainty> {
        match self.from.as_str() {
            "All" => Some(Certainty::Sure),
            "None" => None,
            "Selector" => {
                let labels = namespaces.map(|all| all.get(namespace));
                match (labels, self.selector.clone().map(Selector::try_from)) {
                    // A missing selector must not count as an empty one, which selects all namespaces.
                    (Some(_), None) => None,
                    (Some(Some(labels)), Some(Ok(selector))) => {
                        selector.matches(labels).then_some(Certainty::Sure)
                    }
                    // A route may be observed before its namespace.
                    _ => Some(Certainty::InDoubt),
                }
            }
            _ => (namespace == own).then_some(Certainty::Sure),
        }
    }
}

pub(super) fn seen_ports(port: u32) -> Vec<u32> {
    if port < 1024 { vec![port, port.saturating_add(10_000)] } else { vec![port] }
}
