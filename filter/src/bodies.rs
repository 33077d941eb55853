//! Detects whether Envoy passes request bodies to the filter while the headers are held back. Envoy does so
//! only with `allow_on_headers_stop_iteration` next to the filter's `root_id`. A filter cannot set this flag.
//! Without it, a request that waits for its body hangs. So each worker watches its first such requests: if
//! Envoy has received some of a body and the filter has not, the flag is missing.

use crate::caller::Caller;
use crate::host;
use std::cell::{Cell, RefCell};

/// How often the waiting requests are checked, in milliseconds.
pub const INTERVAL: u64 = 20;
/// While the answer is unknown, a request waits at most this long for its body to begin, in milliseconds.
pub const TIMEOUT: u64 = 5000;
/// The timeout for a GET without a content-length that has not ended. Such a GET hardly ever has a body.
pub const GET_TIMEOUT: u64 = 1000;
/// How many requests are watched at once.
const MAX_WATCHED: usize = 1000;

/// Watches requests that wait for their bodies.
#[derive(Default)]
pub struct Bodies {
    access: Cell<Access>,
    watched: RefCell<Vec<Watched>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Access {
    /// No body has been awaited yet, or none has arrived.
    #[default]
    Untried,
    /// Bodies arrive.
    Given,
    /// Bodies do not arrive.
    Missing,
}

/// How much of a request Envoy has received. `None` if it is not waiting for its body.
pub fn size(caller: &Caller, root: u32) -> Option<u64> {
    let request = caller.upgrade()?;
    let request = request.borrow();
    if !request.awaits_body() {
        return None;
    }
    host::as_context(request.context(), root, host::request_size)
}

/// Reports to a request that its body will not arrive.
pub fn missing(caller: &Caller, root: u32) {
    if let Some(request) = caller.upgrade() {
        let mut request = request.borrow_mut();
        host::as_context(request.context(), root, || request.body_missing());
    }
}

/// A request that waits for its body to begin.
pub struct Watched {
    /// The exchange.
    pub caller: Caller,
    /// How much of the request Envoy had received when the wait began.
    pub size: u64,
    /// When the wait ends.
    pub until: u64,
}

impl Bodies {
    /// Whether requests should not wait for their bodies.
    pub fn are_missing(&self) -> bool {
        self.access.get() == Access::Missing
    }

    /// Whether the answer is still unknown.
    pub fn are_untried(&self) -> bool {
        self.access.get() == Access::Untried
    }

    /// Records that bodies do not arrive.
    pub fn are_found_missing(&self) {
        self.access.set(Access::Missing);
    }

    /// Records that an awaited body has arrived.
    pub fn came(&self) {
        self.access.set(Access::Given);
    }

    /// Watches a request, unless there are too many.
    pub fn watch(&self, request: Watched) {
        let mut watched = self.watched.borrow_mut();
        if watched.len() < MAX_WATCHED {
            watched.push(request);
        }
    }

    /// Takes the watched requests out; the caller puts them back.
    pub fn take(&self) -> Vec<Watched> {
        self.watched.take()
    }

    /// Whether there is anything to check.
    pub fn are_watched(&self) -> bool {
        !self.watched.borrow().is_empty()
    }
}
