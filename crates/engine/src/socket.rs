//! A WebSocket that carries an LLM API. Each call inside is a separate [`Exchange`]: it is judged before its
//! message goes upstream, and charged at its end. It takes bytes and returns bytes and effects; the shell
//! performs the effects.
//!
//! Once the upgrade is answered, a filter can only change bytes that pass. So if a call is refused, a ping
//! and a close frame replace its message, and the API's error event and a close frame replace the next bytes
//! from the upstream.

mod call;
mod conversation;
mod farewell;
mod record;
mod session_model;
mod upgrade;

pub use record::SocketRecord;
pub use upgrade::{Upgrade, judge_upgrade};

use crate::exchange::{ActivePlan, ReservationId, SettledRecord, UsageRecord};
use crate::metric::{MemoryUse, Metric};
use crate::outbox::{Raise, Settlement};
use crate::refusal::codex;
use crate::refusal::{self, Denial};
use call::{Asked, Call, Start};
use conversation::Conversation;
use expression::facts::Facts;
use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::websocket::{Extensions, MessageReader, Peer, SocketApi, SocketEvent};
use policy::model::UsageReporting;
use protocol::call::CallFailure;
use protocol::trace::TraceContext;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use session_model::SessionModel;

/// An action for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum SocketEffect {
    /// Send this call's message to the adapter's `Reserve`, and pass the reply to [`Socket::reply`].
    Reserve { call: u64, message: Vec<u8> },
    /// Send this settlement to the adapter.
    Commit(Settlement),
    /// Ask the adapter to raise holds.
    Raise(Raise),
    /// An upstream of this model failed.
    UpstreamFailed(String),
    /// Complete this record and send it to the adapter.
    RecordUsage(Box<SettledRecord>, CallTimes),
    /// Add this call to the socket's [`SocketRecord`].
    Record(Box<UsageRecord>),
    /// Count this metric.
    Count(Metric),
}

/// When a call began and was answered, in milliseconds of the shell's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTimes {
    pub begun: u64,
    /// `None` if no message has answered it.
    pub answered: Option<u64>,
}

/// What to do with the current bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Forward them unchanged.
    AsTheyAre,
    /// Forward these instead.
    Replaced(Vec<u8>),
    /// Hold everything back until [`Socket::release`] returns something.
    Held,
}

/// The plan for the next call, and its reservation id.
pub type Next<'n> = &'n mut dyn FnMut() -> (ActivePlan, ReservationId);

/// The maximum number of bytes of a server's message that are kept for parsing.
const MAX_SERVER_MESSAGE: usize = 16 << 20;
/// The maximum number of bytes of a client's message that are kept if bodies are not read.
const MAX_CLIENT_MESSAGE: usize = 1 << 20;

/// Meters one WebSocket.
#[derive(Debug)]
pub struct Socket {
    api: SocketApi,
    in_force: ActivePlan,
    facts: Box<Facts>,
    memory: MemoryBudget,
    client: MessageReader,
    server: MessageReader,
    state: State,
    /// The bytes from the client, starting at the first frame that is neither forwarded nor refused yet.
    pending: Vec<u8>,
    /// The number of these bytes that are parsed.
    parsed: usize,
    /// The bytes to send upstream when the next bytes pass.
    upstream: Vec<u8>,
    /// The memory of both.
    bytes_lease: Lease,
    calls: Vec<Call>,
    conversation: Conversation,
    /// What to report to Envoy's access log for each call, regardless of the policies.
    reporting: Option<UsageReporting>,
    /// The time of the current event.
    now: u64,
    /// The model, as the upgrade and the messages name it.
    model: SessionModel,
    numbers: u64,
    /// Whether the client is Codex, which needs its own error type.
    is_codex: bool,
    /// The trace of the upgrade, which its calls belong to.
    trace: Option<Box<TraceContext>>,
    /// The mask of the frames that Weir sends upstream as the client.
    mask: [u8; 4],
    /// The memory of the facts and the trace.
    lease: Lease,
}

#[derive(Debug)]
enum State {
    /// The upstream has not answered the upgrade.
    Opening,
    /// Messages pass.
    Open,
    /// A call waits for the adapter. Its message is the first of the pending bytes and ends at `end`.
    Holding { call: u64, end: usize, edited: Option<Vec<u8>> },
    /// A call was refused. The message to the client is sent with the next bytes from the upstream.
    Refused { farewell: Vec<u8> },
    /// The message was sent.
    Closed,
    /// The connection is not a WebSocket, or is over. Nothing is read.
    Plain,
}

impl Socket {
    fn new(
        api: SocketApi,
        in_force: ActivePlan,
        facts: Facts,
        memory: &MemoryBudget,
        mask: [u8; 4],
    ) -> Option<Self> {
        let lease = memory.lease(Purpose::Keep, facts.size().saturating_add(size_of::<Self>()))?;
        let max = match &in_force {
            ActivePlan::Plan(plan) => plan.most_of_body().unwrap_or(MAX_CLIENT_MESSAGE),
            ActivePlan::Nothing(_) => MAX_CLIENT_MESSAGE,
        };
        let none = Extensions::default();
        let is_codex = codex::is_codex(facts.fetched_header(codex::CLIENT_HEADER));
        Some(Self {
            api,
            in_force,
            model: SessionModel::from(facts.path().and_then(SocketApi::model_of)),
            facts: Box::new(facts),
            client: MessageReader::new(Peer::Client, none, max, memory),
            server: MessageReader::new(Peer::Server, none, MAX_SERVER_MESSAGE, memory),
            memory: memory.clone(),
            state: State::Opening,
            pending: Vec::new(),
            parsed: 0,
            upstream: Vec::new(),
            bytes_lease: memory.empty(Purpose::Keep),
            calls: Vec::new(),
            conversation: Conversation::new(api),
            reporting: None,
            now: 0,
            numbers: 0,
            is_codex,
            trace: None,
            mask,
            lease,
        })
    }

    /// Reports all calls to Envoy's access log.
    pub fn reported(mut self, reporting: Option<UsageReporting>) -> Self {
        self.reporting = reporting;
        self
    }

    /// Sets the time of the next event, in milliseconds.
    pub fn at(&mut self, now: u64) {
        self.now = now;
    }

    /// Passes the trace of the upgrade on to the adapter with each call.
    pub fn traced(mut self, trace: Option<Box<TraceContext>>) -> Self {
        let before = self.lease.bytes();
        self.trace = trace.filter(|trace| self.lease.resize(before.saturating_add(trace.size())));
        self
    }

    /// Whether the trace of the upgrade is sampled.
    pub fn is_traced(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.is_sampled())
    }

    /// Handles the upstream's answer to the upgrade, with these extensions. [`Socket::release`] then returns
    /// the bytes to forward out of those that the client has already sent.
    pub fn opened(&mut self, status: u16, extensions: &str, next: Next<'_>) -> Vec<SocketEffect> {
        let mut effects = Vec::new();
        if status != 101 {
            self.state = State::Plain;
            self.upstream.append(&mut self.pending);
            return effects;
        }
        self.state = State::Open;
        match Extensions::read(extensions) {
            Some(agreed) => {
                self.client.agree(agreed);
                self.server.agree(agreed);
            }
            None => self.unreadable(&mut effects),
        }
        self.parse_pending(&mut effects, next);
        effects
    }

    /// Handles bytes from the client.
    pub fn client(&mut self, bytes: &[u8], next: Next<'_>) -> (Passage, Vec<SocketEffect>) {
        let mut effects = Vec::new();
        match &self.state {
            State::Plain => return (Passage::AsTheyAre, effects),
            State::Open if self.pending.is_empty() && self.upstream.is_empty() => {
                if self.parse(bytes, 0, &mut effects, next) && self.upstream.is_empty() {
                    return (Passage::AsTheyAre, effects);
                }
            }
            State::Open => {
                self.pending.extend_from_slice(bytes);
                self.parse_pending(&mut effects, next);
            }
            State::Opening | State::Holding { .. } => self.pending.extend_from_slice(bytes),
            State::Refused { .. } | State::Closed => {}
        }
        self.account(&mut effects);
        (self.release().map_or(Passage::Held, Passage::Replaced), effects)
    }

    /// Returns the bytes to forward out of those that were held back. `None` if they are still held.
    pub fn release(&mut self) -> Option<Vec<u8>> {
        if matches!(self.state, State::Opening | State::Holding { .. }) {
            return None;
        }
        let released = std::mem::take(&mut self.upstream);
        self.bytes_lease.shrink(self.pending.len());
        Some(released)
    }

    /// Handles the adapter's reply about a call. [`Socket::release`] then returns the bytes to forward.
    pub fn reply(
        &mut self,
        number: u64,
        reply: Result<ReserveResponse, CallFailure>,
        next: Next<'_>,
    ) -> Vec<SocketEffect> {
        let mut effects = Vec::new();
        let Some(call) = self.calls.iter_mut().find(|call| call.number == number) else { return effects };
        let start = call.replied(reply, self.now, &mut effects);
        self.remove_ended();
        let holds = matches!(self.state, State::Holding { call, .. } if call == number);
        match start {
            Start::Waits => {}
            Start::Admitted if holds => {
                let state = std::mem::replace(&mut self.state, State::Open);
                if let State::Holding { end, edited, .. } = state {
                    let rest = self.pending.split_off(end.min(self.pending.len()));
                    let message = std::mem::replace(&mut self.pending, rest);
                    self.upstream.extend(edited.unwrap_or(message));
                    self.parsed = 0;
                    self.parse_pending(&mut effects, next);
                }
            }
            Start::Admitted => {}
            Start::Refused(denial) => self.refuse(&denial),
        }
        self.account(&mut effects);
        effects
    }

    /// Handles bytes from the server.
    pub fn server(&mut self, bytes: &[u8], next: Next<'_>) -> (Passage, Vec<SocketEffect>) {
        let mut effects = Vec::new();
        match self.state {
            State::Plain => return (Passage::AsTheyAre, effects),
            // Nothing reaches the client any more, but the bytes may report usage.
            State::Closed => {
                self.read_server(bytes, &mut effects, next);
                return (Passage::Replaced(Vec::new()), effects);
            }
            _ => {}
        }
        let Some(at) = self.read_server(bytes, &mut effects, next) else {
            return (Passage::AsTheyAre, effects);
        };
        let mut said = bytes.get(..at).unwrap_or_default().to_vec();
        if let State::Refused { farewell } = std::mem::replace(&mut self.state, State::Closed) {
            said.extend(farewell);
        }
        (Passage::Replaced(said), effects)
    }

    /// Whether a call is running.
    pub fn is_busy(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Handles the end of the socket, for any reason. The delivered output is charged.
    pub fn closed(&mut self) -> Vec<SocketEffect> {
        let mut effects = Vec::new();
        for mut call in std::mem::take(&mut self.calls) {
            call.closed(self.now, &mut effects);
        }
        self.state = State::Plain;
        effects
    }

    /// Whether a refusal can be sent to the client before the server's next message.
    fn is_refused_between_messages(&self) -> bool {
        matches!(self.state, State::Refused { .. }) && self.server.is_between_messages()
    }

    /// Parses bytes from the server. Returns the number of bytes after which a refusal can be sent.
    fn read_server(
        &mut self,
        bytes: &[u8],
        effects: &mut Vec<SocketEffect>,
        next: Next<'_>,
    ) -> Option<usize> {
        let mut rest = bytes;
        let mut place = self.is_refused_between_messages().then_some(0);
        loop {
            match self.server.next(&mut rest) {
                Ok(Some(event)) => {
                    if matches!(event, SocketEvent::Message | SocketEvent::Truncated) {
                        self.said(effects, next);
                    }
                    if place.is_none() && self.is_refused_between_messages() {
                        place = Some(bytes.len().saturating_sub(rest.len()));
                    }
                }
                Ok(None) => return place,
                // The ends of its messages cannot be found.
                Err(_) => {
                    self.unreadable(effects);
                    return place.or(matches!(self.state, State::Refused { .. }).then_some(0));
                }
            }
        }
    }

    /// Parses the pending bytes as long as messages pass.
    fn parse_pending(&mut self, effects: &mut Vec<SocketEffect>, next: Next<'_>) {
        if matches!(self.state, State::Open) && !self.pending.is_empty() {
            let (all, parsed) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.parsed));
            if self.parse(&all, parsed, effects, next) {
                self.upstream.extend(all);
            }
        }
    }

    /// Parses bytes from the client. The first `parsed` bytes were parsed earlier. Returns true if all bytes
    /// are forwarded unchanged. Otherwise, `upstream` contains the bytes to forward, and the rest stays
    /// pending.
    fn parse(&mut self, all: &[u8], parsed: usize, effects: &mut Vec<SocketEffect>, next: Next<'_>) -> bool {
        let mut rest = all.get(parsed..).unwrap_or_default();
        // Bytes before `decided` are forwarded; those before `copied` are in `upstream` already.
        let (mut decided, mut copied) = (0, 0);
        let part = |from: usize, to: usize| all.get(from..to).unwrap_or_default();
        loop {
            let event = match self.client.next(&mut rest) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => {
                    self.upstream.extend_from_slice(part(copied, decided));
                    self.unreadable(effects);
                    return false;
                }
            };
            let at = all.len().saturating_sub(rest.len());
            if matches!(event, SocketEvent::Message | SocketEvent::Truncated)
                && let Some(Asked { number, start, edited }) =
                    self.asked(event == SocketEvent::Message, effects, next)
            {
                match start {
                    Start::Admitted => {
                        if let Some(edited) = edited {
                            self.upstream.extend_from_slice(part(copied, decided));
                            self.upstream.extend(edited);
                            (copied, decided) = (at, at);
                        }
                    }
                    Start::Waits => {
                        self.upstream.extend_from_slice(part(copied, decided));
                        self.pending = part(decided, all.len()).to_vec();
                        self.parsed = at.saturating_sub(decided);
                        self.state = State::Holding { call: number, end: self.parsed, edited };
                        return false;
                    }
                    Start::Refused(denial) => {
                        self.upstream.extend_from_slice(part(copied, decided));
                        self.refuse(&denial);
                        return false;
                    }
                }
            }
            if !self.client.is_undecided() {
                decided = at;
            }
        }
        if !self.client.is_undecided() {
            decided = all.len();
        }
        if (copied, decided) == (0, all.len()) {
            return true;
        }
        self.upstream.extend_from_slice(part(copied, decided));
        self.pending = part(decided, all.len()).to_vec();
        self.parsed = self.pending.len();
        false
    }

    /// Stops forwarding to the upstream, and sends the client the reason.
    fn refuse(&mut self, denial: &Denial) {
        if matches!(self.state, State::Refused { .. } | State::Closed | State::Plain) {
            return;
        }
        let farewell = if self.is_codex {
            farewell::to_client(self.api, &denial.clone().for_codex())
        } else {
            farewell::to_client(self.api, denial)
        };
        self.state = State::Refused { farewell };
        self.pending = Vec::new();
        self.parsed = 0;
        self.upstream.extend(farewell::to_server(self.mask));
    }

    fn unreadable(&mut self, effects: &mut Vec<SocketEffect>) {
        effects.push(SocketEffect::Count(Metric::UnreadRequest("websocket")));
        let message = "This WebSocket cannot be read, and a limit counts what is said in it.";
        self.refuse(&refusal::invalid_request(self.facts.dialect(), message));
    }

    /// Accounts for the bytes that are kept. If there is no memory for them, the socket is closed.
    fn account(&mut self, effects: &mut Vec<SocketEffect>) {
        if !self.bytes_lease.resize(self.pending.len().saturating_add(self.upstream.len())) {
            effects.push(SocketEffect::Count(Metric::MemoryRefused(MemoryUse::RequestBody)));
            self.refuse(&refusal::overloaded(self.facts.dialect()));
        }
    }
}

fn no_memory() -> Metric {
    Metric::MemoryRefused(MemoryUse::Facts)
}
