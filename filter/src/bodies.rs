//! Whether Envoy hands over request bodies while their headers are kept. It does so only with
//! `allow_on_headers_stop_iteration` beside the filter's `root_id`, which no filter can ask for. Without it a request that
//! waits for its body waits for ever, so the first ones of each worker are watched: a body of which something has come, and
//! none of it to the filter, tells.

use crate::caller::Caller;
use crate::host;
use std::cell::{Cell, RefCell};

/// How often the requests that wait are looked at, in milliseconds.
pub const INTERVAL: u64 = 20;
/// As long as nothing is known, a request waits no longer than this for the beginning of its body, in milliseconds.
pub const TIMEOUT: u64 = 5000;
/// Nor does one that hardly has a body: a GET that has not ended, and announces none.
pub const GET_TIMEOUT: u64 = 1000;
/// So many are watched at once.
const MAX_WATCHED: usize = 1000;

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

/// How much of a request has come so far, by Envoy's count; `None`: it waits for no body, or not any more.
pub fn size(caller: &Caller, root: u32) -> Option<u64> {
    let request = caller.upgrade()?;
    let request = request.borrow();
    if !request.awaits_body() {
        return None;
    }
    host::as_context(request.context(), root, host::request_size)
}

/// Tells a request that its body will not come.
pub fn missing(caller: &Caller, root: u32) {
    if let Some(request) = caller.upgrade() {
        let mut request = request.borrow_mut();
        host::as_context(request.context(), root, || request.body_missing());
    }
}

/// A request that waits for the beginning of its body.
pub struct Watched {
    /// Whose it is.
    pub caller: Caller,
    /// How much of the request had come when it began to wait, by Envoy's count.
    pub size: u64,
    /// Until when it waits.
    pub until: u64,
}

impl Bodies {
    /// Whether requests had better not wait for their bodies.
    pub fn are_missing(&self) -> bool {
        self.access.get() == Access::Missing
    }

    /// Whether nobody knows yet if they come.
    pub fn are_untried(&self) -> bool {
        self.access.get() == Access::Untried
    }

    /// Bodies do not come.
    pub fn are_found_missing(&self) {
        self.access.set(Access::Missing);
    }

    /// A body has come to a request that waits for it.
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

    /// Takes out those that are watched, to be put back.
    pub fn take(&self) -> Vec<Watched> {
        self.watched.take()
    }

    /// Whether there is something to look at.
    pub fn are_watched(&self) -> bool {
        !self.watched.borrow().is_empty()
    }
}
