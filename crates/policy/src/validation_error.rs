//! An error in a document, and its location.

use std::fmt;

/// One error. `path` has the form `spec.limits.free.when[0].predicate`. A key that is not a plain name is
/// quoted (`spec.limits["a.b"]`). An empty path means the document itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    /// The path of the value.
    pub path: String,
    /// What is wrong and how to fix it, in lower case and without a full stop.
    pub message: String,
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}
