//! Looks up rules by host and path. A lookup takes time proportional to the number of parts of the host and
//! path, not to the number of rules.

use super::rule::{PathMatchKind, Ranking, RouteEntry};
use expression::small_sort;

/// The rules in lookup order.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    /// Sorted by host, path kind and path text, the most specific first.
    entries: Vec<RouteEntry>,
    /// The maximum number of dots in a wildcard, and of slashes in a prefix or in the beginning of a regular
    /// expression. Because of these bounds, additional dots and slashes from a client cost nothing.
    deepest_host: usize,
    deepest_path: usize,
    has_regexes: bool,
    /// Whether regular expressions come after prefixes.
    regexes_last: bool,
    ranking: Ranking,
}

impl RouteTable {
    pub(super) fn new(mut entries: Vec<RouteEntry>, regexes_last: bool, ranking: Ranking) -> Self {
        small_sort::sort_by(&mut entries, |one, other| one.compare(other, ranking));
        let most = |counts: &mut dyn Iterator<Item = usize>| counts.max().unwrap_or_default();
        let wildcards = entries.iter().filter(|entry| entry.host.starts_with('*'));
        let deepest_host = most(&mut wildcards.map(|entry| entry.host.matches('.').count()));
        let prefixes = entries.iter().filter(|entry| entry.kind != PathMatchKind::Exact);
        let deepest_path = most(&mut prefixes.map(|entry| entry.path.matches('/').count()));
        let has_regexes = entries.iter().any(|entry| entry.kind == PathMatchKind::Regex);
        Self { entries, deepest_host, deepest_path, has_regexes, regexes_last, ranking }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the rule for the request: the most specific by host, then path, method, headers, query and
    /// age.
    pub(super) fn first<'t>(
        &'t self,
        host: &str,
        path: &str,
        takes: &impl Fn(&&'t RouteEntry) -> bool,
    ) -> Option<&'t RouteEntry> {
        self.hosts(host).find_map(|entries| {
            let exact = range(entries, PathMatchKind::Exact, path).find(takes);
            let regex =
                || self.regexes(entries, path).filter(takes).min_by_key(|entry| entry.rank(self.ranking));
            let prefix = || self.prefixes(entries, path).find(takes);
            if self.regexes_last {
                exact.or_else(prefix).or_else(regex)
            } else {
                exact.or_else(regex).or_else(prefix)
            }
        })
    }

    /// Returns every rule that would match the request if there were no others.
    pub(super) fn all<'t>(
        &'t self,
        host: &str,
        path: &str,
        takes: &impl Fn(&&'t RouteEntry) -> bool,
    ) -> Vec<&'t RouteEntry> {
        let of_host = |entries: &'t [RouteEntry]| {
            let exact = range(entries, PathMatchKind::Exact, path);
            exact.chain(self.regexes(entries, path)).chain(self.prefixes(entries, path)).filter(takes)
        };
        self.hosts(host).flat_map(|entries| of_host(entries).collect::<Vec<_>>()).collect()
    }

    /// The entries of every hostname that matches this host, the most specific first.
    fn hosts<'t>(&'t self, host: &str) -> impl Iterator<Item = &'t [RouteEntry]> {
        // Found by binary search, since only suffixes of the host are looked up. Nothing is copied.
        let wildcards = suffixes(host, self.deepest_host).map(|suffix| self.of_host(&format!("*{suffix}")));
        let exact = std::iter::once(self.of_host(host));
        let any = std::iter::once_with(|| self.of_host(""));
        exact.chain(wildcards).chain(any).filter(|entries| !entries.is_empty())
    }

    fn of_host(&self, host: &str) -> &[RouteEntry] {
        let from = self.entries.partition_point(|entry| entry.host.as_str() < host);
        let rest = self.entries.get(from..).unwrap_or_default();
        let length = rest.partition_point(|entry| entry.host == host);
        rest.get(..length).unwrap_or_default()
    }

    fn regexes<'t>(&self, entries: &'t [RouteEntry], path: &str) -> impl Iterator<Item = &'t RouteEntry> {
        let beginnings = self.has_regexes.then(|| {
            let some = beginnings(path, self.deepest_path).filter(|beginning| !beginning.is_empty());
            some.chain([""])
                .flat_map(|beginning| range(entries, PathMatchKind::Regex, beginning))
                .collect::<Vec<_>>()
        });
        beginnings.into_iter().flatten()
    }

    fn prefixes<'t>(&self, entries: &'t [RouteEntry], path: &str) -> impl Iterator<Item = &'t RouteEntry> {
        beginnings(path, self.deepest_path).flat_map(|prefix| range(entries, PathMatchKind::Prefix, prefix))
    }
}

/// Returns the entries of one host with this path kind and path.
fn range<'e>(entries: &'e [RouteEntry], kind: PathMatchKind, path: &str) -> std::slice::Iter<'e, RouteEntry> {
    let key = (kind, path);
    let of = |entry: &RouteEntry| (entry.kind, entry.path.as_str()).cmp(&key);
    let from = entries.partition_point(|entry| of(entry).is_lt());
    let rest = entries.get(from..).unwrap_or_default();
    rest.get(..rest.partition_point(|entry| of(entry).is_eq())).unwrap_or_default().iter()
}

/// Returns the whole path without a trailing slash, and the part before each slash, the longest first. They
/// contain at most `deepest` slashes.
fn beginnings(path: &str, deepest: usize) -> impl Iterator<Item = &str> {
    let end = path.match_indices('/').nth(deepest).map_or(path.len(), |(at, _)| at);
    let longest = path.get(..end).unwrap_or_default();
    let longest = longest.strip_suffix('/').unwrap_or(longest);
    std::iter::successors(Some(longest), |prefix| prefix.rfind('/').and_then(|at| prefix.get(..at)))
}

/// Returns the suffixes that begin with a dot, the longest first. They contain at most `deepest` dots.
fn suffixes(host: &str, deepest: usize) -> impl Iterator<Item = &str> {
    let mut suffixes: Vec<&str> =
        host.rmatch_indices('.').take(deepest).filter_map(|(at, _)| host.get(at..)).collect();
    suffixes.reverse();
    suffixes.into_iter()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::rule::{Ranking, entries};
    use super::RouteTable;
    use protocol::wire::weir::v1::{Match, Rule, r#match::Path};
    use std::cell::Cell;

    /// However many routes there are, a request examines only those that its own path can match.
    #[test]
    fn a_request_examines_no_routes_of_other_paths() {
        let exact = |path: String| Match { path: Some(Path::Exact(path)), ..Match::default() };
        let prefix = |path: String| Match { path: Some(Path::Prefix(path)), ..Match::default() };
        let regex =
            |path: String| Match { path: Some(Path::Regex(path + "/v[0-9]+/chat")), ..Match::default() };
        let kinds: [fn(String) -> Match; 3] = [exact, prefix, regex];
        for (kind, own) in kinds.into_iter().zip([[1, 0], [1, 1], [1, 1]]) {
            let rule = |index| Rule { matches: vec![kind(format!("/team-{index}"))], ..Rule::default() };
            let rules = (0..500).flat_map(|index| entries(&rule(index), index).unwrap()).collect();
            let table = RouteTable::new(rules, true, Ranking::GatewayApi);
            let examined = |path: &str| {
                let count = Cell::new(0);
                let takes = |_: &&_| {
                    count.set(count.get() + 1);
                    false
                };
                assert!(table.first("llm.example", path, &takes).is_none());
                count.get()
            };
            assert_eq!([examined("/team-7"), examined("/team-7/v1/chat")], own);
            assert_eq!(examined("/nothing/here"), 0);
        }
    }
}
