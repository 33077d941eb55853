//! The events of an exchange, and its effects.

use super::RequestEdit;
use super::record::UsageRecord;
use super::settled::SettledRecord;
use crate::metric::Metric;
use crate::outbox::{Raise, Settlement};
use crate::refusal::{Denial, HeaderList};
use expression::facts::Facts;
use llm::response::ResponseHead;
use protocol::call::CallFailure;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;

/// Everything that can happen to one exchange. The shell turns each host callback into one of these.
#[derive(Debug)]
pub enum Event<'a> {
    /// The request's headers have arrived.
    Request {
        /// The facts that the plan needs.
        facts: Facts,
        /// The request has no body.
        bodiless: bool,
    },
    /// As much of the request's body has arrived as [`Effect::AwaitBody`] asked for.
    RequestBody {
        /// The body from its first byte.
        body: &'a [u8],
        /// Whether the body is complete.
        end: bool,
    },
    /// The awaited body will not arrive: the proxy does not pass it on while the request is paused.
    NoRequestBody,
    /// This many bytes of the request's body have arrived so far, awaited or not. Needed only if
    /// [`super::Exchange::counts_request_body`].
    RequestPassed(u64),
    /// As much of the request's body has arrived as [`Effect::AwaitBody`] asked for, but there is no memory
    /// to read it: see [`super::Exchange::room_for_body`].
    UnreadBody {
        /// The number of bytes that have arrived.
        size: usize,
    },
    /// The adapter's reply to the Reserve.
    Reply(Result<ReserveResponse, CallFailure>),
    /// The response's headers have arrived.
    Response(ResponseHead),
    /// The proxy has stopped waiting for the response, and these are the headers of its own answer. The upstream may
    /// go on: clients in a mesh can choose the timeout.
    TimedOut(ResponseHead),
    /// A chunk of the response's body is passing. Needed only if [`super::Exchange::edits_body`].
    Passing {
        /// The bytes, unchanged.
        chunk: &'a [u8],
        /// Whether this is the last chunk.
        end: bool,
    },
    /// A chunk of the response's body is passing, and there is no memory to read it, so nothing is removed
    /// from it.
    PassingUnread,
    /// A chunk of the response's body has passed, or only its end. Handling it can wait.
    Body {
        /// The bytes, unchanged.
        chunk: &'a [u8],
        /// Whether this is the last chunk.
        end: bool,
    },
    /// A limit had no room for an [`Effect::Raise`].
    OutOfRoom,
    /// The exchange has ended, for any reason.
    Closed,
}

impl Event<'_> {
    /// Whether the request may be judged now.
    pub fn may_judge(&self) -> bool {
        matches!(
            self,
            Self::Request { .. } | Self::RequestBody { .. } | Self::NoRequestBody | Self::UnreadBody { .. }
        )
    }
}

/// What the shell must do, in order. An exchange has no other effects.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Pause the request until this many bytes of its body, or all of it, have arrived. Then pass them to the
    /// exchange.
    AwaitBody(usize),
    /// Replace the request's body.
    Edit(RequestEdit),
    /// Set a request header.
    SetRequestHeader(&'static str, &'static str),
    /// Set the headers of soft limits that are exceeded, before the request is resumed: Envoy then chooses
    /// its route again.
    Signal(HeaderList),
    /// Send this message to the adapter's `Reserve` and pause the request until [`Effect::Resume`].
    Reserve(Vec<u8>),
    /// Resume the request.
    Resume,
    /// Answer the request locally instead of forwarding it.
    Deny(Denial),
    /// Set response headers.
    SetHeaders(HeaderList),
    /// Remove a response header.
    RemoveHeader(&'static str),
    /// Replace the current chunk of the response.
    ReplaceChunk(Vec<u8>),
    /// Replace the current chunk of the response and hold it back: some of it may have to be removed. The
    /// proxy buffers it, so it can still be sent after the body's last chunk, and the next chunk replaces it.
    KeepChunk(Vec<u8>),
    /// Reset the response: nothing more of it may reach the client, and it cannot be ended properly.
    Reset,
    /// Send this settlement to the adapter. Nothing waits for it.
    Commit(Settlement),
    /// Ask the adapter to raise holds. Nothing waits for it, and losing it changes no charge.
    Raise(Raise),
    /// An upstream of this model failed; record it in [`crate::health::Health`].
    UpstreamFailed(String),
    /// Write this to Envoy's filter state when the exchange is logged.
    Record(Box<UsageRecord>),
    /// Complete this record and send it to the adapter. Nothing waits for it.
    RecordUsage(Box<SettledRecord>),
    /// Count this metric.
    Count(Metric),
}
