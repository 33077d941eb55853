//! What is wrong with something that a person wrote, and where.

use std::fmt;

/// One mistake. `path` is written as a person would look for it: `spec.limits.free.when[0].predicate`; a key that
/// is no plain name is quoted (`spec.limits["a.b"]`). Empty: the document itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    /// Where.
    pub path: String,
    /// What is wrong and what would be right, in lower case, without a full stop.
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
