//! One request and its response: each callback is an event of its exchange, and what follows is performed.

use crate::host;
use crate::request;
use crate::shared::{RESERVE, Shared};
use policy::call::CallFailure;
use policy::exchange::{Effect, Event, Exchange};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::rc::Rc;

/// The context of a request while the plugin is configured.
pub struct Http {
    id: u32,
    shared: Rc<Shared>,
    exchange: Exchange,
    /// The request is kept back.
    kept: bool,
    /// When the adapter was asked.
    asked_at: u64,
}

/// The context of a request while it is not: Envoy then lets everything pass, or nothing.
pub struct Unconfigured;

impl Context for Unconfigured {}
impl HttpContext for Unconfigured {}

impl Http {
    /// For a request that is about to come.
    pub fn new(id: u32, shared: &Rc<Shared>) -> Self {
        let exchange = Exchange::new(shared.in_force(), shared.next_reservation());
        Self { id, shared: shared.clone(), exchange, kept: false, asked_at: 0 }
    }

    fn handle(&mut self, event: Event<'_>) {
        for effect in self.exchange.handle(event) {
            match effect {
                Effect::Reserve(call) => self.reserve(&call),
                Effect::Resume => self.resume(),
                Effect::Deny(denial) => {
                    self.kept = true;
                    host::respond(&denial);
                }
                Effect::SetHeaders(headers) => {
                    headers.iter().for_each(|(name, value)| host::set_response_header(name, value));
                }
                Effect::Commit(settlement) => self.shared.commit(settlement),
                Effect::Count(count) => self.shared.metrics.count(&count),
            }
        }
    }

    fn reserve(&mut self, message: &[u8]) {
        let Shared { root, config, .. } = &*self.shared;
        let call = || host::call(&config.grpc_service, RESERVE, message, config.timeout);
        match host::as_context(*root, self.id, call) {
            Ok(_) => {
                self.kept = true;
                self.asked_at = self.shared.now();
            }
            Err(failure) => self.replied(Err(failure)),
        }
    }

    fn replied(&mut self, reply: Result<&[u8], CallFailure>) {
        if let Err(failure) = reply {
            self.shared.call_failed(RESERVE, failure);
        }
        self.handle(Event::Reply(reply));
    }

    fn resume(&mut self) {
        if std::mem::take(&mut self.kept) {
            host::resume();
        }
    }

    /// Of a call that took too long, Envoy says that the adapter is unavailable.
    fn failure(&self, status: u32) -> CallFailure {
        let took = self.shared.now().saturating_sub(self.asked_at);
        match CallFailure::from(status) {
            CallFailure::Unavailable if u128::from(took) >= self.shared.config.timeout.as_millis() => {
                CallFailure::Timeout
            }
            failure => failure,
        }
    }

    /// The bytes are copied only if they are read.
    fn body(&mut self, size: usize, end: bool) {
        let read = size > 0 && self.exchange.reads_body();
        if read || end {
            let chunk = if read { host::response_body(size) } else { Vec::new() };
            self.handle(Event::Body { chunk: &chunk, end });
        }
    }

    fn action(&self) -> Action {
        if self.kept { Action::Pause } else { Action::Continue }
    }
}

impl Context for Http {
    fn on_grpc_call_response(&mut self, _token: u32, status: u32, size: usize) {
        let body = host::reply(size);
        self.replied(if status == 0 { Ok(&body) } else { Err(self.failure(status)) });
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, end: bool) -> Action {
        let facts = request::facts(&self.shared, self.exchange.needs());
        self.handle(Event::Request { facts, bodiless: end });
        self.action()
    }

    fn on_http_request_body(&mut self, _size: usize, _end: bool) -> Action {
        self.action()
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.action()
    }

    fn on_http_response_headers(&mut self, _count: usize, end: bool) -> Action {
        if !self.exchange.is_over() {
            self.handle(Event::Response(&host::response_head()));
            self.body(0, end);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.body(size, end);
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.body(0, true);
        Action::Continue
    }

    fn on_log(&mut self) {
        self.handle(Event::Closed);
    }
}
