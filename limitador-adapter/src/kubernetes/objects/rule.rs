//! The rules of HTTPRoutes and GRPCRoutes, and what the filter matches for them.

use protocol::wire::weir::v1::{Field, Match, field, r#match::Path};
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpRouteRule {
    /// The name of the rule, or `rule-1` and so on.
    pub name: String,
    /// The matches that the filter can evaluate exactly as the proxy does. This list or `unclear` has at
    /// least one match.
    pub matches: Vec<Match>,
    /// The matches that the filter cannot evaluate, for example because a regular expression does not compile
    /// here. They omit the conditions in doubt, so they match more requests than the proxy does.
    pub unclear: Vec<Match>,
    /// Why the matches in `unclear` are in doubt.
    pub doubts: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RuleObject {
    name: Option<String>,
    matches: Vec<WrittenMatch>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WrittenMatch {
    path: Option<WrittenValue>,
    headers: Vec<WrittenValue>,
    query_params: Vec<WrittenValue>,
    method: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct GrpcRuleObject {
    name: Option<String>,
    matches: Vec<GrpcMatch>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GrpcMatch {
    method: Option<GrpcMethod>,
    headers: Vec<WrittenValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GrpcMethod {
    #[serde(rename = "type")]
    kind: String,
    service: String,
    method: String,
}

impl From<GrpcRuleObject> for RuleObject {
    fn from(rule: GrpcRuleObject) -> Self {
        let matches = rule.matches.into_iter().map(|found| WrittenMatch {
            path: found.method.map(GrpcMethod::path),
            headers: found.headers,
            ..WrittenMatch::default()
        });
        Self { name: rule.name, matches: matches.collect() }
    }
}

impl GrpcMethod {
    /// Returns the path of a method: `/SERVICE/METHOD`.
    fn path(self) -> WrittenValue {
        let Self { kind, service, method } = self;
        let is_regex = kind == "RegularExpression";
        let any = |part: &str| if part.is_empty() { "[^/]+".to_owned() } else { format!("(?:{part})") };
        let (kind, value) = match (service.as_str(), method.as_str()) {
            ("", "") => ("PathPrefix", "/".to_owned()),
            (service, "") if !is_regex => ("PathPrefix", format!("/{service}")),
            (service, method) if !is_regex && !service.is_empty() => {
                ("Exact", format!("/{service}/{method}"))
            }
            // In the names of services and methods, only dots have a special meaning in regular expressions.
            (service, method) if !is_regex => {
                ("RegularExpression", format!("/{}/{}", any(service), any(&method.replace('.', "[.]"))))
            }
            (service, method) => ("RegularExpression", format!("/{}/{}", any(service), any(method))),
        };
        WrittenValue { kind: kind.to_owned(), value, ..WrittenValue::default() }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenValue {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    value: String,
}

impl HttpRouteRule {
    /// Reads a rule. An unnamed rule is named after its position, as in Kuadrant.
    pub(super) fn new(number: usize, rule: RuleObject) -> Self {
        let (mut matches, mut unclear, mut doubts) = (Vec::new(), Vec::new(), Vec::new());
        if rule.matches.is_empty() {
            matches.push(Match::default());
        }
        for written in rule.matches {
            let before = doubts.len();
            let found = written.read(&mut doubts);
            let place = if doubts.len() == before { &mut matches } else { &mut unclear };
            place.push(found);
        }
        let name = rule.name.unwrap_or_else(|| format!("rule-{number}"));
        Self { name, matches, unclear, doubts }
    }
}

impl WrittenMatch {
    /// Reads a match. If a header is named twice, or a regular expression does not compile here, the match
    /// contains only the method and path, and the reason is recorded.
    fn read(self, doubts: &mut Vec<String>) -> Match {
        let before = doubts.len();
        let path = self.path.and_then(|path| match path.kind.as_str() {
            "Exact" => Some(Path::Exact(path.value)),
            "RegularExpression" => checked(path.value, doubts).map(Path::Regex),
            _ => Some(Path::Prefix(path.value)),
        });
        let mut fields = |written: Vec<WrittenValue>| -> Vec<Field> {
            written.into_iter().filter_map(|value| value.field(doubts)).collect()
        };
        // Gateway API forbids repeated headers but cannot validate this. Gateway API specifies that the first
        // one counts, but proxies require all of them.
        let repeated = repeated(&self.headers);
        let (headers, query) = (fields(self.headers), fields(self.query_params));
        doubts.extend(repeated.map(|name| format!("the header `{name}` is matched more than once")));
        if doubts.len() > before {
            // If several fields have the same name, only the first one counts. It may be the one that was
            // left out.
            return Match { path, method: self.method, ..Match::default() };
        }
        Match { path, method: self.method, headers, query }
    }
}

/// Returns a header that is named more than once, ignoring case.
fn repeated(headers: &[WrittenValue]) -> Option<String> {
    let mut names: Vec<String> = headers.iter().map(|header| header.name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first().cloned()).flatten())
}

impl WrittenValue {
    fn field(self, doubts: &mut Vec<String>) -> Option<Field> {
        let value = match self.kind.as_str() {
            "RegularExpression" => field::Value::Regex(checked(self.value, doubts)?),
            _ => field::Value::Exact(self.value),
        };
        Some(Field { name: self.name, value: Some(value) })
    }
}

/// Checks a regular expression. The filter does not support all regular expressions that Envoy supports. If
/// one does not compile, the rest of the plan must still be usable.
fn checked(pattern: String, doubts: &mut Vec<String>) -> Option<String> {
    match policy::routes::check_pattern(&pattern) {
        Ok(()) => Some(pattern),
        Err(error) => {
            doubts.push(format!("the regular expression `{pattern}` cannot be matched: {error}"));
            None
        }
    }
}
