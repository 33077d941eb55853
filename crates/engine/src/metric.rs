//! What is counted, and under which name.

pub mod table;

use expression::identity::IdentityError;
use llm::response::Cause;
pub use policy::plan::DoubtCause;
use policy::plan::{Doubt, Failure, Hold};
use protocol::call::CallFailure;
use std::borrow::Cow;

/// Something that happened and is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A request that a limit applies to went on, its tokens held.
    Admitted,
    /// A request was refused by this limit.
    Refused {
        /// "NAMESPACE/NAME".
        policy: String,
        /// The limit's name.
        limit: String,
    },
    /// A request was refused because it would have held more than the limit's `maxShare`.
    OverShare {
        /// "NAMESPACE/NAME".
        policy: String,
        /// The limit's name.
        limit: String,
    },
    /// A request went on unchecked, for this cause.
    FailedOpen(&'static str),
    /// A request was refused unchecked, for this cause.
    FailedClosed(&'static str),
    /// A part of a policy could not be evaluated.
    Evaluation {
        /// "NAMESPACE/NAME".
        policy: String,
        /// [`crate::plan::PolicyPart::name`].
        part: &'static str,
    },
    /// A limit applied to a request although something about the request could not be known.
    InDoubt {
        /// "NAMESPACE/NAME".
        policy: String,
        /// The limit's name.
        limit: String,
        /// What could not be known.
        cause: DoubtCause,
    },
    /// Something was given as the identity, and it is none.
    Unidentified(IdentityError),
    /// A call of the adapter's method failed.
    Call {
        /// The method's name.
        method: &'static str,
        /// Why.
        failure: CallFailure,
    },
    /// Something of a request's body could not be read; it is judged by what could be.
    UnreadRequest(&'static str),
    /// A request was refused with 400, for this cause: its body cannot be understood in one way only, or has to be
    /// changed and cannot be.
    InvalidRequest(&'static str),
    /// A request was changed, so that its provider tells the usage of its stream.
    UsageAsked,
    /// A request without a maximum of its output was given one.
    OutputCapped,
    /// The chunk that tells the usage went to a client that had not asked for it: the stream was compressed.
    UsageChunkKept,
    /// The adapter had no room for what a stream with `overrun: Cut` has come to use.
    RaiseRefused,
    /// A stream was ended because its limit had no room for more (`overrun: Cut`).
    StreamCut,
    /// A stream was reset for the same reason, because nobody knows how to end it properly.
    StreamReset,
    /// Something of a response's body could not be read; what could be is charged.
    Unreadable(Cause),
    /// Tokens were charged, in one exchange.
    TokensCharged(u64),
    /// An exchange has ended, its usage known from here.
    Usage(UsageSource),
    /// The memory budget had no room for this.
    MemoryRefused(MemoryUse),
}

/// What an exchange wanted memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryUse {
    /// The facts that are kept until the body is here, or for a `cost` or the body of a refusal.
    Facts,
    /// To read the request's body.
    RequestBody,
    /// The holds. The request was refused.
    Holds,
    /// To read the response's body.
    ResponseBody,
    /// To take the chunk about usage out of the response.
    UsageChunk,
}

impl MemoryUse {
    /// As metrics spell it.
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

/// Where a charge comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageSource {
    /// The provider reported it.
    Reported,
    /// From what was sent and delivered.
    Estimated,
    /// It is charged when somebody has seen the result that is made in the background.
    Deferred,
    /// There was nothing to charge.
    None,
}

impl Metric {
    pub(crate) fn refused(hold: &Hold) -> Self {
        Self::Refused { policy: hold.rate.policy.to_string(), limit: hold.rate.limit.clone() }
    }

    pub(crate) fn in_doubt(doubt: &Doubt) -> Self {
        Self::InDoubt { policy: doubt.policy.to_string(), limit: doubt.limit.clone(), cause: doubt.cause }
    }

    pub(crate) fn evaluation(failure: &Failure) -> Self {
        Self::Evaluation { policy: failure.policy.to_string(), part: failure.part.name() }
    }

    /// The counter's name: what is counted, then its labels and their values, each after a dot.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Admitted => table::ADMITTED.name.into(),
            Self::Refused { policy, limit } => table::REFUSED.of(&[policy, limit]).into(),
            Self::OverShare { policy, limit } => table::OVER_SHARE.of(&[policy, limit]).into(),
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
            // Every exchange counts one of these, so they are literals and allocate nothing.
            Self::Usage(UsageSource::Reported) => "weir_usage.source.reported".into(),
            Self::Usage(UsageSource::Estimated) => "weir_usage.source.estimated".into(),
            Self::Usage(UsageSource::Deferred) => "weir_usage.source.deferred".into(),
            Self::Usage(UsageSource::None) => "weir_usage.source.none".into(),
            Self::MemoryRefused(what) => table::MEMORY_REFUSED.of(&[what.name()]).into(),
        }
    }

    /// By how much it grows.
    pub fn amount(&self) -> u64 {
        match self {
            Self::TokensCharged(tokens) => *tokens,
            _ => 1,
        }
    }
}
