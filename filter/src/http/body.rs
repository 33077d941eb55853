//! The body of a request, as it comes: awaited, if the exchange wants it, and counted.

use super::Request;
use crate::bodies::{self, Watched};
use crate::host;
use crate::stream::Caller;
use engine::exchange::Event;
use proxy_wasm::types::Action;
use std::rc::Weak;

/// How much of this request has come so far, by Envoy's count; `None`: it waits for no body, or not any more.
pub fn size(caller: &Caller, root: u32) -> Option<u64> {
    let request = caller.upgrade()?;
    let request = request.borrow();
    if !request.awaits_body() {
        return None;
    }
    host::as_context(request.id, root, host::request_size)
}

/// Tells a request that its body will not come.
pub fn body_missing(caller: &Caller, root: u32) {
    if let Some(request) = caller.upgrade() {
        let mut request = request.borrow_mut();
        host::as_context(request.id, root, || request.body_missing());
    }
}

impl Request {
    pub(super) fn await_body(&mut self, most: usize) {
        if self.shared.bodies.are_missing() {
            return self.handle(Event::NoRequestBody);
        }
        self.kept = true;
        self.awaited = Some(most);
        let timeout = match self.may_be_endless {
            true => bodies::GET_TIMEOUT,
            false if self.shared.bodies.are_untried() => bodies::TIMEOUT,
            false => return,
        };
        if let Some(size) = host::request_size() {
            let (caller, now) = (Weak::clone(&self.caller), self.shared.now());
            let until = now.saturating_add(timeout);
            self.shared.bodies.watch(Watched { caller, size, until });
            self.shared.wake_by(now.saturating_add(bodies::INTERVAL));
        }
    }

    /// Whether nothing of the body that is awaited is here.
    fn awaits_body(&self) -> bool {
        self.awaited.is_some() && self.gathered == 0
    }

    /// The body that is awaited will not come.
    fn body_missing(&mut self) {
        if self.awaits_body() {
            self.awaited = None;
            self.handle(Event::NoRequestBody);
        }
    }

    /// So much of the request's body is gathered by now.
    pub(super) fn gathered(&mut self, size: usize, end: bool) -> Action {
        if self.awaited.is_some() {
            self.shared.bodies.came();
        }
        // While Envoy keeps the body, this is all that it keeps; otherwise it is what is just passing.
        self.gathered = size;
        if self.awaited.is_some_and(|most| end || size >= most) {
            self.awaited = None;
            self.kept = false;
            match self.exchange.room_for_body(size) {
                None => self.handle(Event::UnreadBody { size }),
                Some(_room) => {
                    let body = if size > 0 { host::request_body(size) } else { Vec::new() };
                    self.handle(Event::RequestBody { body: &body, end });
                }
            }
        }
        if self.exchange.counts_request_body() {
            let so_far = self.sent.saturating_add(self.gathered as u64);
            self.handle(Event::RequestPassed(so_far));
        }
        let action = self.action();
        if action == Action::Continue {
            self.sent = self.sent.saturating_add(std::mem::take(&mut self.gathered) as u64);
        }
        action
    }

    /// What is gathered is all of it.
    pub(super) fn all_gathered(&mut self) -> Action {
        self.gathered(self.gathered, true)
    }
}
