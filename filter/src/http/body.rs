//! Handles a request's body as it arrives: waits for it if the exchange needs it, and counts its bytes.

use super::Request;
use crate::bodies::{self, Watched};
use crate::host;
use engine::exchange::Event;
use proxy_wasm::types::Action;
use std::rc::Weak;

impl Request {
    pub(super) fn await_body(&mut self, most: usize) {
        if self.shared.bodies.are_missing() {
            return self.handle(Event::NoRequestBody);
        }
        self.request.await_body(most);
        let timeout = match self.request.may_be_endless() {
            true => bodies::GET_TIMEOUT,
            false if self.shared.bodies.are_untried() => bodies::TIMEOUT,
            false => return,
        };
        if let Some(size) = host::request_size() {
            let (caller, now) = (Weak::clone(&self.caller), self.shared.now());
            let until = now.saturating_add(timeout);
            self.shared.bodies.watch(Watched { caller, size, until });
            self.shared.wake_by(now.saturating_add(bodies::INTERVAL), now);
        }
    }

    /// Handles more of the request's body. `size` bytes of it are available now.
    pub(super) fn gathered(&mut self, size: usize, end: bool) -> Action {
        if self.request.is_awaiting_body() {
            self.shared.bodies.came();
        }
        if self.request.gather(size, end) {
            match self.exchange.room_for_body(size) {
                None => self.handle(Event::UnreadBody { size }),
                Some(_room) => {
                    let body = if size > 0 { host::request_body(size) } else { Vec::new() };
                    self.handle(Event::RequestBody { body: &body, end });
                }
            }
        }
        if self.exchange.counts_request_body() {
            self.handle(Event::RequestPassed(self.request.come()));
        }
        if self.request.finish_callback() { Action::Pause } else { Action::Continue }
    }

    /// Handles the end of the request's body. All of it is available.
    pub(super) fn all_gathered(&mut self) -> Action {
        self.gathered(self.request.gathered(), true)
    }
}
