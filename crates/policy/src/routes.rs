//! Which policies apply to a request, by Gateway API's rules for listeners and routes.
//!
//! In: the placement that comes with a plan. Out: the places of policies in that plan. What a request costs here
//! grows with the parts of its host and path that any route names, not with the number of routes.

mod rule;

use crate::validation_error::ValidationError;
use expression::facts::{Facts, Need, find, without_port};
use expression::small_sort;
use protocol::wire::weir::v1::{Listener, Placement};
use rule::{PathMatchKind, RouteEntry};
use std::sync::Arc;

pub use rule::check_pattern;

/// A compiled placement.
#[derive(Debug, Default)]
pub struct Routes {
    everywhere: Vec<usize>,
    /// The most specific hostname first.
    listeners: Vec<RoutePolicies>,
    /// By host, kind and text of the path, then the most specific first.
    entries: Vec<RouteEntry>,
    /// The most dots in a wildcard, and the most slashes in a prefix or in what a regular expression begins with, that any
    /// entry has: what a client adds beyond costs nothing.
    deepest_host: usize,
    deepest_path: usize,
    has_regexes: bool,
    /// Every port that is named.
    ports: Vec<u32>,
    needs: Vec<Need>,
}

/// Where policies apply.
#[derive(Debug)]
struct RoutePolicies {
    hostname: String,
    ports: Arc<[u32]>,
    policies: Arc<[usize]>,
}

impl Routes {
    /// Of a plan with so many policies.
    pub fn compile(placement: &Placement, policies: usize) -> Result<Self, Vec<ValidationError>> {
        let mut mistakes = Vec::new();
        let mut entries = Vec::new();
        for (index, rule) in placement.rules.iter().enumerate() {
            let path = format!("placement.rules[{index}]");
            match rule::entries(rule, index) {
                Ok(found) => entries.extend(found),
                Err(message) => mistakes.push(ValidationError { path, message }),
            }
        }
        small_sort::sort_by(&mut entries, RouteEntry::compare);
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
            mistakes.push(ValidationError { path: "placement".to_owned(), message });
        }
        if mistakes.is_empty() {
            Ok(Self::new(everywhere.to_vec(), listeners, entries))
        } else {
            Err(mistakes)
        }
    }

    fn new(everywhere: Vec<usize>, listeners: Vec<RoutePolicies>, entries: Vec<RouteEntry>) -> Self {
        let most = |counts: &mut dyn Iterator<Item = usize>| counts.max().unwrap_or_default();
        let wildcards = entries.iter().filter(|entry| entry.host.starts_with('*'));
        let deepest_host = most(&mut wildcards.map(|entry| entry.host.matches('.').count()));
        let prefixes = entries.iter().filter(|entry| entry.kind != PathMatchKind::Exact);
        let deepest_path = most(&mut prefixes.map(|entry| entry.path.matches('/').count()));
        let has_regexes = entries.iter().any(|entry| entry.kind == PathMatchKind::Regex);
        let ports =
            entries.iter().map(|entry| &entry.ports).chain(listeners.iter().map(|place| &place.ports));
        let mut ports: Vec<u32> = ports.flat_map(|ports| ports.iter().copied()).collect();
        small_sort::sort(&mut ports);
        ports.dedup();
        let needs = needs(&listeners, &entries, !ports.is_empty());
        Self { everywhere, listeners, entries, deepest_host, deepest_path, has_regexes, ports, needs }
    }

    /// What must be fetched of a request.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// The places of the policies that apply to every request.
    pub fn everywhere(&self) -> &[usize] {
        &self.everywhere
    }

    /// The places of the policies that apply, in their order.
    pub fn find(&self, facts: &Facts) -> Vec<usize> {
        let mut found = self.find_here(facts);
        found.extend_from_slice(&self.everywhere);
        small_sort::sort(&mut found);
        found
    }

    /// The same, without those that apply to every request.
    pub fn find_here(&self, facts: &Facts) -> Vec<usize> {
        let mut found = Vec::new();
        if !self.listeners.is_empty() || !self.entries.is_empty() {
            let host = facts.host().map(|host| without_port(host).to_ascii_lowercase()).unwrap_or_default();
            let port = self.port(facts);
            let open = |ports: &[u32]| ports.is_empty() || port.is_none_or(|port| ports.contains(&port));
            let reached = |place: &&RoutePolicies| open(&place.ports) && rule::covers(&place.hostname, &host);
            found.extend(
                self.listeners.iter().find(reached).into_iter().flat_map(|place| place.policies.iter()),
            );
            let matched = self.entry(&host, facts, &open);
            found.extend(matched.into_iter().flat_map(|entry| entry.policies.iter()));
            small_sort::sort(&mut found);
        }
        found
    }

    /// The port that the request came to, if it is one of the gateway's: a proxy may listen on others than its
    /// Gateway says, and then only hostnames tell listeners apart.
    fn port(&self, facts: &Facts) -> Option<u32> {
        let port = facts.number(find("destination", "port")?)?;
        u32::try_from(port).ok().filter(|port| self.ports.binary_search(port).is_ok())
    }

    /// The rule that takes the request: the most specific host first, then path, method, headers, query, and age.
    fn entry(&self, host: &str, facts: &Facts, open: &dyn Fn(&[u32]) -> bool) -> Option<&RouteEntry> {
        let (path, query) =
            facts.path().map(|path| path.split_once('?').unwrap_or((path, ""))).unwrap_or_default();
        let takes = |entry: &&RouteEntry| open(&entry.ports) && entry.takes(path, query, facts);
        let beginnings = || prefixes(path, self.deepest_path);
        let in_host = |host: &str| {
            let entries = self.of_host(host);
            let first = |kind, text: &str| range(entries, kind, text).find(takes);
            let of_regexes = || beginnings().filter(|beginning| !beginning.is_empty()).chain([""]);
            let regex = || of_regexes().filter_map(|beginning| first(PathMatchKind::Regex, beginning));
            let regex = || self.has_regexes.then(|| regex().min_by_key(|entry| entry.rank())).flatten();
            let prefix = || beginnings().find_map(|prefix| first(PathMatchKind::Prefix, prefix));
            let any = || first(PathMatchKind::Exact, path).or_else(regex).or_else(prefix);
            if entries.is_empty() { None } else { any() }
        };
        // Found by their order, since only the end of a host is asked for: nothing of it is copied.
        let exact = in_host(host);
        exact
            .or_else(|| suffixes(host, self.deepest_host).find_map(|suffix| in_host(&format!("*{suffix}"))))
            .or_else(|| in_host(""))
    }

    fn of_host(&self, host: &str) -> &[RouteEntry] {
        let from = self.entries.partition_point(|entry| entry.host.as_str() < host);
        let rest = self.entries.get(from..).unwrap_or_default();
        let length = rest.partition_point(|entry| entry.host == host);
        rest.get(..length).unwrap_or_default()
    }
}

/// Those of a host's entries that are found by this.
fn range<'e>(entries: &'e [RouteEntry], kind: PathMatchKind, path: &str) -> std::slice::Iter<'e, RouteEntry> {
    let key = (kind, path);
    let of = |entry: &RouteEntry| (entry.kind, entry.path.as_str()).cmp(&key);
    let from = entries.partition_point(|entry| of(entry).is_lt());
    let rest = entries.get(from..).unwrap_or_default();
    rest.get(..rest.partition_point(|entry| of(entry).is_eq())).unwrap_or_default().iter()
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

fn needs(listeners: &[RoutePolicies], entries: &[RouteEntry], ports: bool) -> Vec<Need> {
    let mut needs = Vec::new();
    if !listeners.is_empty() || !entries.is_empty() {
        needs.push(Need::Header(":authority".to_owned()));
    }
    if ports {
        needs.push(Need::Property(vec!["destination".to_owned(), "port".to_owned()]));
    }
    for entry in entries {
        needs.extend(entry.needs());
    }
    small_sort::sort(&mut needs);
    needs.dedup();
    needs
}

/// The whole path, without a slash at its end, and what is before each slash, the longest first; none has more than
/// so many slashes.
fn prefixes(path: &str, deepest: usize) -> impl Iterator<Item = &str> {
    let end = path.match_indices('/').nth(deepest).map_or(path.len(), |(at, _)| at);
    let longest = path.get(..end).unwrap_or_default();
    let longest = longest.strip_suffix('/').unwrap_or(longest);
    std::iter::successors(Some(longest), |prefix| prefix.rfind('/').and_then(|at| prefix.get(..at)))
}

/// What begins with a dot, the longest first; none has more than so many.
fn suffixes(host: &str, deepest: usize) -> impl Iterator<Item = &str> {
    let mut suffixes: Vec<&str> =
        host.rmatch_indices('.').take(deepest).filter_map(|(at, _)| host.get(at..)).collect();
    suffixes.reverse();
    suffixes.into_iter()
}
