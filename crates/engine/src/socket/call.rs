//! One call inside a socket, and how messages are assigned to calls.

use super::session_model::SessionModel;
use super::{CallTimes, Next, Socket, SocketEffect, State};
use crate::exchange::{ActivePlan, Effect, Event, Exchange};
use crate::refusal::Denial;
use expression::facts::Facts;
use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::response::{CHARACTERS_PER_TOKEN, ResponseHead};
use llm::websocket::{ClientEvent, Opcode, ServerEvent, SocketApi, frame};
use protocol::call::CallFailure;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use serde_json::Value;

/// One call: a message from the client, or a response that the server has begun unasked.
#[derive(Debug)]
pub(super) struct Call {
    pub number: u64,
    exchange: Exchange,
    kind: Kind,
    phase: Phase,
    times: CallTimes,
    /// The id of its response, once the server has named it.
    id: Option<String>,
    /// Whether the last part of its turn has arrived. Its usage may follow.
    turn_is_complete: bool,
    has_usage: bool,
    /// The messages that the server sent before the adapter replied.
    backlog: Vec<Said>,
    backlog_lease: Lease,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Admitted,
    Responding,
}

#[derive(Debug)]
struct Said {
    text: Vec<u8>,
    end: bool,
}

/// How a call begins.
#[derive(Debug)]
pub(super) enum Start {
    /// The call waits for the adapter.
    Waits,
    /// The call is admitted.
    Admitted,
    Refused(Denial),
}

/// How a call differs from an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Asked,
    WarmUp,
    Unasked,
    /// Unasked, and without the conversation: a transcription.
    Aside,
}

impl Kind {
    fn of(event: &ClientEvent) -> Self {
        if *event == ClientEvent::WarmUp { Self::WarmUp } else { Self::Asked }
    }
}

/// The outcome of a message that begins a call.
#[derive(Debug)]
pub(super) struct Asked {
    pub number: u64,
    pub start: Start,
    /// The frame to forward instead.
    pub edited: Option<Vec<u8>>,
}

impl Call {
    fn new(number: u64, exchange: Exchange, kind: Kind, now: u64, memory: &MemoryBudget) -> Self {
        Self {
            number,
            exchange,
            kind,
            phase: Phase::Waiting,
            times: CallTimes { begun: now, answered: None },
            id: None,
            turn_is_complete: false,
            has_usage: false,
            backlog: Vec::new(),
            backlog_lease: memory.empty(Purpose::Keep),
        }
    }

    pub fn is_over(&self) -> bool {
        self.exchange.is_over()
    }

    /// Starts a call that is judged by this body.
    fn begin(
        &mut self,
        facts: Facts,
        body: &[u8],
        whole: bool,
        effects: &mut Vec<SocketEffect>,
    ) -> (Start, Option<Vec<u8>>) {
        let mut done = self.exchange.handle(Event::Request { facts, bodiless: false });
        if done.iter().any(|effect| matches!(effect, Effect::AwaitBody(_))) {
            let event = match self.exchange.room_for_body(body.len()) {
                None => Event::UnreadBody { size: body.len() },
                Some(_room) => Event::RequestBody { body, end: whole },
            };
            done.extend(self.exchange.handle(event));
        }
        self.perform(done, effects)
    }

    pub fn replied(
        &mut self,
        reply: Result<ReserveResponse, CallFailure>,
        now: u64,
        effects: &mut Vec<SocketEffect>,
    ) -> Start {
        if self.phase != Phase::Waiting {
            return Start::Waits;
        }
        let done = self.exchange.handle(Event::Reply(reply));
        let (start, _) = self.perform(done, effects);
        for Said { text, end } in std::mem::take(&mut self.backlog) {
            self.hear(&text, end, now, effects);
        }
        self.backlog_lease.shrink(0);
        start
    }

    /// Reads a message from the server about the call. `end` is true for the last one.
    fn hear(&mut self, text: &[u8], end: bool, now: u64, effects: &mut Vec<SocketEffect>) {
        self.times.answered.get_or_insert(now);
        match self.phase {
            Phase::Waiting => {
                let size = self.backlog_lease.bytes().saturating_add(text.len()).saturating_add(64);
                if self.backlog_lease.resize(size) {
                    self.backlog.push(Said { text: text.to_vec(), end });
                } else if end {
                    self.backlog.push(Said { text: Vec::new(), end });
                }
                return;
            }
            Phase::Admitted => {
                self.phase = Phase::Responding;
                let content_type = "text/event-stream".to_owned();
                let head = ResponseHead { status: 200, content_type, ..ResponseHead::default() };
                let done = self.exchange.handle(Event::Response(head));
                self.perform(done, effects);
            }
            Phase::Responding => {}
        }
        // The messages have the form of the API's stream events. A line break would end an event. In JSON it
        // is only white space, so it is replaced with a space.
        let mut event = Vec::with_capacity(text.len().saturating_add(8));
        event.extend_from_slice(b"data: ");
        event.extend(text.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        event.extend_from_slice(b"\n\n");
        let done = self.exchange.handle(Event::Body { chunk: &event, end: false });
        self.perform(done, effects);
        if end {
            let done = self.exchange.handle(Event::Body { chunk: &[], end: true });
            self.perform(done, effects);
        }
    }

    pub fn closed(&mut self, now: u64, effects: &mut Vec<SocketEffect>) {
        if !self.backlog.is_empty() {
            // The server started it before the adapter replied. The adapter still receives its usage.
            self.replied(Err(CallFailure::Timeout), now, effects);
        }
        let done = self.exchange.handle(Event::Closed);
        self.perform(done, effects);
    }

    fn perform(&mut self, done: Vec<Effect>, effects: &mut Vec<SocketEffect>) -> (Start, Option<Vec<u8>>) {
        let (mut start, mut edited, mut waits) = (Start::Admitted, None, false);
        for effect in done {
            match effect {
                Effect::Reserve(message) => {
                    waits = true;
                    effects.push(SocketEffect::Reserve { call: self.number, message });
                }
                Effect::Deny(denial) => start = Start::Refused(denial),
                Effect::Edit(edit) => edited = Some(edit.body),
                Effect::Commit(settlement) => effects.push(SocketEffect::Commit(settlement)),
                Effect::Raise(raise) => effects.push(SocketEffect::Raise(raise)),
                Effect::UpstreamFailed(model) => effects.push(SocketEffect::UpstreamFailed(model)),
                Effect::Count(count) => effects.push(SocketEffect::Count(count)),
                Effect::RecordUsage(record) => effects.push(SocketEffect::RecordUsage(record, self.times)),
                Effect::Record(record) => effects.push(SocketEffect::Record(record)),
                // A message arrives as a whole, has no headers, and is not cut.
                Effect::AwaitBody(_)
                | Effect::Resume
                | Effect::SetRequestHeader(..)
                | Effect::Signal(_)
                | Effect::Reset
                | Effect::SetHeaders(_)
                | Effect::RemoveHeader(_)
                | Effect::ReplaceChunk(_)
                | Effect::KeepChunk(_) => {}
            }
        }
        if waits {
            return (Start::Waits, edited);
        }
        if self.phase == Phase::Waiting && !self.exchange.is_over() {
            self.phase = Phase::Admitted;
        }
        (start, edited)
    }
}

impl Socket {
    /// Handles a message from the client. `None` if it does not begin a call.
    pub(super) fn asked(
        &mut self,
        whole: bool,
        effects: &mut Vec<SocketEffect>,
        next: Next<'_>,
    ) -> Option<Asked> {
        let (event, model) = self.api.client(self.client.message(), whole);
        if let Some(model) = model {
            self.model.add(model);
        }
        match event {
            ClientEvent::Other => {
                if self.api.keeps_conversation() {
                    let input = self.message_input();
                    self.conversation.add_message(self.client.message(), input);
                }
                return None;
            }
            ClientEvent::Input => {
                self.end_turns(effects);
                if !self.calls.is_empty() {
                    self.add_input();
                    return None;
                }
            }
            ClientEvent::Call | ClientEvent::WarmUp => {}
        }
        let text = self.client.message().to_vec();
        let body = self.with_model(text);
        let earlier = self.conversation.input_of(&body);
        let (number, start, edited) = self.begin(&body, whole, Kind::of(&event), earlier, effects, next);
        let input = self.message_input();
        self.conversation.begin_call(earlier, input);
        // Only requests of this API are edited.
        let edited = edited.filter(|_| self.api == SocketApi::Responses && self.client.is_replaceable());
        let edited = edited.map(|body| frame(Opcode::Text, &body, Some(self.mask)));
        Some(Asked { number, start, edited })
    }

    /// Handles a message from the server.
    pub(super) fn said(&mut self, effects: &mut Vec<SocketEffect>, next: Next<'_>) {
        let event = self.api.server(self.server.message());
        let (place, end) = match &event {
            ServerEvent::Other => {
                self.conversation.hear(self.server.message());
                return;
            }
            ServerEvent::Begins { id } => {
                let place = self.find(id.as_deref()).or_else(|| self.unnamed());
                (place, false)
            }
            ServerEvent::Part { id } => (self.find(id.as_deref()).or_else(|| self.first()), false),
            ServerEvent::Ends { id } => (self.find(id.as_deref()).or_else(|| self.first()), true),
            ServerEvent::Failed => match self.unnamed() {
                Some(place) => (Some(place), true),
                // A running response continues, except in the API that allows only one at a time.
                None if self.api == SocketApi::Responses && self.first().is_some() => (self.first(), true),
                None => return,
            },
            ServerEvent::Aside => (None, true),
            ServerEvent::Turn { complete, usage } => {
                let place = self.first();
                let call = place.and_then(|place| self.calls.get_mut(place));
                let end = match call {
                    Some(call) => {
                        call.turn_is_complete |= complete;
                        call.has_usage |= usage;
                        call.turn_is_complete && call.has_usage
                    }
                    None => *usage,
                };
                (place, end)
            }
        };
        let kind = if event == ServerEvent::Aside { Kind::Aside } else { Kind::Unasked };
        let place = match place {
            Some(place) => place,
            None => match self.begin_unasked(kind, effects, next) {
                Some(place) => place,
                None => return,
            },
        };
        let id = match event {
            ServerEvent::Begins { id } | ServerEvent::Part { id } => id,
            _ => None,
        };
        if let Some(call) = self.calls.get_mut(place) {
            call.id = call.id.take().or(id);
            call.hear(self.server.message(), end, self.now, effects);
        }
        self.remove_ended();
    }

    /// The server has begun a response that no message asked for. It cannot be held back, but it is judged.
    fn begin_unasked(
        &mut self,
        kind: Kind,
        effects: &mut Vec<SocketEffect>,
        next: Next<'_>,
    ) -> Option<usize> {
        let body = self.with_model(b"{}".to_vec());
        let earlier = if kind == Kind::Aside { 0 } else { self.conversation.input_of(&body) };
        let (number, start, _) = self.begin(&body, true, kind, earlier, effects, next);
        if let Start::Refused(denial) = start {
            self.refuse(&denial);
        }
        self.calls.iter().position(|call| call.number == number)
    }

    /// Begins a call that is judged by this body. `earlier` is the input that the conversation adds.
    fn begin(
        &mut self,
        body: &[u8],
        whole: bool,
        kind: Kind,
        earlier: u64,
        effects: &mut Vec<SocketEffect>,
        next: Next<'_>,
    ) -> (u64, Start, Option<Vec<u8>>) {
        let (in_force, id) = next();
        let exchange = Exchange::new(self.in_force_for(in_force), id).within(&self.memory);
        let mut exchange = exchange.reported(self.reporting).traced(self.trace.clone());
        exchange = match kind {
            Kind::Asked => exchange,
            Kind::WarmUp => exchange.warming_up(),
            Kind::Unasked | Kind::Aside => exchange.unasked(),
        };
        let number = self.numbers;
        self.numbers = number.wrapping_add(1);
        let mut facts = self.facts.of_message();
        facts.header("content-length", body.len().to_string().as_bytes());
        facts.set_earlier_input(earlier);
        let mut call = Call::new(number, exchange, kind, self.now, &self.memory);
        let (start, edited) = call.begin(facts, body, whole, effects);
        if !call.is_over() {
            self.calls.push(call);
        }
        (number, start, edited)
    }

    /// Estimates the input of the client's message, in tokens.
    fn message_input(&self) -> u64 {
        let text = self.client.message();
        // A body that is read is copied, and may be converted to strict JSON in UTF-8.
        match self.memory.lease(Purpose::Work, text.len().saturating_mul(3)) {
            Some(_lease) => self.api.input(self.facts.path().unwrap_or_default(), text),
            None => u64::try_from(text.len()).unwrap_or(u64::MAX).div_ceil(CHARACTERS_PER_TOKEN),
        }
    }

    /// The client's message belongs to the running call, and the server may keep it for later ones.
    fn add_input(&mut self) {
        let input = self.message_input();
        if let Some(call) = self.first().and_then(|place| self.calls.get_mut(place)) {
            call.exchange.add_input(input);
        }
        if self.api.keeps_conversation() {
            self.conversation.add(input);
        }
    }

    /// Removes the calls that are over. What they have used is part of the conversation.
    pub(super) fn remove_ended(&mut self) {
        for call in self.calls.extract_if(.., |call| call.is_over()) {
            if call.kind != Kind::Aside {
                self.conversation.used(call.exchange.used());
            }
        }
    }

    /// The current plan, unless it needs facts that were not fetched when the socket was opened.
    fn in_force_for(&mut self, now: ActivePlan) -> ActivePlan {
        if let (ActivePlan::Plan(then), ActivePlan::Plan(plan)) = (&self.in_force, &now)
            && plan.needs().iter().all(|need| then.needs().contains(need))
        {
            self.in_force = now;
        }
        self.in_force.clone()
    }

    /// Adds the session's model to a message. A message of the Responses API names its own.
    fn with_model(&self, text: Vec<u8>) -> Vec<u8> {
        let model = match &self.model {
            _ if self.api == SocketApi::Responses => return text,
            SessionModel::Unnamed => return text,
            SessionModel::Named(model) => Value::from(model.as_str()),
            // A number is no model's name, so the model is unknown.
            SessionModel::Several => Value::from(0),
        };
        match serde_json::from_slice(&text) {
            Ok(Value::Object(mut message)) => {
                message.insert("model".to_owned(), model);
                Value::Object(message).to_string().into_bytes()
            }
            _ => text,
        }
    }

    /// Ends the turns that are complete, even if they reported no usage.
    fn end_turns(&mut self, effects: &mut Vec<SocketEffect>) {
        for call in &mut self.calls {
            if call.turn_is_complete {
                call.hear(b"{}", true, self.now, effects);
            }
        }
        self.remove_ended();
    }

    fn find(&self, id: Option<&str>) -> Option<usize> {
        let id = id?;
        self.calls.iter().position(|call| call.id.as_deref() == Some(id))
    }

    /// The oldest call with a response that the server has not named. A call that waits for the adapter has
    /// not gone upstream.
    fn unnamed(&self) -> Option<usize> {
        let held = match self.state {
            State::Holding { call, .. } => Some(call),
            _ => None,
        };
        self.calls.iter().position(|call| call.id.is_none() && Some(call.number) != held)
    }

    /// The oldest call that has gone upstream.
    fn first(&self) -> Option<usize> {
        let held = match self.state {
            State::Holding { call, .. } => Some(call),
            _ => None,
        };
        self.calls.iter().position(|call| Some(call.number) != held)
    }
}
