//! The interface through which the root context reaches an exchange.

use protocol::call::CallFailure;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use std::cell::RefCell;
use std::rc::Weak;

/// The reply to a Reserve.
pub type ReserveReply = Result<ReserveResponse, CallFailure>;

/// An exchange as the root context sees it. Calls are made in the exchange's own context.
pub trait Waiting {
    /// The context for its host calls.
    fn context(&self) -> u32;
    /// The adapter's reply to its Reserve.
    fn reserved(&mut self, reply: ReserveReply);
    /// The adapter has no room for what it has used.
    fn out_of_room(&mut self);
    /// Whether it waits for its body to begin.
    fn awaits_body(&self) -> bool;
    /// The awaited body will not arrive.
    fn body_missing(&mut self);
    /// Whether nothing of its response follows what is still to be read.
    fn has_ended(&self) -> bool;
    /// Reads the part of its response that has passed.
    fn read_deferred(&mut self);
}

/// An exchange, unless Envoy has ended it.
pub type Caller = Weak<RefCell<dyn Waiting>>;
