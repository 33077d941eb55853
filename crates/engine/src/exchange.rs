//! One request and its response, as a state machine: events in, effects out. It holds no clock and reaches nothing;
//! the shell performs the effects in their order.

mod charging;
mod cut;
mod live;
mod request_body;
mod reservation;
mod response;
mod stored;
mod unread;

pub use request_body::RequestEdit;

use crate::health;
use crate::metric::{DoubtCause, MemoryUse, Metric};
use crate::outbox::{Raise, Settlement};
use crate::refusal::{self, Denial, HeaderList};
use cut::StreamCutter;
use expression::facts::Facts;
use live::LiveHolds;
use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::request::{Condition, UsageChunkFilter};
use llm::response::ResponseHead;
use policy::model::{FailureMode, WebSocketMode};
use policy::plan::{Doubt, FactRound, Failure, Hold, Plan};
use protocol::call::{CallFailure, LONGEST_CALL, MAX_DESCRIPTORS};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use request_body::ReadBody;
use reservation::Reservation;
use response::{Ending, ResponseInFlight};
use std::sync::Arc;
use stored::ResultRole;

/// Everything that can happen to one exchange. The shell turns each host callback into one of these.
#[derive(Debug)]
pub enum Event<'a> {
    /// The request's headers are here.
    Request {
        /// What the plan asked for.
        facts: Facts,
        /// The request ends with its headers.
        bodiless: bool,
    },
    /// The request's body, gathered as [`Effect::AwaitBody`] said.
    RequestBody {
        /// From its beginning.
        body: &'a [u8],
        /// Nothing follows.
        end: bool,
    },
    /// That body cannot be awaited: the proxy does not hand it over while the request is kept.
    NoRequestBody,
    /// So many bytes of the request's body have come so far, awaited or not. Of interest only if
    /// [`Exchange::counts_request_body`].
    RequestPassed(u64),
    /// The request's body is there, as [`Effect::AwaitBody`] said, and there is no memory to read it: see
    /// [`Exchange::room_for_body`].
    UnreadBody {
        /// How much of it has come, in bytes.
        size: usize,
    },
    /// The adapter's answer to the Reserve.
    Reply(Result<ReserveResponse, CallFailure>),
    /// The response's headers are here.
    Response(ResponseHead),
    /// More of the response's body is passing. Of interest only if [`Exchange::edits_body`].
    Passing {
        /// As the upstream sent it.
        chunk: &'a [u8],
        /// Nothing follows.
        end: bool,
    },
    /// More of the response's body is passing, and there is no memory to look at it. What was to be taken out stays.
    PassingUnread,
    /// What has passed of the response's body, maybe nothing but its end: this can wait.
    Body {
        /// As the upstream sent it.
        chunk: &'a [u8],
        /// Nothing follows.
        end: bool,
    },
    /// The adapter has no room for what is to be held by [`Effect::Raise`].
    OutOfRoom,
    /// The exchange is over, however it ended.
    Closed,
}

/// What the shell must do, in order. Nothing else reaches the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Keep the request until so many bytes of its body are here, or all of it, and hand them over.
    AwaitBody(usize),
    /// Replace the request's body with this.
    Edit(RequestEdit),
    /// Set this header of the request.
    SetRequestHeader(&'static str, &'static str),
    /// Call the adapter's `Reserve` with these bytes and keep the request until [`Effect::Resume`].
    Reserve(Vec<u8>),
    /// Let the request go on.
    Resume,
    /// Answer the request; it does not go on.
    Deny(Denial),
    /// Set these headers of the response.
    SetHeaders(HeaderList),
    /// Remove this header of the response.
    RemoveHeader(&'static str),
    /// Replace the current chunk of the response with this.
    ReplaceChunk(Vec<u8>),
    /// Keep this in the place of that piece, and let nothing pass: some of it may have to be taken out. It is kept by
    /// the proxy, which can still send it on behind the body's last piece, and is replaced with the next piece.
    KeepChunk(Vec<u8>),
    /// Reset the response: nothing more of it may reach the client, and it has no proper end.
    Reset,
    /// Tell the adapter, from where nothing waits for it.
    Commit(Settlement),
    /// Tell the adapter, in the same way, that more is to be held. That it is lost changes no charge.
    Raise(Raise),
    /// An upstream of this model failed; [`crate::health::Health`] is to know.
    UpstreamFailed(String),
    /// Count it.
    Count(Metric),
}

/// What is in force.
#[derive(Clone, Debug)]
pub enum ActivePlan {
    /// No plan has come yet.
    Nothing(FailureMode),
    /// This plan.
    Plan(Arc<Plan>),
}

impl ActivePlan {
    /// In which order the facts of [`Event::Request`] are fetched. If a round ends the fetching, no limit applies and
    /// there is no exchange.
    pub fn rounds(&self) -> &[FactRound] {
        match self {
            Self::Nothing(_) => &[],
            Self::Plan(plan) => plan.rounds(),
        }
    }
}

/// A reservation's name: nobody else's, and not for a client to choose.
#[derive(Clone, Debug)]
pub struct ReservationId {
    /// Of this process and worker.
    pub prefix: Arc<str>,
    /// Of this exchange.
    pub number: u64,
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    in_force: ActivePlan,
    id: ReservationId,
    memory: MemoryBudget,
    /// It is under way already, and is charged even if it is refused.
    is_unasked: bool,
    /// It asks for no output: if none comes, a report of zero is right.
    is_warm_up: bool,
    /// When the adapter answered, in milliseconds of Unix time, if the shell has said so.
    asked_at: Option<u64>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The request has not come.
    New,
    /// Its body is awaited, of which so much may be read.
    Reading { facts: Box<Facts>, most: usize, _lease: Lease },
    /// The adapter has been asked; the request is kept.
    Waiting(Reservation),
    /// The request went on.
    Admitted(Reservation),
    /// The response is passing.
    Responding(Box<ResponseInFlight>),
    /// Nothing is left to do.
    Over,
}

impl Exchange {
    /// Before anything has happened.
    pub fn new(in_force: ActivePlan, id: ReservationId) -> Self {
        Self {
            in_force,
            id,
            memory: MemoryBudget::default(),
            is_unasked: false,
            is_warm_up: false,
            asked_at: None,
            state: State::New,
        }
    }

    /// The same, which keeps no more than this allows.
    pub fn within(mut self, memory: &MemoryBudget) -> Self {
        self.memory = memory.clone();
        self
    }

    /// The same, which the upstream has begun unasked: a refusal comes too late for it, and it is charged all the same.
    pub fn unasked(mut self) -> Self {
        self.is_unasked = true;
        self
    }

    /// The same, which asks for no output.
    pub fn warming_up(mut self) -> Self {
        self.is_warm_up = true;
        self
    }

    /// Whether the headers of the answer name a time of the clock: if so, [`Exchange::answered_at`] comes before it.
    pub fn tells_time(&self) -> bool {
        matches!(&self.state, State::Waiting(reservation) if refusal::tells_time(reservation.dialect))
    }

    /// The adapter's answer, which is handled next, comes at this time, in milliseconds of Unix time.
    pub fn answered_at(&mut self, unix_ms: u64) {
        self.asked_at = Some(unix_ms);
    }

    /// The memory that it takes to read so much of the request's body, if there is room for it. To be kept until
    /// [`Event::RequestBody`] has been handled.
    pub fn room_for_body(&self, size: usize) -> Option<Lease> {
        let needed = match &self.state {
            State::Reading { facts, most, .. } => request_body::memory(facts, size, *most),
            _ => 0,
        };
        self.memory.lease(Purpose::Work, needed)
    }

    /// The response's headers, in lower case, that its event should bring if it has them.
    pub fn answer_headers(&self) -> &[String] {
        match (&self.in_force, &self.state) {
            (ActivePlan::Plan(plan), State::Admitted(reservation)) if reservation.facts.is_some() => {
                plan.answer_headers()
            }
            _ => &[],
        }
    }

    /// What follows from an event. An event that does not belong to the state changes nothing.
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
            (State::Responding(responding), Event::Closed) => responding.settle(&self.in_force, Ending::Cut),
            (State::New | State::Reading { .. }, Event::Closed) => Vec::new(),
            (state, _) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Whether the body of the response makes a difference.
    pub fn reads_body(&self) -> bool {
        matches!(&self.state, State::Responding(responding)
            if !responding.head.switches_protocols() && responding.reservation.reads(&self.in_force))
    }

    /// Whether the response's body may have to be changed as it passes.
    pub fn edits_body(&self) -> bool {
        matches!(&self.state, State::Responding(responding)
            if responding.usage_chunk.is_some() || responding.cutter.as_ref().is_some_and(StreamCutter::edits))
    }

    /// Whether something of this exchange is still to come.
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
        if let Some(most) = plan.body_wanted(&facts) {
            let announced = facts.content_length().is_some_and(|length| length > 0);
            if bodiless || facts.is_upgrade() && !announced {
                ReadBody::new(&mut facts, plan.pointers(), &[], true, most);
            } else if facts.is_upgrade() {
                // It goes on until it is answered, so nobody waits for it, whatever it says of a body.
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

    fn judged(
        &mut self,
        plan: &Plan,
        mut facts: Facts,
        bodiless: bool,
        body: Option<&ReadBody<'_>>,
    ) -> Vec<Effect> {
        let mut judgement = plan.judge(&mut facts, bodiless);
        if facts.is_message() {
            // Read for another policy's sake, and free for this one.
            let is_free = |hold: &Hold| {
                hold.rate.usage.web_socket == WebSocketMode::Allow && hold.rate.rate.unit.is_of_usage()
            };
            judgement.holds.retain(|hold| !is_free(hold));
        }
        let mut effects = failed_parts(&judgement.failures);
        effects.extend(judgement.assumed.iter().map(|failure| Effect::Count(Metric::evaluation(failure))));
        let doubts = [judgement.doubts.as_slice(), &body_in_doubt(&judgement.holds, &facts)].concat();
        effects.extend(doubts.iter().map(|doubt| Effect::Count(Metric::in_doubt(doubt))));
        if let Some(hold) = judgement.holds.get(MAX_DESCRIPTORS) {
            // The adapter would not take the call, and then nothing of it would be counted.
            effects.extend(refused_unasked(&hold.rate.policy, &facts));
        } else if let Some(failure) =
            judgement.failures.iter().find(|failure| failure.mode == FailureMode::Deny)
        {
            let denial = refusal::unavailable(Some(&failure.policy), facts.dialect());
            effects.push(Effect::Deny(denial));
        } else if let Some(what) = judgement.conflicts.first() {
            let message = format!(
                "The request gives its {what} twice, with values that differ. Please give it once, in lower case."
            );
            effects.push(Effect::Count(Metric::InvalidRequest("conflict")));
            effects.push(Effect::Deny(refusal::invalid_request(facts.dialect(), &message)));
        } else if let Some(hold) = judgement.holds.iter().find(|hold| hold.exceeds_share()) {
            effects.extend(over_share(hold, &facts));
        } else if judgement.holds.is_empty() {
            if let Some(id) = plan.stored_result(&facts, bodiless) {
                let role = ResultRole::Reads(id.to_owned());
                let id = self.id.to_string();
                let mut reservation = Reservation::new(id, plan, judgement, &facts, bodiless, &self.memory);
                reservation.role = role;
                if reservation.has_room_for(0) {
                    self.state = State::Admitted(reservation);
                } else {
                    effects.push(refused_memory(MemoryUse::Holds));
                }
            }
        } else {
            let cap = judgement.output_cap;
            let mut reservation =
                Reservation::new(self.id.to_string(), plan, judgement, &facts, bodiless, &self.memory);
            reservation.is_warm_up = self.is_warm_up;
            if !reservation.has_room_for(0) {
                let denial = refusal::overloaded(reservation.dialect);
                effects.extend([refused_memory(MemoryUse::Holds), Effect::Deny(denial)]);
                return effects;
            }
            if let Some(body) = body {
                match body.change(&mut facts, reservation.asks_for_usage(), cap) {
                    Ok((changes, unasked)) => {
                        reservation.usage_unasked = unasked;
                        reservation.tells_usage = !unasked && reservation.asks_for_usage();
                        effects.extend(changes);
                    }
                    // A dry run refuses nothing.
                    Err(_) if !reservation.holds.iter().any(|hold| hold.enforced) => {}
                    Err(why) => {
                        effects.push(Effect::Count(Metric::InvalidRequest(why.name())));
                        let denial = refusal::invalid_request(facts.dialect(), why.message());
                        effects.push(Effect::Deny(denial));
                        return effects;
                    }
                }
            }
            if request_body::needs_plain_response(reservation.usage_unasked, reservation.may_be_cut(), &facts)
            {
                effects.push(Effect::SetRequestHeader("accept-encoding", "identity"));
            }
            let call = reservation.reserve();
            if call.len() > LONGEST_CALL {
                let policy = reservation.holds.first().map(|hold| hold.rate.policy.clone());
                effects.extend(refused_unasked(&policy.unwrap_or_default(), &facts));
                return effects;
            }
            if !reservation.keep(facts, &self.memory) {
                effects.push(refused_memory(MemoryUse::Facts));
            }
            effects.push(Effect::Reserve(call));
            self.state = State::Waiting(reservation);
        }
        effects
    }

    fn reply(
        &mut self,
        mut reservation: Reservation,
        reply: Result<ReserveResponse, CallFailure>,
    ) -> Vec<Effect> {
        match reply.map(|response| (response.code(), response)) {
            Ok((Code::Ok, response)) => {
                reservation.answered(response);
                if !reservation.has_room_for(0) {
                    reservation.forget_statuses();
                }
                reservation.admitted();
                self.state = State::Admitted(reservation);
                vec![Effect::Count(Metric::Admitted), Effect::Resume]
            }
            Ok((Code::OverLimit, response)) => {
                reservation.answered(response);
                let facts = reservation.facts.as_deref();
                let (denial, failed) =
                    refusal::over_limit(&reservation.standings(), reservation.dialect, facts, self.asked_at);
                let refused = reservation.refusing().map(Metric::refused);
                let counts = refused.chain(failed).map(Effect::Count);
                let effects = counts.chain([Effect::Deny(denial)]).collect();
                if self.is_unasked {
                    reservation.admitted();
                    self.state = State::Admitted(reservation);
                }
                effects
            }
            Ok((Code::Unknown, response)) => {
                // A limit the adapter does not know says so in its status; an answer that says nothing is none.
                let known = response.statuses.iter().any(|status| status.code() == Code::Unknown);
                let cause = if known { CallFailure::UnknownLimit } else { CallFailure::Malformed };
                self.unchecked(reservation, cause)
            }
            Err(failure) => self.unchecked(reservation, failure),
        }
    }

    /// The adapter could not say: the strictest policy of the request decides. What is used is told all the same.
    fn unchecked(&mut self, mut reservation: Reservation, failure: CallFailure) -> Vec<Effect> {
        let cause = failure.name();
        let strict = reservation.holds.iter().find(|hold| hold.rate.failure_mode == FailureMode::Deny);
        if let Some(hold) = strict {
            let denial = refusal::unavailable(Some(&hold.rate.policy), reservation.dialect);
            return vec![
                Effect::Count(Metric::FailedClosed(cause)),
                reservation.release(),
                Effect::Deny(denial),
            ];
        }
        reservation.admitted();
        self.state = State::Admitted(reservation);
        vec![Effect::Count(Metric::FailedOpen(cause)), Effect::Resume]
    }

    fn response(&mut self, mut reservation: Reservation, mut head: ResponseHead) -> Vec<Effect> {
        let failed = reservation.model.take().filter(|_| health::is_failure(head.status));
        // A client that is throttled by the provider needs the provider's numbers.
        let throttled = head.status == 429;
        let told = if throttled {
            Vec::new()
        } else {
            refusal::headers(&reservation.standings(), reservation.dialect, self.asked_at)
        };
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
            // There may be less than the provider said.
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
            return responding.settle(&self.in_force, Ending::Complete);
        }
        let raise = responding.outgrown();
        self.state = State::Responding(responding);
        raise.into_iter().collect()
    }
}

/// The request asks for more of a limit than one request may hold. The adapter need not be asked.
fn over_share(hold: &Hold, facts: &Facts) -> Vec<Effect> {
    let (policy, limit) = (hold.rate.policy.to_string(), hold.rate.limit.clone());
    let (denial, failed) = refusal::over_share(hold, facts);
    let counts = [Metric::refused(hold), Metric::OverShare { policy, limit }].into_iter().chain(failed);
    counts.map(Effect::Count).chain([Effect::Deny(denial)]).collect()
}

/// Adds to the facts what the body tells, as an exchange does when it is all there.
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

/// More rates apply than the adapter can be asked about.
fn refused_unasked(policy: &str, facts: &Facts) -> [Effect; 2] {
    let denial = refusal::unavailable(Some(policy), facts.dialect());
    [Effect::Count(Metric::FailedClosed("too_many_rates")), Effect::Deny(denial)]
}

/// A body that could not be read is in doubt for each limit that applies and has a use for it.
fn body_in_doubt(holds: &[Hold], facts: &Facts) -> Vec<Doubt> {
    let condition = facts.read_body().map(|body| body.condition).unwrap_or_default();
    let mut doubts: Vec<Doubt> = Vec::new();
    for hold in holds.iter().filter(|hold| hold.rate.reads_body && condition != Condition::Read) {
        let (policy, limit) = (hold.rate.policy.clone(), hold.rate.limit.clone());
        let doubt = Doubt { policy, limit, cause: DoubtCause::Body(condition), detail: String::new() };
        // The rates of one limit come one after the other.
        if doubts.last() != Some(&doubt) {
            doubts.push(doubt);
        }
    }
    doubts
}

fn refused_memory(what: MemoryUse) -> Effect {
    Effect::Count(Metric::MemoryRefused(what))
}

/// Each part of a policy that could not be evaluated is counted, by its policy and its part.
fn failed_parts(failures: &[Failure]) -> Vec<Effect> {
    let count = |failure: &Failure| {
        let outcome = match failure.mode {
            FailureMode::Allow => Metric::FailedOpen("evaluation"),
            FailureMode::Deny => Metric::FailedClosed("evaluation"),
        };
        [Effect::Count(Metric::evaluation(failure)), Effect::Count(outcome)]
    };
    failures.iter().flat_map(count).collect()
}
