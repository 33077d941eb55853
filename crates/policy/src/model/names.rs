//! The names that identify a policy and a limit. Descriptors join them with `/`, so no name may contain one.

use crate::document::{DocumentNode, Reported, shortened};

/// A kind of name and the rule that it follows.
pub struct NameRule {
    what: &'static str,
    is: fn(&str) -> bool,
    alphabet: &'static str,
}

/// A Kubernetes namespace.
pub const NAMESPACE: NameRule = NameRule {
    what: "a namespace",
    is: is_namespace,
    alphabet: "at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends",
};
/// A Kubernetes object.
pub const POLICY: NameRule = NameRule {
    what: "the name of a policy",
    is: is_object,
    alphabet: "at most 253 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends",
};
/// A limit. Kuadrant does not restrict these; common names are `free`, `api_key`, `perUser`.
pub const LIMIT: NameRule = NameRule {
    what: "the name of a limit",
    is: |name| is_name(name, 63, |c| c.is_ascii_alphanumeric(), "-_"),
    alphabet: "at most 63 letters, digits, `-` and `_`, with a letter or digit at both ends",
};

/// Counters that several limits share, possibly across policies or over time.
pub const COUNTER_KEY: NameRule = NameRule { what: "the name of counters", ..LIMIT };

impl NameRule {
    /// Reports an error unless `name`, found at `node`, follows the rule.
    pub fn check(&self, name: &str, node: &DocumentNode<'_>) -> Result<String, Reported> {
        if (self.is)(name) {
            return Ok(name.to_owned());
        }
        let Self { what, alphabet, .. } = self;
        Err(node.refuse(format!("`{}` is not {what}: use {alphabet}", shortened(name))))
    }
}

pub fn is_namespace(name: &str) -> bool {
    is_name(name, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), "-")
}

pub fn is_object(name: &str) -> bool {
    is_name(name, 253, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), "-.")
}

fn is_name(name: &str, most: usize, outer: impl Fn(char) -> bool, inner: &str) -> bool {
    name.len() <= most
        && name.starts_with(&outer)
        && name.ends_with(&outer)
        && name.chars().all(|c| outer(c) || inner.contains(c))
}
