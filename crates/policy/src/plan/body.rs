//! Whether a filter reads request bodies.

/// Whether request bodies are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyAccess {
    /// The check happens on the request's headers.
    #[default]
    None,
    /// Where a limit needs the body, the request waits until it is there, or so many bytes of it.
    Buffer(usize),
}
