//! The filter's access to request bodies.

/// Whether request bodies are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyAccess {
    /// Requests are judged by their headers.
    #[default]
    None,
    /// If a limit needs the body, the request waits for the whole body, or for this many bytes of it.
    Buffer(usize),
}
