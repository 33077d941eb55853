//! Responses that have passed and are still to be read. Envoy sends what a callback lets go only after it: reading
//! there, or settling at the end, would delay just those bytes. And several small pieces are read faster at once.

use crate::http::Request;
use crate::stream::Caller;
use std::cell::RefCell;
use std::rc::Rc;

/// As long as no more of a response has passed, it waits for what follows.
pub const SMALL: usize = 4 << 10;
/// See the module.
#[derive(Default)]
pub struct Late {
    /// They are kept from their end until then.
    requests: RefCell<Vec<Rc<RefCell<Request>>>>,
}

impl Late {
    /// This request has something to read.
    pub fn push(&self, request: &Caller) {
        self.requests.borrow_mut().extend(request.upgrade());
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.requests.borrow().is_empty()
    }

    /// Reads all of it, in the root context.
    pub fn read(&self) {
        let requests = self.requests.take();
        requests.iter().for_each(|request| request.borrow_mut().read_passed());
    }

    /// Reads what has come to its end, so that it is settled before the next reserve: a client that has its answer may
    /// ask again at once. What is still passing is left for later, since another client waits for this.
    pub fn read_ended(&self) {
        if self.is_empty() {
            return;
        }
        // The request that is about to reserve has no response yet, so it is none of these, borrowed as it is.
        let has_ended = |request: &Rc<RefCell<Request>>| request.try_borrow().is_ok_and(|it| it.has_ended());
        let (ended, passing) = self.requests.take().into_iter().partition(has_ended);
        self.requests.replace(passing);
        let ended: Vec<_> = ended;
        ended.iter().for_each(|request| request.borrow_mut().read_passed());
    }
}
