//! The interface through which the root context reaches an exchange.

use protocol::call::CallFailure;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use std::cell::RefCell;
use std::rc::Weak;

/// The reply to a Reserve.
pub type ReserveReply = Result<ReserveResponse, CallFailure>;

/// An exchange as the root context sees it. Its methods are called in the exchange's own context.
pub trait Waiting {
    /// The id of the context for host calls.
    fn context(&self) -> u32;
    /// Passes on the adapter's reply to the Reserve.
    fn reserved(&mut self, reply: ReserveReply);
    /// Handles a stream that has used more than the adapter has room for.
    fn out_of_room(&mut self);
    /// Returns whether the exchange waits for its body to begin.
    fn awaits_body(&self) -> bool;
    /// Handles a body that will not arrive.
    fn body_missing(&mut self);
    /// Returns whether the response has ended and its last part is unread.
    fn has_ended(&self) -> bool;
    /// Reads the part of the response that has passed.
    fn read_deferred(&mut self);
}

/// An exchange, unless Envoy has ended it.
pub type Caller = Weak<RefCell<dyn Waiting>>;

/// Who waits for the reply to a Reserve in the stream.
#[derive(Clone)]
pub enum Asker {
    Exchange(Caller),
    /// The request for the lease with this number.
    Lease(u64),
}
