//! Which raw values expressions need.

use super::{ASKED_METHOD, Facts, Origin, find, lower_case};
use crate::cel::FactPath;
use crate::small_sort;

/// What the shell must fetch before a request can be judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A request header by its lower-case name, including `:path` and the like. Repeated values are joined
    /// with `,`, as in Envoy's `request.headers`.
    Header(String),
    /// All request headers, with one call of [`Facts::header`] for each.
    Headers,
    /// An Envoy attribute by its path, for example `["source", "address"]`.
    Property(Vec<String>),
    /// The identity (`auth`), from the source in the plugin configuration.
    Identity,
    /// Recent failures of upstreams; see [`Facts::failures`].
    Failures,
}

impl Facts {
    /// Returns what to fetch for expressions that use these facts. Sorted, without repeats.
    pub fn needs<'a>(references: impl IntoIterator<Item = &'a FactPath>) -> Vec<Need> {
        let mut needs: Vec<Need> = references.into_iter().flat_map(needs_of).collect();
        small_sort::sort(&mut needs);
        needs.dedup();
        if needs.contains(&Need::Headers) {
            needs.retain(|need| !matches!(need, Need::Header(_)));
        }
        needs
    }
}

/// Returns what to fetch for this fact.
pub(super) fn needs_of(reference: &FactPath) -> impl Iterator<Item = Need> {
    let is_method = matches!(reference.as_slice(), [root, name, ..] if root == "request" && name == "method");
    let asked = is_method.then(|| Need::Header(ASKED_METHOD.to_owned()));
    need(reference).into_iter().chain(asked)
}

fn need(reference: &FactPath) -> Option<Need> {
    let path: Vec<&str> = reference.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["auth", ..] | ["request", "auth", ..] => Some(Need::Identity),
        ["request", "headers"] => Some(Need::Headers),
        ["request", "headers", name, ..] => Some(Need::Header(lower_case(name).into_owned())),
        ["metadata", ..] => Some(Need::Property(vec!["metadata".to_owned()])),
        ["filter_state", _] => Some(Need::Property(reference.clone())),
        ["llm", "estimate", ..] => Some(Need::Header("content-length".to_owned())),
        [root, name, ..] => {
            let attribute = find(root, name)?;
            Some(match attribute.origin {
                Origin::Header(name) => Need::Header(name.to_owned()),
                Origin::Method => Need::Header(":method".to_owned()),
                Origin::Path | Origin::UrlPath | Origin::Query => Need::Header(":path".to_owned()),
                Origin::Host => Need::Header(":authority".to_owned()),
                Origin::Size | Origin::Estimate => Need::Header("content-length".to_owned()),
                Origin::Property => {
                    Need::Property(vec![attribute.root.to_owned(), attribute.name.to_owned()])
                }
                Origin::Address => Need::Property(vec![attribute.root.to_owned(), "address".to_owned()]),
                Origin::Failures => Need::Failures,
                Origin::Body | Origin::Usage | Origin::Code | Origin::Finished => return None,
            })
        }
        _ => None,
    }
}
