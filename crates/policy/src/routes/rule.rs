//! One match of a route's rule for one host.

use expression::cel::Pattern;
use expression::facts::{Facts, Need, lower_case};
use protocol::wire::weir::v1::{Field, Match, Rule, field, r#match::Path};
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

/// How a path is compared. In Gateway API, exact paths come before prefixes. Gateway API does not specify the
/// rank of regular expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathMatchKind {
    Exact,
    Regex,
    Prefix,
}

#[derive(Clone, Debug)]
pub(super) struct RouteEntry {
    /// A hostname in lower case, which may begin with the wildcard `*.`. Empty matches any host.
    pub(super) host: String,
    pub(super) kind: PathMatchKind,
    /// A prefix has no trailing slash. A regular expression is represented by its literal beginning up to the
    /// last slash, so that it can be looked up like a prefix.
    pub(super) path: String,
    pub(super) ports: Arc<[u32]>,
    pub(super) policies: Arc<[usize]>,
    /// Whether it is uncertain that the gateway uses the rule. If so, the rule takes no requests away from
    /// others.
    pub(super) in_doubt: bool,
    /// The beginning of the proxy's names for the route. Empty if unknown.
    route_name: Arc<str>,
    /// The length of the path as written.
    length: usize,
    /// The literal text that every matching path begins with, and the pattern.
    regex: Option<(String, Pattern)>,
    method: String,
    headers: Vec<(String, Value)>,
    query: Vec<(String, Value)>,
    order: (usize, usize),
}

/// The order of several matches of one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ranking {
    /// As in Gateway API: matches with a method first, then those with more headers, then those with more
    /// query parameters.
    #[default]
    GatewayApi,
    /// As in Envoy Gateway: a method counts as a header, and if the numbers are equal, the match with more
    /// exact values comes first.
    EnvoyGateway,
}

#[derive(Clone, Debug)]
enum Value {
    Exact(String),
    Regex(Pattern),
}

/// Returns all matches of a rule for each of its hosts.
pub(super) fn entries(rule: &Rule, order: usize) -> Result<Vec<RouteEntry>, String> {
    let (ports, policies): (Arc<[u32]>, _) = (rule.ports.clone().into(), places(&rule.policies));
    let (any, route_name) = ([String::new()], Arc::from(rule.route_name.as_str()));
    let hosts = if rule.hostnames.is_empty() { &any[..] } else { &rule.hostnames };
    let mut entries = Vec::new();
    for (index, found) in rule.matches.iter().enumerate() {
        // A pattern is compiled once for all hosts.
        let mut entry = RouteEntry::new(found, (order, index))?;
        (entry.ports, entry.policies) = (ports.clone(), policies.clone());
        entry.in_doubt = rule.in_doubt;
        entry.route_name = Arc::clone(&route_name);
        entries
            .extend(hosts.iter().map(|host| RouteEntry { host: host.to_ascii_lowercase(), ..entry.clone() }));
    }
    Ok(entries)
}

pub(super) fn places(places: &[u32]) -> Arc<[usize]> {
    places.iter().map(|place| usize::try_from(*place).unwrap_or(usize::MAX)).collect()
}

/// Returns why a route's regular expression cannot be compiled here, if it cannot.
pub fn check_pattern(source: &str) -> Result<(), String> {
    Pattern::whole(source).map(drop)
}

/// Orders hostnames by how specific they are.
pub(super) fn specificity(hostname: &str) -> (bool, usize) {
    (!hostname.is_empty() && !hostname.starts_with('*'), hostname.len())
}

/// Returns whether a hostname, possibly with a wildcard or empty, matches this host.
pub(super) fn covers(hostname: &str, host: &str) -> bool {
    match hostname.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => hostname.is_empty() || hostname == host,
    }
}

impl RouteEntry {
    fn new(found: &Match, order: (usize, usize)) -> Result<Self, String> {
        let (kind, path, regex) = match &found.path {
            None => (PathMatchKind::Prefix, "", None),
            Some(Path::Exact(path)) => (PathMatchKind::Exact, path.as_str(), None),
            Some(Path::Prefix(path)) => (PathMatchKind::Prefix, path.strip_suffix('/').unwrap_or(path), None),
            Some(Path::Regex(source)) => {
                let beginning = beginning(source);
                let upto_slash = beginning.rsplit_once('/').map_or("", |(parent, _)| parent);
                let regex = (beginning.to_owned(), Pattern::whole(source)?);
                (PathMatchKind::Regex, upto_slash.trim_end_matches('/'), Some(regex))
            }
        };
        let length = match &found.path {
            Some(Path::Exact(path) | Path::Prefix(path) | Path::Regex(path)) => path.len(),
            None => 0,
        };
        Ok(Self {
            host: String::new(),
            kind,
            path: path.to_owned(),
            ports: Arc::default(),
            policies: Arc::default(),
            in_doubt: false,
            route_name: Arc::from(""),
            length,
            regex,
            method: found.method.clone(),
            headers: values(&found.headers, |name| lower_case(name).into_owned())?,
            query: values(&found.query, str::to_owned)?,
            order,
        })
    }

    pub(super) fn key(&self) -> (&str, PathMatchKind, &str) {
        (&self.host, self.kind, &self.path)
    }

    pub(super) fn compare(&self, other: &Self, ranking: Ranking) -> Ordering {
        self.key().cmp(&other.key()).then_with(|| self.rank(ranking).cmp(&other.rank(ranking)))
    }

    /// Among the matches for the same host and kind, the request belongs to the one with the lowest rank.
    pub(super) fn rank(&self, ranking: Ranking) -> impl Ord + use<> {
        let (headers, query) = (self.headers.len(), self.query.len());
        let method = usize::from(!self.method.is_empty());
        let counts = match ranking {
            // A prefix's path ends at its last segment.
            Ranking::GatewayApi if self.kind == PathMatchKind::Prefix => [0, method, headers, query, 0],
            Ranking::GatewayApi => [self.length, method, headers, query, 0],
            Ranking::EnvoyGateway => [
                self.length,
                headers.saturating_add(method),
                exact(&self.headers).saturating_add(method),
                query,
                exact(&self.query),
            ],
        };
        (Reverse(counts), self.order)
    }

    /// Returns whether the proxy's name for the request's route shows that another rule has matched.
    pub(super) fn is_elsewhere(&self, route: Option<&str>) -> bool {
        let Some((kind, _)) = self.route_name.split_once('/') else { return false };
        route.is_some_and(|route| {
            let is_such_a_name = route.split_once('/').is_some_and(|(of, _)| of == kind);
            is_such_a_name && !route.starts_with(&*self.route_name)
        })
    }

    pub(super) fn has_route_name(&self) -> bool {
        !self.route_name.is_empty()
    }

    /// Returns whether everything except the host and the port matches. The lookup by key has already
    /// compared part of the path.
    pub(super) fn takes(&self, path: &str, query: &str, facts: &Facts) -> bool {
        let header = |name: &str| facts.routed_header(name);
        (self.method.is_empty() || header(":method") == Some(&self.method))
            && (self.regex.as_ref())
                .is_none_or(|(beginning, regex)| path.starts_with(beginning) && regex.matches(path))
            && self.headers.iter().all(|(name, value)| header(name).is_some_and(|found| value.is(found)))
            && self
                .query
                .iter()
                .all(|(name, value)| parameter(query, name).is_some_and(|found| value.is(found)))
    }

    pub(super) fn needs(&self) -> impl Iterator<Item = Need> {
        let method = (!self.method.is_empty()).then_some(":method");
        let headers = self.headers.iter().map(|(name, _)| name.as_str());
        [":path"].into_iter().chain(method).chain(headers).map(|name| Need::Header(name.to_owned()))
    }
}

/// Returns the literal text that every match of a regular expression begins with. Empty if there is no
/// obvious one.
fn beginning(source: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_~%:@".contains(c);
    let (literal, rest) = source.split_at(source.find(|c| !plain(c)).unwrap_or(source.len()));
    // With alternatives, no literal beginning is certain.
    if rest.contains('|') && !alternatives_are_enclosed(rest) {
        return "";
    }
    let repeated = rest.starts_with(['*', '?', '{', '+']);
    literal.get(..literal.len().saturating_sub(usize::from(repeated))).unwrap_or_default()
}

/// Returns whether each `|` is in parentheses, and nothing can hide a parenthesis (an escape, a class or a
/// comment).
fn alternatives_are_enclosed(source: &str) -> bool {
    let mut depth = 0_usize;
    source.chars().all(|c| {
        match c {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        !matches!(c, '\\' | '[' | '#') && (c != '|' || depth > 0)
    })
}

fn exact(values: &[(String, Value)]) -> usize {
    values.iter().filter(|(_, value)| matches!(value, Value::Exact(_))).count()
}

impl Value {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Exact(value) => value == text,
            Self::Regex(pattern) => pattern.matches(text),
        }
    }
}

/// In Gateway API, only the first of several conditions with the same name counts.
fn values(fields: &[Field], name: impl Fn(&str) -> String) -> Result<Vec<(String, Value)>, String> {
    let mut values: Vec<(String, Value)> = Vec::with_capacity(fields.len());
    for field in fields {
        let name = name(&field.name);
        let value = match &field.value {
            Some(field::Value::Regex(source)) => Value::Regex(Pattern::whole(source)?),
            Some(field::Value::Exact(value)) => Value::Exact(value.clone()),
            None => Value::Exact(String::new()),
        };
        if !values.iter().any(|(known, _)| *known == name) {
            values.push((name, value));
        }
    }
    Ok(values)
}

/// Returns the first parameter with that name, without decoding it.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}
