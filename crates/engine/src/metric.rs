//! The filter's metrics and their names.

pub mod table;

use expression::identity::IdentityError;
use llm::response::Cause;
pub use policy::plan::DoubtCause;
use policy::plan::{Doubt, Failure, Hold};
use protocol::call::CallFailure;
use std::borrow::Cow;

/// An event to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A request to which a limit applies was admitted, and its tokens are held.
    Admitted,
    /// A request was refused by this limit.
    Refused {
        /// "NAMESPACE/NAME".
        policy: String,
        limit: String,
    },
    /// A request was refused because it would have held more than the limit's `maxShare`.
    OverShare {
        /// "NAMESPACE/NAME".
        policy: String,
        limit: String,
    },
    /// A request was admitted although it exceeds this soft limit.
    SoftExceeded {
        /// "NAMESPACE/NAME".
        policy: String,
        limit: String,
    },
    /// A request was admitted unchecked, for this reason.
    FailedOpen(&'static str),
    /// A request was refused unchecked, for this reason.
    FailedClosed(&'static str),
    /// A part of a policy could not be evaluated.
    Evaluation {
        /// "NAMESPACE/NAME".
        policy: String,
        /// [`crate::plan::PolicyPart::name`].
        part: &'static str,
    },
    /// A limit applied to a request although part of the request was unknown.
    InDoubt {
        /// "NAMESPACE/NAME".
        policy: String,
        limit: String,
        /// The unknown part.
        cause: DoubtCause,
    },
    /// The identity header or metadata is present but invalid.
    Unidentified(IdentityError),
    /// A call to the adapter failed.
    Call { method: &'static str, failure: CallFailure },
    /// Part of a request's body could not be read. The request is judged by the rest.
    UnreadRequest(&'static str),
    /// A request was refused with 400, for this reason: its body is ambiguous, or needs an edit that cannot
    /// be made.
    InvalidRequest(&'static str),
    /// A request was edited so that its provider reports the stream's usage.
    UsageAsked,
    /// A maximum output was added to a request that had none.
    OutputCapped,
    /// The usage chunk reached a client that had not asked for it, because the stream was compressed.
    UsageChunkKept,
    /// A raise was refused, because a stream with `overrun: Cut` has used more than its limit has room for.
    RaiseRefused,
    /// A stream was ended because its limit had no room left (`overrun: Cut`).
    StreamCut,
    /// A stream was reset because its limit had no room left and Weir cannot end it properly.
    StreamReset,
    /// Part of a response's body could not be read. The rest is charged.
    Unreadable(Cause),
    /// One exchange was charged this many tokens.
    TokensCharged(u64),
    /// An exchange ended, and its usage came from this source.
    Usage(UsageSource),
    /// The memory budget had no room for this use.
    MemoryRefused(MemoryUse),
}

/// The purpose of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryUse {
    /// The facts that are kept until the body arrives, or for a `cost` or the body of a refusal.
    Facts,
    /// Reading the request's body.
    RequestBody,
    /// The holds. The request was refused.
    Holds,
    /// Reading the response's body.
    ResponseBody,
    /// Removing the usage chunk from the response.
    UsageChunk,
}

impl MemoryUse {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::RequestBody => "request_body",
            Self::Holds => "holds",
            Self::ResponseBody => "response_body",
            Self::UsageChunk => "usage_chunk",
        }
    }
}

/// The source of a charge, from the most certain to the least certain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageSource {
    /// There was nothing to charge.
    None,
    /// The provider reported it.
    Reported,
    /// It is charged when a client reads the background result.
    Deferred,
    /// It was estimated from the request and the delivered output.
    Estimated,
}

impl UsageSource {
    /// The name in the access log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::Deferred => "deferred",
            Self::None => "none",
        }
    }
}

impl Metric {
    pub(crate) fn refused(hold: &Hold) -> Self {
        Self::Refused { policy: hold.rate.policy.to_string(), limit: hold.rate.limit.clone() }
    }

    pub(crate) fn soft_exceeded(hold: &Hold) -> Self {
        Self::SoftExceeded { policy: hold.rate.policy.to_string(), limit: hold.rate.limit.clone() }
    }

    pub(crate) fn in_doubt(doubt: &Doubt) -> Self {
        Self::InDoubt { policy: doubt.policy.to_string(), limit: doubt.limit.clone(), cause: doubt.cause }
    }

    pub(crate) fn evaluation(failure: &Failure) -> Self {
        Self::Evaluation { policy: failure.policy.to_string(), part: failure.part.name() }
    }

    /// Returns the counter's name, followed by its labels and their values, each after a dot.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Admitted => table::ADMITTED.name.into(),
            Self::Refused { policy, limit } => table::REFUSED.of(&[policy, limit]).into(),
            Self::OverShare { policy, limit } => table::OVER_SHARE.of(&[policy, limit]).into(),
            Self::SoftExceeded { policy, limit } => table::SOFT_EXCEEDED.of(&[policy, limit]).into(),
            Self::FailedOpen(cause) => table::FAILED_OPEN.of(&[cause]).into(),
            Self::FailedClosed(cause) => table::FAILED_CLOSED.of(&[cause]).into(),
            Self::Evaluation { policy, part } => table::EVALUATION_ERRORS.of(&[policy, part]).into(),
            Self::InDoubt { policy, limit, cause } => {
                table::IN_DOUBT.of(&[policy, limit, cause.name()]).into()
            }
            Self::Unidentified(error) => table::UNIDENTIFIED.of(&[error.name()]).into(),
            Self::Call { method, failure } => table::CALL_ERRORS.of(&[method, failure.name()]).into(),
            Self::UnreadRequest(cause) => table::REQUEST_ERRORS.of(&[cause]).into(),
            Self::InvalidRequest(cause) => table::INVALID_REQUESTS.of(&[cause]).into(),
            Self::UsageAsked => table::USAGE_ASKED.name.into(),
            Self::OutputCapped => table::OUTPUTS_CAPPED.name.into(),
            Self::UsageChunkKept => table::USAGE_CHUNKS_KEPT.name.into(),
            Self::RaiseRefused => table::RAISES_REFUSED.name.into(),
            Self::StreamCut => table::STREAMS_CUT.name.into(),
            Self::StreamReset => table::STREAMS_RESET.name.into(),
            Self::Unreadable(cause) => table::RESPONSE_ERRORS.of(&[cause.name()]).into(),
            Self::TokensCharged(_) => table::TOKENS_CHARGED.name.into(),
            // Every exchange counts one of these, so they are literals that need no allocation.
            Self::Usage(UsageSource::Reported) => "weir_usage.source.reported".into(),
            Self::Usage(UsageSource::Estimated) => "weir_usage.source.estimated".into(),
            Self::Usage(UsageSource::Deferred) => "weir_usage.source.deferred".into(),
            Self::Usage(UsageSource::None) => "weir_usage.source.none".into(),
            Self::MemoryRefused(what) => table::MEMORY_REFUSED.of(&[what.name()]).into(),
        }
    }

    /// Returns how much to add to the counter.
    pub fn amount(&self) -> u64 {
        match self {
            Self::TokensCharged(tokens) => *tokens,
            _ => 1,
        }
    }
}
