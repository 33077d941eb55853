//! Whether a filter reads request bodies.

/// Whether request bodies are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyAccess {
    /// Requests are judged by their headers.
    #[default]
    None,
    /// If a limit needs the body, the request waits for it, or for this many bytes of it.
    Buffer(usize),
}
