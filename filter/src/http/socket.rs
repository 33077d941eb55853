//! A WebSocket. Its bytes arrive as the bodies of a request and its response, until one side ends them.

use crate::caller::{Caller, ReserveReply, Waiting};
use crate::host;
use crate::record;
use crate::reserve;
use crate::shared::{RESERVE, Shared};
use engine::exchange::{ActivePlan, ReservationId};
use engine::socket::{Passage, Socket, SocketEffect, SocketRecord};
use protocol::call::CallFailure;
use proxy_wasm::types::Action;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// The context of a metered WebSocket.
pub struct SocketContext {
    id: u32,
    /// A reference to itself.
    context: Weak<RefCell<Self>>,
    shared: Rc<Shared>,
    socket: Socket,
    /// While paused, Envoy buffers a placeholder of one byte, and the socket keeps the held-back bytes. So
    /// the memory budget limits them, and not Envoy's buffer limit.
    is_paused: bool,
    /// For usage records. Empty if the adapter keeps none.
    request_id: String,
    /// For Envoy's access log.
    record: SocketRecord,
    /// The calls that wait for the adapter.
    calls: Vec<Rc<RefCell<SocketCall>>>,
}

/// One call inside a socket, as the root context sees it.
struct SocketCall {
    context: u32,
    number: u64,
    socket: Weak<RefCell<SocketContext>>,
}

/// The bytes that Envoy buffers while a socket is paused.
const PLACEHOLDER: &[u8] = &[0];

impl SocketContext {
    pub fn new(id: u32, shared: &Rc<Shared>, socket: Socket) -> Rc<RefCell<Self>> {
        let records = shared.in_force().records_usage() || socket.is_traced();
        let request_id = if records { record::request_id() } else { String::new() };
        Rc::new_cyclic(|context: &Weak<RefCell<Self>>| {
            RefCell::new(Self {
                id,
                context: context.clone(),
                shared: Rc::clone(shared),
                socket,
                is_paused: false,
                request_id,
                record: SocketRecord::new(&shared.memory),
                calls: Vec::new(),
            })
        })
    }

    /// Handles the upstream's response to the upgrade.
    pub fn opened(&mut self) {
        let status =
            host::response_header(":status").and_then(|status| status.parse().ok()).unwrap_or_default();
        let extensions = host::response_header("sec-websocket-extensions").unwrap_or_default();
        let shared = Rc::clone(&self.shared);
        self.socket.at(self.shared.now());
        let effects = self.socket.opened(status, &extensions, &mut || next(&shared));
        self.perform(effects);
        self.resume();
    }

    /// Handles bytes from the client. `size` is the number of bytes that Envoy has now.
    pub fn client(&mut self, size: usize) -> Action {
        let buffered = if self.is_paused { PLACEHOLDER.len() } else { 0 };
        let bytes = host::request_body_after(buffered, size.saturating_sub(buffered));
        let shared = Rc::clone(&self.shared);
        self.socket.at(self.shared.now());
        let (passage, effects) = self.socket.client(&bytes, &mut || next(&shared));
        self.perform(effects);
        let released = match passage {
            Passage::AsTheyAre if buffered == 0 => return Action::Continue,
            Passage::AsTheyAre => Some(bytes),
            Passage::Replaced(bytes) => Some(bytes),
            // If the adapter is unreachable, the calls may already be decided.
            Passage::Held => self.socket.release(),
        };
        match released {
            Some(bytes) => {
                self.is_paused = false;
                if size > 0 {
                    host::replace_request_body(&bytes);
                }
                Action::Continue
            }
            None => {
                self.is_paused = size > 0;
                if size > 0 {
                    host::replace_request_body(PLACEHOLDER);
                }
                Action::Pause
            }
        }
    }

    /// Handles bytes from the server.
    pub fn server(&mut self, size: usize) {
        let bytes = host::response_body(0, size);
        let shared = Rc::clone(&self.shared);
        self.socket.at(self.shared.now());
        let (passage, effects) = self.socket.server(&bytes, &mut || next(&shared));
        if let Passage::Replaced(bytes) = passage {
            host::replace_response_body(&bytes);
        }
        self.perform(effects);
    }

    /// Handles the end of the socket. Envoy writes its access log after this.
    pub fn logged(&mut self) {
        let end = record::end(!self.socket.is_busy());
        self.socket.at(self.shared.now());
        let effects = self.socket.closed();
        self.calls.clear();
        self.perform(effects);
        self.shared.show_memory_soon();
        record::write(self.record.fields(end));
    }

    fn replied(&mut self, number: u64, reply: ReserveReply) {
        let effects = self.answer(number, reply);
        self.perform(effects);
    }

    /// Performs the effects of the adapter's reply about a call.
    fn answer(&mut self, number: u64, reply: ReserveReply) -> Vec<SocketEffect> {
        self.calls.retain(|call| call.try_borrow().is_ok_and(|call| call.number != number));
        if let Err(failure) = reply {
            self.shared.call_failed(RESERVE, failure);
        }
        let shared = Rc::clone(&self.shared);
        self.socket.at(self.shared.now());
        self.socket.reply(number, reply, &mut || next(&shared))
    }

    /// Forwards bytes that are no longer held back.
    fn resume(&mut self) {
        if self.is_paused
            && let Some(bytes) = self.socket.release()
        {
            self.is_paused = false;
            host::replace_request_body(&bytes);
            host::resume();
        }
    }

    fn perform(&mut self, effects: Vec<SocketEffect>) {
        // A call with a Reserve that fails at once may start another call, and so on. A queue avoids recursion.
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                SocketEffect::Reserve { call, message } => {
                    if let Err(failure) = self.reserve(call, message) {
                        effects.extend(self.answer(call, Err(failure)));
                    }
                }
                SocketEffect::Commit(settlement) => self.shared.commit(settlement),
                SocketEffect::Raise(raise) => self.shared.raise(raise),
                SocketEffect::UpstreamFailed(model) => {
                    self.shared.health.borrow_mut().failed(&model, self.shared.now());
                }
                SocketEffect::RecordUsage(record, times) => {
                    record::send_call(&self.shared, &self.request_id, *record, times);
                }
                SocketEffect::Record(record) => self.record.add(*record),
                SocketEffect::Count(count) => self.shared.metrics.count(&count),
            }
        }
    }

    fn reserve(&mut self, number: u64, message: Vec<u8>) -> Result<(), CallFailure> {
        let call = SocketCall { context: self.id, number, socket: self.context.clone() };
        let call = Rc::new(RefCell::new(call));
        let caller: Weak<RefCell<SocketCall>> = Rc::downgrade(&call);
        let caller: Caller = caller;
        self.calls.push(call);
        reserve::send(&self.shared, self.id, &caller, message)
    }
}

fn next(shared: &Shared) -> (ActivePlan, ReservationId) {
    (shared.in_force(), shared.next_reservation())
}

impl Waiting for SocketCall {
    fn context(&self) -> u32 {
        self.context
    }

    fn reserved(&mut self, reply: ReserveReply) {
        if let Some(socket) = self.socket.upgrade() {
            let mut socket = socket.borrow_mut();
            socket.replied(self.number, reply);
            socket.resume();
        }
    }

    fn out_of_room(&mut self) {}

    fn awaits_body(&self) -> bool {
        false
    }

    fn body_missing(&mut self) {}

    fn has_ended(&self) -> bool {
        true
    }

    fn read_deferred(&mut self) {}
}
