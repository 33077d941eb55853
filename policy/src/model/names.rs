//! The names that identify a policy and a limit. Descriptors join them with `/`, so none may hold one.

/// A Kubernetes namespace.
pub(crate) const NAMESPACE: &str =
    "a namespace has lower-case letters, digits and `-`, at most 63, with a letter or digit at both ends";
/// A Kubernetes object.
pub(crate) const OBJECT: &str =
    "a name has lower-case letters, digits, `-` and `.`, at most 253, with a letter or digit at both ends";
/// A limit. Kuadrant leaves these to the author; what people write there is `free`, `api_key`, `perUser`.
pub(crate) const LIMIT: &str =
    "the name of a limit has letters, digits, `-` and `_`, at most 63, with a letter or digit at both ends";

pub(crate) fn is_namespace(name: &str) -> bool {
    is_name(name, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), "-")
}

pub(crate) fn is_object(name: &str) -> bool {
    is_name(name, 253, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), "-.")
}

pub(crate) fn is_limit(name: &str) -> bool {
    is_name(name, 63, |c| c.is_ascii_alphanumeric(), "-_")
}

fn is_name(name: &str, most: usize, outer: impl Fn(char) -> bool, inner: &str) -> bool {
    name.len() <= most
        && name.starts_with(&outer)
        && name.ends_with(&outer)
        && name.chars().all(|c| outer(c) || inner.contains(c))
}
