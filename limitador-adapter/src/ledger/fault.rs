//! Why a storage does not work.

use std::time::Instant;

/// Why the ledger cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the counter storage {}: {message}", fault.clause())]
pub struct Unavailable {
    pub fault: StorageFault,
    pub message: String,
}

impl Unavailable {
    pub fn new(fault: StorageFault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into() }
    }

    /// There is no room for another hold.
    pub fn full(message: impl Into<String>) -> Self {
        Self::new(StorageFault::Full, message)
    }

    /// The storage failed for another reason than those that have a name.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StorageFault::Failed, message)
    }
}

/// The kinds of storage faults. Each has another remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageFault {
    /// There is no room for another hold. Charges and releases still work.
    Full,
    /// The storage does not answer, or is not ready to.
    Unreachable,
    /// The storage takes no writes. It is a replica, for example.
    ReadOnly,
    /// The storage rejects the credentials, or they do not permit a command.
    Denied,
    /// The storage lacks a feature, for example because it is too old.
    Unsupported,
    /// Anything else.
    Failed,
}

impl StorageFault {
    pub const ALL: [Self; 6] =
        [Self::Full, Self::Unreachable, Self::ReadOnly, Self::Denied, Self::Unsupported, Self::Failed];

    /// Returns the name for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unreachable => "unreachable",
            Self::ReadOnly => "read_only",
            Self::Denied => "denied",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }

    /// Returns the clause for error messages.
    fn clause(self) -> &'static str {
        match self {
            Self::Full => "is full",
            Self::Unreachable => "does not answer",
            Self::ReadOnly => "takes no writes",
            Self::Denied => "denies access",
            Self::Unsupported => "cannot be used",
            Self::Failed => "failed",
        }
    }
}

/// Logs when a storage stops working, when the fault changes, and when the storage works again.
#[derive(Debug, Default)]
pub struct FaultLog {
    /// The present fault, and when the storage stopped working.
    present: Option<(StorageFault, Instant)>,
}

impl FaultLog {
    /// Records the present state of the storage.
    pub fn record(&mut self, state: Result<(), Unavailable>, now: Instant) {
        match (self.present, state) {
            (None, Ok(())) => {}
            (Some((_, since)), Ok(())) => {
                let seconds = now.saturating_duration_since(since).as_secs();
                tracing::info!(seconds, "the counter storage works again");
                self.present = None;
            }
            (Some((before, _)), Err(error)) if before == error.fault => {}
            (before, Err(error)) => {
                tracing::error!(fault = error.fault.name(), "{error}");
                self.present = Some((error.fault, before.map_or(now, |(_, since)| since)));
            }
        }
    }
}
