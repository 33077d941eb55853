//! One request and its response: each callback is an event of its exchange, and what follows is performed.

mod body;

pub use body::{body_missing, size};

use crate::host;
use crate::late;
use crate::metrics;
use crate::request;
use crate::shared::{RESERVE, Shared};
use crate::stream::Caller;
use engine::attempts::Attempts;
use engine::exchange::{Effect, Event, Exchange, InForce};
use engine::outbox::Route;
use expression::facts::Facts;
use llm::memory::{Lease, Purpose};
use protocol::call::{self, CallFailure};
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// How much of a response is read at once where there is no memory for all that has come, in bytes.
const PIECE: usize = 16 << 10;

/// The context of a request while the plugin is configured.
pub struct Http {
    id: u32,
    shared: Rc<Shared>,
    /// `None` until it has come, and for good if no limit is for it: most requests of a gateway may be such.
    request: Option<Rc<RefCell<Request>>>,
}

/// A request that a limit may be for. The root context brings it the answers of the stream.
pub struct Request {
    id: u32,
    /// Itself.
    caller: Caller,
    shared: Rc<Shared>,
    exchange: Exchange,
    /// The request is kept back.
    kept: bool,
    /// How much of its body is awaited.
    awaited: Option<usize>,
    /// It may go on until it is answered: a GET that has not ended and announces no body.
    may_be_endless: bool,
    /// How much of it is there.
    gathered: usize,
    /// How much of it has gone on.
    sent: u64,
    /// A Reserve under way by a call of its own.
    attempts: Option<Attempts>,
    /// What of the response has passed and is not read yet.
    passed: Option<Passed>,
    /// How much of the response's body Envoy keeps.
    kept_back: usize,
    /// The response's trailers are here: no piece of its body is passing.
    trailers: bool,
}

/// A part of a response.
#[derive(Default)]
struct Passed {
    pieces: Vec<(Vec<u8>, Lease)>,
    /// Of them together.
    size: usize,
    /// It is about to be read.
    soon: bool,
    /// Nothing of the response follows.
    end: bool,
    /// Nothing of the exchange does.
    closed: bool,
}

/// The context of a request while it is not: Envoy then lets everything pass, or nothing.
pub struct Unconfigured;

impl Context for Unconfigured {}
impl HttpContext for Unconfigured {}

impl Http {
    /// For a request that is about to come.
    pub fn new(id: u32, shared: &Rc<Shared>) -> Self {
        Self { id, shared: shared.clone(), request: None }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Request) -> T) -> Option<T> {
        self.request.as_ref().map(|request| act(&mut request.borrow_mut()))
    }
}

/// Brings an answer of the stream to a request, from the root context.
pub fn reply(caller: &Caller, root: u32, reply: Result<ReserveResponse, CallFailure>) {
    if let Some(request) = caller.upgrade() {
        let mut request = request.borrow_mut();
        host::as_context(request.id, root, || request.replied(reply));
    }
}

/// Makes the call that the stream has left to the request; gives its token. Called by the root context.
pub fn call(caller: &Caller, root: u32, message: Vec<u8>, patience: u64) -> Option<u32> {
    let request = caller.upgrade()?;
    let mut request = request.borrow_mut();
    let attempts = Attempts::new(message, request.shared.now(), patience);
    host::as_context(request.id, root, || request.call(attempts))
}

/// Brings such a call's answer; gives the token of the next if it is made again.
pub fn answered(caller: &Caller, root: u32, reply: Result<&[u8], CallFailure>) -> Option<u32> {
    let request = caller.upgrade()?;
    let mut request = request.borrow_mut();
    host::as_context(request.id, root, || request.answered(reply))
}

impl Request {
    fn new(id: u32, shared: &Rc<Shared>, in_force: InForce) -> Rc<RefCell<Self>> {
        let exchange = Exchange::new(in_force, shared.next_reservation()).within(&shared.memory);
        Rc::new_cyclic(|caller| {
            let (caller, shared) = (Weak::clone(caller), shared.clone());
            RefCell::new(Self {
                id,
                caller,
                shared,
                exchange,
                kept: false,
                awaited: None,
                may_be_endless: false,
                gathered: 0,
                sent: 0,
                attempts: None,
                passed: None,
                kept_back: 0,
                trailers: false,
            })
        })
    }

    fn handle(&mut self, event: Event<'_>) {
        for effect in self.exchange.handle(event) {
            match effect {
                Effect::AwaitBody(most) => self.await_body(most),
                Effect::Edit(edit) => host::edit_request(&edit),
                Effect::Reserve(call) => self.reserve(call),
                Effect::Resume => self.resume(),
                Effect::Deny(denial) => {
                    self.kept = true;
                    host::respond(&denial);
                }
                Effect::SetHeaders(headers) => {
                    headers.iter().for_each(|(name, value)| host::set_response_header(name, value));
                }
                Effect::RemoveHeader(name) => host::remove_response_header(name),
                Effect::ReplaceChunk(bytes) => self.replace(&bytes, 0),
                Effect::KeepChunk(bytes) => self.replace(&bytes, bytes.len()),
                Effect::Commit(settlement) => self.shared.commit(settlement),
                Effect::UpstreamFailed(model) => {
                    self.shared.health.borrow_mut().failed(&model, self.shared.now());
                }
                Effect::Count(count) => self.shared.metrics.count(&count),
            }
        }
    }

    fn reserve(&mut self, message: Vec<u8>) {
        let Shared { root, config, stream, late, .. } = &*self.shared;
        late.read_ended();
        if stream.is_open() {
            self.kept = true;
            let caller = Weak::clone(&self.caller);
            return host::as_context(*root, self.id, || stream.reserve(&self.shared, message, caller));
        }
        let patience = u64::try_from(config.timeout.as_millis()).unwrap_or(u64::MAX);
        self.call(Attempts::new(message, self.shared.now(), patience));
    }

    /// The token of the call, if it could be made.
    fn call(&mut self, attempts: Attempts) -> Option<u32> {
        let now = self.shared.now();
        let (service, patience) = (&self.shared.config.grpc_service, attempts.patience(now));
        // Nothing keeps calls of their own in order, so the reserve carries what is to be settled before it.
        let message =
            call::with_commits(attempts.message(), &self.shared.outbox.borrow().copies(Route::Unary, now));
        let call = || host::call(service, RESERVE, &message, patience);
        match host::as_context(self.shared.root, self.id, call) {
            Ok(token) => {
                self.kept = true;
                self.attempts = Some(attempts);
                Some(token)
            }
            Err(failure) => {
                self.replied(Err(failure));
                None
            }
        }
    }

    fn answered(&mut self, reply: Result<&[u8], CallFailure>) -> Option<u32> {
        let failed = |failure| match self.attempts.take() {
            Some(attempts) => attempts.failed(failure, self.shared.now()),
            None => Err(failure),
        };
        match reply.map_err(failed) {
            Err(Ok(attempts)) => return self.call(attempts),
            Err(Err(failure)) => self.replied(Err(failure)),
            Ok(message) => self.replied(call::reply(Ok(message))),
        }
        None
    }

    fn replied(&mut self, reply: Result<ReserveResponse, CallFailure>) {
        if let Err(failure) = reply {
            self.shared.call_failed(RESERVE, failure);
        }
        self.handle(Event::Reply(reply));
    }

    fn requested(&mut self, facts: Facts, end: bool) -> Action {
        self.may_be_endless = !end && facts.is_get() && facts.content_length().is_none();
        self.handle(Event::Request { facts, bodiless: end });
        self.action()
    }

    fn responded(&mut self, end: bool) {
        if !self.exchange.is_over() {
            let head = host::response_head(self.exchange.answer_headers());
            self.handle(Event::Response(head));
            self.body(0, end);
        }
    }

    fn resume(&mut self) {
        if std::mem::take(&mut self.kept) {
            self.sent = self.sent.saturating_add(self.gathered as u64);
            self.gathered = 0;
            host::resume();
        }
    }

    /// Puts this in the place of what is passing and of what Envoy keeps; of that, Envoy keeps so much.
    fn replace(&mut self, bytes: &[u8], kept_back: usize) {
        if self.trailers && self.kept_back == 0 {
            // The beginning of an event that came together with the end of another one: there is no way back for it.
            return self.shared.metrics.add(metrics::BYTES_LOST, bytes.len() as u64);
        }
        host::replace_response_body(bytes);
        self.kept_back = kept_back;
    }

    /// The bytes are copied only if they are read, and read when they have passed.
    fn body(&mut self, size: usize, end: bool) {
        let size = size.saturating_sub(self.kept_back);
        let read = size > 0 && self.exchange.reads_body();
        if self.exchange.is_over() || !(read || end) {
            return;
        }
        let size = if read { size } else { 0 };
        let Some(lease) = self.shared.memory.lease(Purpose::Keep, size) else {
            return self.read_now(size, end);
        };
        let chunk = if read { host::response_body(self.kept_back, size) } else { Vec::new() };
        if self.exchange.edits_body() {
            self.handle(Event::Passing { chunk: &chunk, end });
        }
        self.read_later(chunk, lease, end);
    }

    /// Reads what there is no memory for at once, a little at a time.
    fn read_now(&mut self, size: usize, end: bool) {
        self.read_passed();
        self.handle(Event::PassingUnread);
        let mut at = std::mem::take(&mut self.kept_back);
        let all = at.saturating_add(size);
        while at < all {
            let piece = host::response_body(at, PIECE.min(all.saturating_sub(at)));
            self.handle(Event::Body { chunk: &piece, end: false });
            at = at.saturating_add(PIECE);
        }
        if end {
            self.handle(Event::Body { chunk: &[], end });
        }
    }

    fn read_later(&mut self, chunk: Vec<u8>, lease: Lease, end: bool) {
        let passed = self.passed.get_or_insert_default();
        passed.size = passed.size.saturating_add(chunk.len());
        passed.pieces.push((chunk, lease));
        passed.end = end;
        if end || passed.size > late::SMALL {
            self.read_soon();
        }
    }

    fn read_soon(&mut self) {
        if let Some(passed) = self.passed.as_mut().filter(|passed| !passed.soon) {
            passed.soon = true;
            self.shared.late.push(&self.caller);
            self.shared.wake_soon();
        }
    }

    /// Whether nothing of the response follows what has passed.
    pub fn has_ended(&self) -> bool {
        self.passed.as_ref().is_none_or(|passed| passed.end || passed.closed)
    }

    /// Reads what has passed.
    pub fn read_passed(&mut self) {
        let Some(Passed { pieces, end, closed, .. }) = self.passed.take() else { return };
        for (piece, _lease) in pieces {
            self.handle(Event::Body { chunk: &piece, end: false });
        }
        if end {
            self.handle(Event::Body { chunk: &[], end });
        }
        if closed {
            self.handle(Event::Closed);
        }
    }

    fn closed(&mut self) {
        match &mut self.passed {
            Some(passed) => passed.closed = true,
            None => {
                self.handle(Event::Closed);
                return self.shared.show_memory_soon();
            }
        }
        self.read_soon();
    }

    fn action(&self) -> Action {
        if self.kept { Action::Pause } else { Action::Continue }
    }
}

impl Context for Http {
    fn on_grpc_call_response(&mut self, _token: u32, status: u32, size: usize) {
        self.with(|request| {
            let body = host::reply(size);
            request.answered(if status == 0 { Ok(&*body) } else { Err(status.into()) });
        });
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, end: bool) -> Action {
        let in_force = self.shared.in_force();
        let Some(mut facts) = request::facts(&self.shared, &in_force) else { return Action::Continue };
        if !end && facts.is_get() {
            // Hardly any GET has a body, and a WebSocket is none of those.
            host::request_header("upgrade").iter().for_each(|value| facts.header("upgrade", value));
        }
        self.request = Some(Request::new(self.id, &self.shared, in_force));
        self.with(|request| request.requested(facts, end)).unwrap_or(Action::Continue)
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.with(|request| request.gathered(size, end)).unwrap_or(Action::Continue)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.with(Request::all_gathered).unwrap_or(Action::Continue)
    }

    fn on_http_response_headers(&mut self, _count: usize, end: bool) -> Action {
        self.with(|request| request.responded(end));
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        let keeps_back = self.with(|request| {
            request.body(size, end);
            request.kept_back > 0
        });
        if keeps_back == Some(true) { Action::Pause } else { Action::Continue }
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.with(|request| {
            request.trailers = true;
            request.body(0, true);
        });
        Action::Continue
    }

    fn on_log(&mut self) {
        self.with(Request::closed);
    }
}
