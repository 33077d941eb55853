//! Responses that have passed but have not been read yet. Envoy sends a callback's bytes only after the
//! callback returns, so reading or settling in the callback would delay them. Reading several small chunks at
//! once is also faster.

use crate::caller::{Caller, Waiting};
use std::cell::RefCell;
use std::rc::Rc;

/// Up to this many unread bytes, a response waits for more before it is read.
pub const SMALL: usize = 4 << 10;

/// The queue of responses to read.
#[derive(Default)]
pub struct DeferredReads {
    /// Exchanges that have ended are kept until they are read.
    exchanges: RefCell<Vec<Rc<RefCell<dyn Waiting>>>>,
}

impl DeferredReads {
    /// Adds an exchange with something to read.
    pub fn push(&self, exchange: &Caller) {
        self.exchanges.borrow_mut().extend(exchange.upgrade());
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.exchanges.borrow().is_empty()
    }

    /// Reads everything, in the root context.
    pub fn read(&self) {
        let exchanges = self.exchanges.take();
        exchanges.iter().for_each(|exchange| exchange.borrow_mut().read_deferred());
    }

    /// Reads the responses that have ended, so that they are settled before the next Reserve. A client that
    /// has received its response may send another request at once. Responses that are still passing are read
    /// later, so that they do not delay this Reserve.
    pub fn read_ended(&self) {
        if self.is_empty() {
            return;
        }
        // The exchange that is about to reserve is borrowed, so its own response is read later, too.
        let has_ended =
            |exchange: &Rc<RefCell<dyn Waiting>>| exchange.try_borrow().is_ok_and(|it| it.has_ended());
        let (ended, passing): (Vec<_>, _) = self.exchanges.take().into_iter().partition(has_ended);
        self.exchanges.replace(passing);
        ended.iter().for_each(|exchange| exchange.borrow_mut().read_deferred());
    }
}
