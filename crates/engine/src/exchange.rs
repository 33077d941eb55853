//! One request and its response, as a state machine: events in, effects out. It performs no I/O and reads no
//! clock; the shell performs the effects in order.

mod charging;
mod cut;
mod event;
mod judging;
mod live;
mod record;
mod request_body;
mod reservation;
mod response;
mod settled;
mod signals;
mod stored;
mod unread;

pub use event::{Effect, Event};
pub use record::{ExchangeEnd, UsageRecord};
pub use request_body::RequestEdit;
pub use settled::{RecordStamp, SettledRecord};

use crate::health;
use crate::leases::Leases;
use crate::metric::{MemoryUse, Metric};
use crate::refusal::{self, warning};
use cut::StreamCutter;
use expression::facts::Facts;
use live::LiveHolds;
use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::request::UsageChunkFilter;
use llm::response::{ResponseHead, Usage};
use policy::model::{FailureMode, UsageReporting};
use policy::plan::{FactRound, Hold, Plan};
use protocol::call::CallFailure;
use protocol::trace::TraceContext;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use request_body::ReadBody;
use reservation::Reservation;
use response::{Ending, ResponseInFlight};
use std::sync::Arc;

/// The plan in force.
#[derive(Clone, Debug)]
pub enum ActivePlan {
    /// No plan has arrived yet.
    Nothing(FailureMode),
    /// This plan applies.
    Plan(Arc<Plan>),
}

impl ActivePlan {
    /// The order in which to fetch the facts of [`Event::Request`]. If a round ends early, no limit applies
    /// and no exchange is needed.
    pub fn rounds(&self) -> &[FactRound] {
        match self {
            Self::Nothing(_) => &[],
            Self::Plan(plan) => plan.rounds(),
        }
    }

    /// Whether the adapter keeps records of usage.
    pub fn records_usage(&self) -> bool {
        match self {
            Self::Nothing(_) => false,
            Self::Plan(plan) => plan.records_usage(),
        }
    }

    /// Whether the adapter exports spans, so that a request's trace is of use.
    pub fn traces(&self) -> bool {
        match self {
            Self::Nothing(_) => false,
            Self::Plan(plan) => plan.traces(),
        }
    }

    /// The request headers to remove before anything is fetched, in lower case.
    pub fn signal_headers(&self) -> &[String] {
        match self {
            Self::Nothing(_) => &[],
            Self::Plan(plan) => plan.signal_headers(),
        }
    }
}

/// The reservation's id. It is unique, and clients cannot choose it.
#[derive(Clone, Debug)]
pub struct ReservationId {
    /// Identifies the process and worker.
    pub prefix: Arc<str>,
    /// Identifies the exchange.
    pub number: u64,
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    in_force: ActivePlan,
    id: ReservationId,
    memory: MemoryBudget,
    /// The leases that it may be admitted from.
    leases: Leases,
    /// The upstream started it without a request, so it is charged even if it is refused.
    is_unasked: bool,
    /// The request asks for no output, so a reported count of zero is plausible.
    is_warm_up: bool,
    /// What to report to Envoy's access log, regardless of the policies.
    reporting: Option<UsageReporting>,
    /// The trace of the request, until there is a reservation.
    trace: Option<Box<TraceContext>>,
    /// The time at which the request was judged, in milliseconds of Unix time, if the shell has set it.
    asked_at: Option<u64>,
    /// What the response has used, once that is charged.
    used: Usage,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The request has not arrived.
    New,
    /// Waiting for the body. At most `most` bytes of it are read.
    Reading { facts: Box<Facts>, most: usize, _lease: Lease },
    /// Waiting for the adapter; the request is paused.
    Waiting(Box<Reservation>),
    /// The request was forwarded.
    Admitted(Box<Reservation>),
    /// The response is passing.
    Responding(Box<ResponseInFlight>),
    /// Nothing remains to be done.
    Over,
}

impl Exchange {
    /// Creates an exchange before any event.
    pub fn new(in_force: ActivePlan, id: ReservationId) -> Self {
        Self {
            in_force,
            id,
            memory: MemoryBudget::default(),
            leases: Leases::default(),
            is_unasked: false,
            is_warm_up: false,
            reporting: None,
            trace: None,
            asked_at: None,
            used: Usage::default(),
            state: State::New,
        }
    }

    /// Limits the memory that the exchange may keep.
    pub fn within(mut self, memory: &MemoryBudget) -> Self {
        self.memory = memory.clone();
        self
    }

    /// Admits the request from these leases, if they have room.
    pub fn leasing(mut self, leases: &Leases) -> Self {
        self.leases = leases.clone();
        self
    }

    /// Marks an exchange that the upstream has started by itself: it is charged even if it is refused.
    pub fn unasked(mut self) -> Self {
        self.is_unasked = true;
        self
    }

    /// Marks an exchange as one that asks for no output.
    pub fn warming_up(mut self) -> Self {
        self.is_warm_up = true;
        self
    }

    /// Reports the exchange to Envoy's access log.
    pub fn reported(mut self, reporting: Option<UsageReporting>) -> Self {
        self.reporting = reporting;
        self
    }

    /// Passes the trace of the request on to the adapter.
    pub fn traced(mut self, trace: Option<Box<TraceContext>>) -> Self {
        self.trace = trace;
        self
    }

    /// Whether the adapter wants a record of the exchange, for its records or for the trace.
    pub fn is_recorded(&self) -> bool {
        self.in_force.records_usage() || self.trace.as_ref().is_some_and(|trace| trace.is_sampled())
    }

    /// Whether the response's headers contain a time of day. If so, [`Exchange::answered_at`] must be called
    /// before the reply is handled, or before the request is resumed if it was admitted from leases.
    pub fn tells_time(&self) -> bool {
        match &self.state {
            State::Waiting(reservation) => refusal::tells_time(reservation.dialect),
            State::Admitted(reservation) => {
                self.asked_at.is_none() && refusal::tells_time(reservation.dialect)
            }
            State::New | State::Reading { .. } | State::Responding(_) | State::Over => false,
        }
    }

    /// Sets when the request was judged, in milliseconds of Unix time.
    pub fn answered_at(&mut self, unix_ms: u64) {
        self.asked_at = Some(unix_ms);
    }

    /// Reserves the memory to read this much of the request's body, if there is room. Keep it until
    /// [`Event::RequestBody`] is handled.
    pub fn room_for_body(&self, size: usize) -> Option<Lease> {
        let needed = match &self.state {
            State::Reading { facts, most, .. } => request_body::memory(facts, size, *most),
            _ => 0,
        };
        self.memory.lease(Purpose::Work, needed)
    }

    /// The response headers to fetch for [`Event::Response`], in lower case.
    pub fn answer_headers(&self) -> &[String] {
        match (&self.in_force, &self.state) {
            (ActivePlan::Plan(plan), State::Admitted(reservation)) if reservation.facts.is_some() => {
                plan.answer_headers()
            }
            _ => &[],
        }
    }

    /// Handles an event. An event that does not fit the state has no effect.
    pub fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        match (std::mem::replace(&mut self.state, State::Over), event) {
            (State::New, Event::Request { facts, bodiless }) => self.request(facts, bodiless),
            (State::Reading { facts, most, .. }, Event::RequestBody { body, end }) => {
                self.request_body(*facts, most, body, end)
            }
            (State::Reading { facts, .. }, Event::NoRequestBody) => self.without_body(*facts, 0),
            (mut state, Event::RequestPassed(bytes)) => {
                if let Some(reservation) = state.reservation() {
                    reservation.passed = bytes;
                }
                self.state = state;
                Vec::new()
            }
            (State::Reading { facts, .. }, Event::UnreadBody { size }) => self.unread_body(*facts, size),
            (State::Waiting(reservation), Event::Reply(reply)) => self.reply(reservation, reply),
            (State::Waiting(reservation), Event::Closed) => vec![reservation.release()],
            (State::Admitted(reservation), Event::Response(head)) => self.response(reservation, head),
            (State::Admitted(reservation), Event::TimedOut(_)) if reservation.is_findable() => {
                reservation.unanswered()
            }
            (State::Admitted(reservation), Event::TimedOut(head)) => self.response(reservation, head),
            (State::Admitted(reservation), Event::Closed) => reservation.unanswered(),
            (State::Responding(mut responding), Event::Passing { chunk, end }) => {
                let effects = responding.edit(chunk, end);
                self.state = State::Responding(responding);
                effects
            }
            (State::Responding(mut responding), Event::PassingUnread) => {
                let effects = responding.pass_unread();
                self.state = State::Responding(responding);
                effects
            }
            (State::Responding(mut responding), Event::OutOfRoom) => {
                let effects = responding.out_of_room();
                self.state = State::Responding(responding);
                effects
            }
            (State::Responding(responding), Event::Body { chunk, end }) => self.body(responding, chunk, end),
            (State::Responding(responding), Event::Closed) => self.settle(responding, Ending::Cut),
            (State::New | State::Reading { .. }, Event::Closed) => Vec::new(),
            (state, _) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Returns whether the response's body has to be read.
    pub fn reads_body(&self) -> bool {
        matches!(&self.state, State::Responding(responding)
            if !responding.head.switches_protocols() && responding.reservation.reads(&self.in_force))
    }

    /// Whether the exchange is running and reported to Envoy's access log or recorded by the adapter.
    pub fn is_reported(&self) -> bool {
        match &self.state {
            State::Waiting(reservation) | State::Admitted(reservation) => reservation.is_reported(),
            State::Responding(responding) => responding.reservation.is_reported(),
            State::New | State::Reading { .. } | State::Over => false,
        }
    }

    /// Whether the response's body may have to be edited.
    pub fn edits_body(&self) -> bool {
        matches!(&self.state, State::Responding(responding)
            if responding.usage_chunk.is_some() || responding.cutter.as_ref().is_some_and(StreamCutter::edits))
    }

    /// Returns what the response has used, as reported or estimated. It is zero until the response is charged.
    pub fn used(&self) -> Usage {
        self.used
    }

    /// Returns whether the exchange is still running.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn request(&mut self, mut facts: Facts, bodiless: bool) -> Vec<Effect> {
        let plan = match &self.in_force {
            ActivePlan::Nothing(FailureMode::Allow) => {
                return vec![Effect::Count(Metric::FailedOpen("no_plan"))];
            }
            ActivePlan::Nothing(FailureMode::Deny) => {
                let denial = refusal::unavailable(None, facts.dialect());
                return vec![Effect::Count(Metric::FailedClosed("no_plan")), Effect::Deny(denial)];
            }
            ActivePlan::Plan(plan) => plan,
        };
        if !bodiless {
            facts.expect_body();
        }
        if let Some(most) = plan.body_wanted(&facts) {
            let announced = facts.content_length().is_some_and(|length| length > 0);
            if bodiless || facts.is_upgrade() && !announced {
                ReadBody::new(&mut facts, plan.pointers(), &[], true, most);
            } else if facts.is_upgrade() {
                // The client keeps the request open until it is answered, so its body cannot be awaited.
                facts.unread_body(0);
            } else {
                let wanted = request_body::wanted(&facts, most);
                if let Some(_lease) = self.memory.lease(Purpose::Keep, facts.size()) {
                    self.state = State::Reading { facts: Box::new(facts), most: wanted, _lease };
                    return vec![Effect::AwaitBody(wanted)];
                }
                let plan = Arc::clone(plan);
                facts.unread_body(0);
                let mut effects = vec![refused_memory(MemoryUse::Facts)];
                effects.extend(self.judged(&plan, facts, false, None));
                return effects;
            }
        }
        let plan = Arc::clone(plan);
        self.judged(&plan, facts, bodiless, None)
    }

    fn request_body(&mut self, mut facts: Facts, most: usize, body: &[u8], end: bool) -> Vec<Effect> {
        let ActivePlan::Plan(plan) = &self.in_force else { return vec![Effect::Resume] };
        let plan = Arc::clone(plan);
        let body = ReadBody::new(&mut facts, plan.pointers(), body, end, most);
        let mut effects: Vec<Effect> = body.trouble(&facts).into_iter().collect();
        effects.extend(self.judged(&plan, facts, false, Some(&body)));
        self.kept(effects)
    }

    fn unread_body(&mut self, facts: Facts, size: usize) -> Vec<Effect> {
        let mut effects = vec![refused_memory(MemoryUse::RequestBody)];
        effects.extend(self.without_body(facts, u64::try_from(size).unwrap_or(u64::MAX)));
        effects
    }

    fn reply(
        &mut self,
        mut reservation: Box<Reservation>,
        reply: Result<ReserveResponse, CallFailure>,
    ) -> Vec<Effect> {
        match reply.map(|response| (response.code(), response)) {
            Ok((Code::Ok, response)) => {
                reservation.answered(response);
                self.admitted(reservation)
            }
            Ok((Code::OverLimit, response)) => {
                reservation.answered(response);
                let facts = reservation.facts.as_deref();
                let (mut denial, failed) =
                    refusal::over_limit(&reservation.standings(), reservation.dialect, facts, self.asked_at);
                denial.add_headers(reservation.signals.headers());
                let refused = reservation.refusing().map(Metric::refused);
                let counts = refused.chain(failed).map(Effect::Count);
                let record = reservation.record_of_refusal();
                let effects = counts.chain(record).chain([Effect::Deny(denial)]).collect();
                if self.is_unasked {
                    reservation.admitted();
                    self.state = State::Admitted(reservation);
                }
                effects
            }
            Ok((Code::Unknown, response)) => {
                // The statuses show whether the adapter knows every limit. A reply without a status for a
                // limit counts as no answer.
                let known = response.statuses.iter().any(|status| status.code() == Code::Unknown);
                let cause = if known { CallFailure::UnknownLimit } else { CallFailure::Malformed };
                self.unchecked(reservation, cause)
            }
            Err(failure) => self.unchecked(reservation, failure),
        }
    }

    /// Every limit has room, so the request is forwarded.
    fn admitted(&mut self, mut reservation: Box<Reservation>) -> Vec<Effect> {
        if !reservation.has_room_for(0) {
            reservation.forget_statuses();
        }
        let mut effects = vec![Effect::Count(Metric::Admitted)];
        effects.extend(reservation.signal());
        effects.push(Effect::Resume);
        reservation.admitted();
        self.state = State::Admitted(reservation);
        effects
    }

    /// The adapter could not answer, so the strictest policy of the request decides. Usage is still reported.
    fn unchecked(&mut self, mut reservation: Box<Reservation>, failure: CallFailure) -> Vec<Effect> {
        let cause = failure.name();
        // A soft limit never refuses. If its policy is strict, it counts as exceeded instead.
        let strict = |hold: &&Hold| hold.rate.failure_mode == FailureMode::Deny;
        let strict = reservation.holds.iter().filter(strict).find(|hold| !hold.rate.boundary.is_soft());
        if let Some(hold) = strict {
            let denial = refusal::unavailable(Some(&hold.rate.policy), reservation.dialect);
            let record = reservation.record_of_outage(hold);
            let mut effects = vec![Effect::Count(Metric::FailedClosed(cause)), reservation.release()];
            effects.extend(record);
            effects.push(Effect::Deny(denial));
            return effects;
        }
        reservation.unchecked();
        let mut effects = vec![Effect::Count(Metric::FailedOpen(cause))];
        effects.extend(reservation.signal());
        effects.push(Effect::Resume);
        reservation.admitted();
        self.state = State::Admitted(reservation);
        effects
    }

    fn response(&mut self, mut reservation: Box<Reservation>, mut head: ResponseHead) -> Vec<Effect> {
        let failed = reservation.model.take().filter(|_| health::is_failure(head.status));
        // A client that the provider throttles needs the provider's rate-limit headers.
        let throttled = head.status == 429;
        let standings = reservation.standings();
        let mut told = if throttled {
            Vec::new()
        } else {
            refusal::headers(&standings, reservation.dialect, self.asked_at)
        };
        told.extend(warning::header(&standings));
        drop(standings);
        told.extend(reservation.signals.headers());
        reservation.forget_statuses();
        head.shorten();
        if !reservation.has_room_for(head.size()) {
            head.usage_headers = Vec::new();
        }
        let unasked = reservation.usage_unasked && head.is_event_stream();
        let usage_chunk = (unasked && !head.is_encoded()).then(|| UsageChunkFilter::within(&self.memory));
        let mut effects: Vec<Effect> = failed.map(Effect::UpstreamFailed).into_iter().collect();
        effects.extend((!told.is_empty()).then_some(Effect::SetHeaders(told)));
        let cutter = match reservation.is_cut() {
            true => StreamCutter::of(
                &head,
                reservation.streams == Some(true),
                reservation.tells_usage,
                &self.memory,
            ),
            false => None,
        };
        if usage_chunk.is_some() || cutter.as_ref().is_some_and(StreamCutter::edits) {
            // The body may become shorter than announced.
            effects.push(Effect::RemoveHeader("content-length"));
        }
        if unasked && usage_chunk.is_none() {
            effects.push(Effect::Count(Metric::UsageChunkKept));
        }
        let (memory, live) = (self.memory.clone(), LiveHolds::default());
        let responding =
            ResponseInFlight { reservation, head, memory, readers: None, usage_chunk, cutter, live };
        self.state = State::Responding(Box::new(responding));
        effects
    }

    fn body(&mut self, mut responding: Box<ResponseInFlight>, chunk: &[u8], end: bool) -> Vec<Effect> {
        responding.read(chunk, &self.in_force);
        if end {
            return self.settle(responding, Ending::Complete);
        }
        let raise = responding.outgrown();
        let detach = raise.as_ref().and_then(|_| responding.reservation.detach());
        self.state = State::Responding(responding);
        detach.into_iter().chain(raise).collect()
    }

    fn settle(&mut self, mut responding: Box<ResponseInFlight>, ending: Ending) -> Vec<Effect> {
        let effects = responding.settle(&self.in_force, ending);
        self.used = responding.reservation.used;
        effects
    }
}

/// Adds the facts that the complete body provides, as an exchange does.
pub fn read_body(plan: &Plan, facts: &mut Facts, body: &[u8]) {
    if let Some(most) = plan.body_wanted(facts) {
        ReadBody::new(facts, plan.pointers(), body, true, most);
    }
}

impl std::fmt::Display for ReservationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{:x}", self.prefix, self.number)
    }
}

fn refused_memory(what: MemoryUse) -> Effect {
    Effect::Count(Metric::MemoryRefused(what))
}
