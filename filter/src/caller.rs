//! Who waits for something that only the root context can bring.

use protocol::call::CallFailure;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use std::cell::RefCell;
use std::rc::Weak;

/// The answer to a Reserve.
pub type ReserveReply = Result<ReserveResponse, CallFailure>;

/// An exchange, as far as the root context knows it. It is called in its own context's name.
pub trait Waiting {
    /// The context in whose name its host calls are made.
    fn context(&self) -> u32;
    /// The adapter's answer to its Reserve.
    fn reserved(&mut self, reply: ReserveReply);
    /// There is no room for what it has come to use.
    fn out_of_room(&mut self);
    /// Whether it waits for the beginning of its body.
    fn awaits_body(&self) -> bool;
    /// The body that it waits for will not come.
    fn body_missing(&mut self);
    /// Whether nothing of its response follows what is still to be read.
    fn has_ended(&self) -> bool;
    /// Reads what has passed of its response.
    fn read_deferred(&mut self);
}

/// An exchange that waits, unless Envoy has ended it.
pub type Caller = Weak<RefCell<dyn Waiting>>;
