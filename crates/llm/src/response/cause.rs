//! The problems that a body may have.

/// Why a body could not be read completely. Worse causes come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The body was not encoded as `content-encoding` says. It was read anyway.
    Mislabeled,
    /// The body ended inside a document.
    Truncated,
    /// A count was not a number of tokens: negative, fractional, text, or above 2^53.
    Count,
    /// The body should be JSON and is not.
    Malformed,
    /// `content-encoding` names an unknown encoding, or several.
    Encoding,
    /// The encoding announces a window larger than the maximum. For zstd, the maximum is 8 MiB, as in
    /// browsers.
    Window,
    /// There was no memory to read the body.
    Memory,
    /// The bytes do not have the encoding that `content-encoding` names.
    Corrupt,
    /// The decoded body is disproportionately larger than its bytes on the wire.
    Bomb,
}

impl Cause {
    /// Returns the name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Mislabeled => "mislabeled",
            Cause::Count => "count",
            Cause::Malformed => "malformed",
            Cause::Truncated => "truncated",
            Cause::Encoding => "encoding",
            Cause::Window => "window",
            Cause::Memory => "memory",
            Cause::Corrupt => "corrupt",
            Cause::Bomb => "bomb",
        }
    }
}
