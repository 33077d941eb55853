//! Responses that have passed and are still to be read. Envoy sends what a callback lets go only after it: reading
//! there, or settling at the end, would delay just those bytes. And several small pieces are read faster at once.

use crate::caller::{Caller, Waiting};
use std::cell::RefCell;
use std::rc::Rc;

/// As long as no more of a response has passed, it waits for what follows.
pub const SMALL: usize = 4 << 10;

/// See the module.
#[derive(Default)]
pub struct DeferredReads {
    /// They are kept from their end until then.
    exchanges: RefCell<Vec<Rc<RefCell<dyn Waiting>>>>,
}

impl DeferredReads {
    /// This exchange has something to read.
    pub fn push(&self, exchange: &Caller) {
        self.exchanges.borrow_mut().extend(exchange.upgrade());
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.exchanges.borrow().is_empty()
    }

    /// Reads all of it, in the root context.
    pub fn read(&self) {
        let exchanges = self.exchanges.take();
        exchanges.iter().for_each(|exchange| exchange.borrow_mut().read_deferred());
    }

    /// Reads what has come to its end, so that it is settled before the next reserve: a client that has its answer may
    /// ask again at once. What is still passing is left for later, since another client waits for this.
    pub fn read_ended(&self) {
        if self.is_empty() {
            return;
        }
        // The exchange that is about to reserve is borrowed: what it has to read is left for later, too.
        let has_ended =
            |exchange: &Rc<RefCell<dyn Waiting>>| exchange.try_borrow().is_ok_and(|it| it.has_ended());
        let (ended, passing): (Vec<_>, _) = self.exchanges.take().into_iter().partition(has_ended);
        self.exchanges.replace(passing);
        ended.iter().for_each(|exchange| exchange.borrow_mut().read_deferred());
    }
}
