//! Whether Envoy hands over request bodies while their headers are kept. It does so only with
//! `allow_on_headers_stop_iteration` beside the filter's `root_id`, which no filter can ask for. Without it a request that
//! waits for its body waits for ever, so the first ones of each worker are watched: a body of which something has come, and
//! none of it to the filter, tells.

use crate::stream::Caller;
use std::cell::{Cell, RefCell};

/// How often the requests that wait are looked at, in milliseconds.
pub const INTERVAL: u64 = 20;
/// As long as nothing is known, a request waits no longer than this for the beginning of its body, in milliseconds.
const TIMEOUT: u64 = 5000;
/// So many are watched at once; one is enough.
const MAX_WATCHED: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Bodies {
    access: Cell<Access>,
    watched: RefCell<Vec<Watched>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Access {
    /// No body has been awaited yet, or none has come.
    #[default]
    Untried,
    /// Bodies come.
    Given,
    /// They do not come.
    Missing,
}

/// A request that waits for its body.
#[derive(Clone)]
pub struct Watched {
    /// Whose it is.
    pub caller: Caller,
    /// How much of the request had come when it began to wait, by Envoy's count.
    pub size: u64,
    /// When it began.
    pub since: u64,
}

impl Watched {
    /// Whether it has waited long enough.
    pub fn is_late(&self, now: u64) -> bool {
        now.saturating_sub(self.since) >= TIMEOUT
    }
}

impl Bodies {
    /// Whether requests had better not wait for their bodies.
    pub fn are_missing(&self) -> bool {
        self.access.get() == Access::Missing
    }

    /// Whether the next one that waits should be watched.
    pub fn are_untried(&self) -> bool {
        self.access.get() == Access::Untried && self.watched.borrow().len() < MAX_WATCHED
    }

    /// Watches a request.
    pub fn watch(&self, request: Watched) {
        self.watched.borrow_mut().push(request);
    }

    /// A body has come to a request that waits for it.
    pub fn came(&self) {
        if self.access.replace(Access::Given) == Access::Untried {
            self.watched.take();
        }
    }

    /// Bodies do not come.
    pub fn are_found_missing(&self) {
        self.access.set(Access::Missing);
    }

    /// Takes out those that are watched, to be put back.
    pub fn take(&self) -> Vec<Watched> {
        self.watched.take()
    }

    /// Whether there is something to look at.
    pub fn are_watched(&self) -> bool {
        !self.watched.borrow().is_empty()
    }
}
