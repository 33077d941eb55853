//! One request and its response. Each callback becomes an event of the exchange, whose effects are performed.

mod body;
mod socket;
mod usage;

use crate::caller::{Caller, ReserveReply, Waiting};
use crate::cuttable::CuttableStream;
use crate::deferred;
use crate::host;
use crate::metrics;
use crate::record::{self, Recording};
use crate::request::{self, AsksForUsage};
use crate::reserve;
use crate::shared::{RESERVE, Shared};
use crate::trace;
use engine::exchange::{ActivePlan, Effect, Event, Exchange, SettledRecord, UsageRecord};
use engine::flow::{BodyEnd, Closing, DeferredBody, RequestFlow, ResponseFlow};
use engine::refusal::Denial;
use engine::refusal::codex;
use engine::socket::{Upgrade, judge_upgrade};
use expression::facts::Facts;
use llm::memory::{Lease, Purpose};
use protocol::call::CallFailure;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use socket::SocketContext;
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use usage::UsageState;

/// How much of a response is read at once if there is no memory for all of it, in bytes.
const PIECE: usize = 16 << 10;

/// The context of a request while the plugin is configured.
pub struct Http {
    id: u32,
    shared: Rc<Shared>,
    /// `None` until the headers arrive, and if no limit applies, as for most requests of some gateways.
    request: Option<Rc<RefCell<Request>>>,
    /// Used instead for a WebSocket with metered messages.
    socket: Option<Rc<RefCell<SocketContext>>>,
    /// Used instead if the client asks for its usage.
    usage: Option<UsageState>,
}

/// A request to which a limit may apply.
pub struct Request {
    id: u32,
    /// A reference to itself.
    caller: Caller,
    shared: Rc<Shared>,
    exchange: Exchange,
    request: RequestFlow,
    response: ResponseFlow,
    /// Registered if its response may be cut.
    cuttable: Option<CuttableStream>,
    /// Whether the rest of its response must not reach the client.
    is_reset: bool,
    /// Whether the end of its response has passed.
    is_complete: bool,
    /// What to write for the access log, and its memory.
    record: Option<(Box<UsageRecord>, Lease)>,
    /// What the adapter's record of it needs, if the adapter keeps records.
    recording: Option<Recording>,
}

/// The context of a request while the plugin has no valid configuration: Envoy then lets all requests pass,
/// or none.
pub struct Unconfigured;

impl Context for Unconfigured {}
impl HttpContext for Unconfigured {}

impl Http {
    /// The context of a request that has not arrived yet.
    pub fn new(id: u32, shared: &Rc<Shared>) -> Self {
        Self { id, shared: shared.clone(), request: None, socket: None, usage: None }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Request) -> T) -> Option<T> {
        self.request.as_ref().map(|request| act(&mut request.borrow_mut()))
    }

    fn with_socket<T>(&self, act: impl FnOnce(&mut SocketContext) -> T) -> Option<T> {
        self.socket.as_ref().map(|socket| act(&mut socket.borrow_mut()))
    }

    /// Handles a request for another protocol. An error means that the request is already handled.
    fn upgrade(&mut self, in_force: &ActivePlan, mut facts: Facts) -> Result<Facts, Action> {
        if facts.fetched_header(codex::CLIENT_HEADER).is_empty() {
            host::request_header(codex::CLIENT_HEADER)
                .iter()
                .for_each(|value| facts.header(codex::CLIENT_HEADER, value));
        }
        let mask = (self.shared.random as u32 ^ self.id).to_ne_bytes();
        match judge_upgrade(in_force, facts, &self.shared.memory, mask) {
            Upgrade::Request(facts) => Ok(facts),
            Upgrade::Socket(socket) => {
                let socket = socket.reported(self.shared.reporting()).traced(trace::context(in_force));
                self.socket = Some(SocketContext::new(self.id, &self.shared, socket));
                Err(Action::Continue)
            }
            Upgrade::Refused(denial, count) => {
                self.shared.metrics.count(&count);
                host::respond(&denial);
                Err(Action::Pause)
            }
        }
    }
}

impl Request {
    fn new(id: u32, shared: &Rc<Shared>, in_force: ActivePlan, may_be_endless: bool) -> Rc<RefCell<Self>> {
        let reporting = shared.reporting();
        let trace = trace::context(&in_force);
        let exchange = Exchange::new(in_force, shared.next_reservation());
        let exchange =
            exchange.within(&shared.memory).leasing(&shared.leases).reported(reporting).traced(trace);
        let recording = exchange.is_recorded().then(|| Recording::start(shared));
        Rc::new_cyclic(|caller: &Weak<RefCell<Self>>| {
            RefCell::new(Self {
                id,
                caller: caller.clone(),
                shared: shared.clone(),
                exchange,
                request: RequestFlow::new(may_be_endless),
                response: ResponseFlow::default(),
                cuttable: None,
                is_reset: false,
                is_complete: false,
                record: None,
                recording,
            })
        })
    }

    fn handle(&mut self, event: Event<'_>) {
        if event.may_judge() {
            self.shared.leases.set_time(|| self.shared.now());
        }
        for effect in self.exchange.handle(event) {
            match effect {
                Effect::AwaitBody(most) => self.await_body(most),
                Effect::Edit(edit) => host::edit_request(&edit),
                Effect::SetRequestHeader(name, value) => host::set_request_header(name, value),
                Effect::Signal(headers) => {
                    headers.iter().for_each(|(name, value)| host::set_request_header(name, value));
                }
                Effect::Reserve(call) => self.reserve(call),
                Effect::Resume => self.resume(),
                Effect::Deny(denial) => {
                    self.request.hold();
                    host::respond(&for_client(denial));
                }
                Effect::SetHeaders(headers) => {
                    headers.iter().for_each(|(name, value)| host::set_response_header(name, value));
                }
                Effect::RemoveHeader(name) => host::remove_response_header(name),
                Effect::ReplaceChunk(bytes) => self.replace(&bytes, 0),
                Effect::KeepChunk(bytes) => self.replace(&bytes, bytes.len()),
                Effect::Reset => {
                    self.is_reset = true;
                    host::reset_response();
                }
                Effect::Commit(settlement) => self.shared.commit(settlement),
                Effect::Raise(raise) => {
                    if raise.may_cut && self.cuttable.is_none() {
                        self.cuttable = Some(self.shared.cuttable.watch(&raise.id, &self.caller));
                    }
                    self.shared.raise(raise);
                }
                Effect::UpstreamFailed(model) => {
                    self.shared.health.borrow_mut().failed(&model, self.shared.now());
                }
                // A client may keep its response open for long. If there is no memory left, nothing is written.
                Effect::Record(record) => {
                    let lease = self.shared.memory.lease(Purpose::Record, record.size());
                    self.record = lease.map(|lease| (record, lease));
                }
                Effect::RecordUsage(record) => self.record_usage(*record),
                Effect::Count(count) => self.shared.metrics.count(&count),
            }
        }
    }

    fn record_usage(&self, record: SettledRecord) {
        if let Some(recording) = &self.recording {
            recording.send(&self.shared, record, record::end(self.is_complete));
        }
    }

    fn reserve(&mut self, message: Vec<u8>) {
        match reserve::send(&self.shared, self.id, &self.caller, message) {
            Ok(()) => self.request.hold(),
            Err(failure) => self.reserved(Err(failure)),
        }
    }

    fn requested(&mut self, facts: Facts, end: bool) -> Action {
        self.handle(Event::Request { facts, bodiless: end });
        self.action()
    }

    fn responded(&mut self, end: bool) {
        if !self.exchange.is_over() {
            if let Some(recording) = &mut self.recording {
                recording.responded(&self.shared);
            }
            let head = host::response_head(self.exchange.answer_headers());
            let event = if host::has_timed_out(head.status) { Event::TimedOut } else { Event::Response };
            self.handle(event(head));
            self.body(0, end);
        }
    }

    fn tell_time(&mut self) {
        if self.exchange.tells_time() {
            self.exchange.answered_at(host::wall_clock());
        }
    }

    fn resume(&mut self) {
        self.tell_time();
        if self.request.resume() {
            host::resume();
        }
    }

    /// Replaces the bytes that are passing or that Envoy buffers. Envoy buffers `buffered` bytes of the
    /// replacement.
    fn replace(&mut self, bytes: &[u8], buffered: usize) {
        if self.response.replace(buffered) {
            host::replace_response_body(bytes);
        } else {
            // These bytes begin an event, and arrived together with the end of the previous event. It is too
            // late to send them.
            self.shared.metrics.add(metrics::BYTES_LOST, bytes.len() as u64);
        }
    }

    /// Handles bytes of the response. They are copied only if the exchange reads them, and read after they
    /// have passed.
    fn body(&mut self, size: usize, end: bool) {
        self.is_complete |= end;
        let size = self.response.new_bytes(size);
        let read = size > 0 && self.exchange.reads_body();
        if self.exchange.is_over() || !(read || end) {
            return;
        }
        let size = if read { size } else { 0 };
        let Some(lease) = self.shared.memory.lease(Purpose::Keep, size) else {
            return self.read_now(size, end);
        };
        let chunk = if read { host::response_body(self.response.buffered(), size) } else { Vec::new() };
        if self.exchange.edits_body() {
            self.handle(Event::Passing { chunk: &chunk, end });
        }
        self.read_later(chunk, lease, end);
    }

    /// Reads the bytes in small pieces, because there is no memory for all of them.
    fn read_now(&mut self, size: usize, end: bool) {
        self.read_deferred();
        let mut at = self.response.release();
        let all = at.saturating_add(size);
        while at < all {
            let piece = host::response_body(at, PIECE.min(all.saturating_sub(at)));
            self.handle(Event::Body { chunk: &piece, end: false });
            at = at.saturating_add(PIECE);
        }
        // This comes after reading, because bytes after a cut are dropped but still read.
        self.handle(Event::PassingUnread);
        if end {
            self.handle(Event::Body { chunk: &[], end });
        }
    }

    fn read_later(&mut self, chunk: Vec<u8>, lease: Lease, end: bool) {
        if self.response.defer(chunk, lease, end, deferred::SMALL) {
            self.queue();
        }
    }

    fn queue(&self) {
        self.shared.deferred.push(&self.caller);
        self.shared.wake_soon();
    }

    fn closed(&mut self) {
        match self.response.close() {
            Closing::Now => {
                self.handle(Event::Closed);
                self.shared.show_memory_soon();
            }
            Closing::Queue => self.queue(),
            Closing::Queued => {}
        }
    }

    /// Envoy writes its access log after this.
    fn logged(&mut self) {
        if self.exchange.is_reported() {
            self.recording.iter_mut().for_each(Recording::ended);
            self.read_deferred();
        }
        self.closed();
        let Some((record, _lease)) = self.record.take() else { return };
        record::write(record.fields(record::end(self.is_complete)));
    }

    fn action(&self) -> Action {
        if self.request.is_held() { Action::Pause } else { Action::Continue }
    }
}

/// Adapts a refusal with a long wait for Codex. Other refusals are the same for all clients, so the client's
/// header is not read.
fn for_client(denial: Denial) -> Denial {
    let originator = || host::request_header(codex::CLIENT_HEADER);
    let is_codex = denial.is_long()
        && originator().is_some_and(|value| codex::is_codex(&String::from_utf8_lossy(&value)));
    if is_codex { denial.for_codex() } else { denial }
}

impl Waiting for Request {
    fn context(&self) -> u32 {
        self.id
    }

    fn reserved(&mut self, reply: ReserveReply) {
        if let Err(failure) = reply {
            self.shared.call_failed(RESERVE, failure);
        }
        self.tell_time();
        self.handle(Event::Reply(reply));
    }

    fn out_of_room(&mut self) {
        self.handle(Event::OutOfRoom);
    }

    fn awaits_body(&self) -> bool {
        self.request.awaits_first_byte()
    }

    fn body_missing(&mut self) {
        if self.request.body_missing() {
            self.handle(Event::NoRequestBody);
        }
    }

    fn has_ended(&self) -> bool {
        self.response.has_ended()
    }

    fn read_deferred(&mut self) {
        let Some(DeferredBody { pieces, end, .. }) = self.response.take_deferred() else { return };
        let is_complete = end == BodyEnd::Complete;
        let last = pieces.len().saturating_sub(1);
        for (at, (piece, _lease)) in pieces.into_iter().enumerate() {
            self.handle(Event::Body { chunk: &piece, end: is_complete && at == last });
        }
        // If the last piece has ended the exchange, this has no effect.
        match end {
            BodyEnd::Open => {}
            BodyEnd::Complete => self.handle(Event::Body { chunk: &[], end: true }),
            BodyEnd::Cut => self.handle(Event::Closed),
        }
    }
}

impl Context for Http {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        let body = host::reply(size);
        let reply = if status == 0 { Ok(&*body) } else { Err(CallFailure::from(status)) };
        if !self.usage_read(token, reply) {
            reserve::answered(&self.shared, self.id, token, reply);
        }
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, end: bool) -> Action {
        let in_force = self.shared.in_force();
        let mut facts = match request::facts(&self.shared, &in_force) {
            Ok(Some(facts)) => facts,
            Ok(None) => return Action::Continue,
            Err(AsksForUsage) => {
                self.tell_usage(&in_force);
                return Action::Pause;
            }
        };
        if !end && facts.is_get() {
            // A WebSocket begins with a GET that does not end. Nearly all other GETs end with their headers,
            // so they do not need this look-up.
            host::request_header("upgrade").iter().for_each(|value| facts.header("upgrade", value));
            if facts.is_upgrade() {
                facts = match self.upgrade(&in_force, facts) {
                    Ok(facts) => facts,
                    Err(action) => return action,
                };
            }
        }
        let may_be_endless = !end && facts.is_get() && facts.content_length().is_none();
        self.request = Some(Request::new(self.id, &self.shared, in_force, may_be_endless));
        self.with(|request| request.requested(facts, end)).unwrap_or(Action::Continue)
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        if self.usage.is_some() {
            return Action::Pause;
        }
        let socket = || self.with_socket(|socket| socket.client(size));
        self.with(|request| request.gathered(size, end)).or_else(socket).unwrap_or(Action::Continue)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        let passes = if self.usage.is_some() { Action::Pause } else { Action::Continue };
        self.with(Request::all_gathered).unwrap_or(passes)
    }

    fn on_http_response_headers(&mut self, _count: usize, end: bool) -> Action {
        self.with(|request| request.responded(end));
        self.with_socket(SocketContext::opened);
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.with_socket(|socket| socket.server(size));
        let buffers = self.with(|request| {
            request.body(size, end);
            request.is_reset || request.response.buffered() > 0
        });
        if buffers == Some(true) { Action::Pause } else { Action::Continue }
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.with(|request| {
            request.response.trailers();
            request.body(0, true);
        });
        Action::Continue
    }

    fn on_log(&mut self) {
        self.with(Request::logged);
        self.with_socket(SocketContext::logged);
    }
}
