//! The holds of a request, from the adapter's reply to the final charge.

use super::record;
use super::settled::RecordedRequest;
use super::signals::ExceededLimits;
use super::stored::{CreatedResult, ResultRole};
use super::{Effect, ReservationId};
use crate::leases::Leases;
use crate::metric::UsageSource;
use crate::outbox::Settlement;
use crate::refusal::RateStatus;
use expression::cel::{Expression, FactPath};
use expression::facts::{Facts, Need, ResponseFacts};
use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::request::{Dialect, Operation, RequestBody, Route};
use llm::response::{CHARACTERS_PER_TOKEN, Usage};
use policy::model::{StreamUsage, UsageReporting};
use policy::plan::{Estimate, Hold, Judgement, OutputLesson, Plan};
use protocol::call::{self, Item};
use protocol::trace::TraceContext;
use protocol::wire::envoy::extensions::common::ratelimit::v3::DeferredCharge;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{DescriptorStatus, ReserveResponse};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Reservation {
    id: String,
    /// The number in the id.
    number: u64,
    /// The leases that it may have been admitted from.
    leases: Leases,
    pub(super) holds: Vec<Hold>,
    pub(super) estimate: Estimate,
    /// The maximum output that the request allows, if it is known.
    pub(super) max_output: Option<u64>,
    /// What the response has used, once that is charged.
    pub(super) used: Usage,
    /// Whether the call is known to use no tokens.
    pub(super) tokenless: bool,
    /// Whether the request asks for no output, so that a reported count of zero is plausible.
    pub(super) is_warm_up: bool,
    /// Whether the request's body was not read, or not to its end.
    pub(super) unread: bool,
    /// How many bytes of that body have passed.
    pub(super) passed: u64,
    /// How the request relates to a result that the provider stores.
    pub(super) role: ResultRole,
    /// Whether the client can find the result without the response.
    is_findable: bool,
    /// The dialect of a refusal.
    pub(super) dialect: Dialect,
    /// The facts for a `cost` or the body of `onExceeded`, if there is one.
    pub(super) facts: Option<Box<Facts>>,
    /// The model, if a policy uses `upstream.failuresLastMinute`. Empty if it is unknown.
    pub(super) model: Option<String>,
    /// What the response teaches about the output of such requests.
    pub(super) lesson: Option<Box<OutputLesson>>,
    /// What to report to Envoy's access log.
    pub(super) reporting: Option<UsageReporting>,
    /// The model for that report.
    pub(super) reported_model: Option<String>,
    /// What a usage record needs, if the adapter keeps records.
    pub(super) recorded: Option<RecordedRequest>,
    /// The trace of the request, if the adapter exports spans.
    pub(super) trace: Option<Box<TraceContext>>,
    /// Weir asked the provider for the stream's usage; the client did not.
    pub(super) usage_unasked: bool,
    /// Whether the client asked for the stream's usage.
    pub(super) tells_usage: bool,
    /// Whether the request asks for a stream, if known.
    pub(super) streams: Option<bool>,
    /// Whether the request is a message in a WebSocket, which can only be ended as a whole.
    is_message: bool,
    /// The adapter's statuses, parallel to `holds`. Empty if it sent none.
    statuses: Vec<DescriptorStatus>,
    /// The soft limits that the request exceeds.
    pub(super) signals: ExceededLimits,
    /// The memory of everything except the facts.
    pub(super) lease: Lease,
    /// The memory of the facts.
    facts_lease: Lease,
}

/// The memory of an exchange in the shell and here, in bytes.
const EXCHANGE: usize = 2 << 10;
/// The memory of one of the adapter's statuses, in bytes.
const STATUS: usize = 256;

impl Reservation {
    pub(super) fn new(
        id: &ReservationId,
        plan: &Plan,
        judgement: Judgement,
        facts: &Facts,
        bodiless: bool,
        reporting: Option<UsageReporting>,
        memory: &MemoryBudget,
    ) -> Self {
        let Judgement { is_free, holds, estimate, lesson, .. } = judgement;
        let max_output = judgement.max_output.or(judgement.output_cap);
        let (tokenless, route) = (bodiless || is_free, facts.route());
        let role = match plan.stored_result(facts, bodiless) {
            Some(id) => ResultRole::Reads(id.to_owned()),
            None if tokenless => ResultRole::None,
            None => creation(facts, &route),
        };
        let is_kept = facts.read_body().is_some_and(|body| body.is_kept);
        let is_findable = !tokenless && is_kept || matches!(role, ResultRole::Creates { asked: true });
        let model = plan.needs().contains(&Need::Failures).then(|| facts.model().unwrap_or_default());
        let unread = facts.read_body().is_none_or(|body| body.condition.hides_facts());
        let (dialect, is_message) = (route.dialect, facts.is_message());
        let streams = streams(facts, &route);
        let reporting = holds.iter().map(|hold| hold.rate.reporting).chain([reporting]).max().flatten();
        let reported_model = reporting.and_then(|_| facts.model()).map(|model| record::shortened(&model));
        let (facts, usage_unasked, statuses) = (None, false, Vec::new());
        let (lease, facts_lease) = (memory.empty(Purpose::Record), memory.empty(Purpose::Keep));
        Self {
            id: id.to_string(),
            number: id.number,
            leases: Leases::default(),
            holds,
            estimate,
            max_output,
            used: Usage::default(),
            tokenless,
            is_warm_up: false,
            unread,
            role,
            is_findable,
            passed: 0,
            dialect,
            facts,
            model,
            lesson: lesson.map(Box::new),
            reporting,
            reported_model,
            recorded: None,
            trace: None,
            usage_unasked,
            tells_usage: false,
            streams,
            is_message,
            statuses,
            signals: ExceededLimits::default(),
            lease,
            facts_lease,
        }
    }

    /// Returns whether the response may be a stream that can be cut.
    pub(super) fn may_be_cut(&self) -> bool {
        self.is_cut() && self.streams != Some(false)
    }

    /// Returns whether the stream is cut when a limit runs out of room.
    pub(super) fn is_cut(&self) -> bool {
        !self.is_message && !self.tokenless && self.holds.iter().any(Hold::is_cut)
    }

    /// Whether the exchange is reported to Envoy's access log or recorded by the adapter.
    pub(super) fn is_reported(&self) -> bool {
        self.reporting.is_some() || self.recorded.is_some()
    }

    /// Returns the id that the adapter knows.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Reserves the memory that the reservation needs, plus `more` bytes. Returns false if there is not
    /// enough.
    pub(super) fn has_room_for(&mut self, more: usize) -> bool {
        let size = self.size().saturating_add(more);
        self.lease.resize(size)
    }

    fn size(&self) -> usize {
        let role = match &self.role {
            ResultRole::Reads(id) => id.len(),
            ResultRole::Creates { .. } | ResultRole::None => 0,
        };
        let sizes = self.holds.iter().map(|hold| {
            let counters = hold.counters.iter().map(|(name, value)| name.len().saturating_add(value.len()));
            // They are also copied into the call to the adapter.
            let entries = hold.entries.size().saturating_mul(2);
            let texts = counters.map(|text| text.saturating_add(64)).chain([entries]);
            texts.fold(size_of::<Hold>().saturating_add(64), usize::saturating_add)
        });
        let models = self.model.iter().chain(&self.reported_model).map(String::len);
        let models = models.chain(self.recorded.iter().map(RecordedRequest::size));
        let model = models.fold(0, usize::saturating_add);
        let lesson = self.lesson.as_ref().map_or(0, |lesson| lesson.size());
        let trace = self.trace.as_ref().map_or(0, |trace| trace.size());
        let statuses = self.statuses.len().saturating_mul(STATUS);
        sizes
            .chain([
                model,
                lesson,
                trace,
                role,
                statuses,
                self.id.len(),
                size_of::<Self>(),
                ExceededLimits::size(&self.holds),
            ])
            .fold(EXCHANGE, usize::saturating_add)
    }

    fn costs(&self) -> impl Iterator<Item = &Expression> {
        self.holds.iter().filter_map(|hold| hold.rate.rate.cost.as_ref())
    }

    /// Keeps the facts for a `cost` or the body of `onExceeded`. Returns false if there is no memory for
    /// them.
    pub(super) fn keep(&mut self, mut facts: Facts, memory: &MemoryBudget) -> bool {
        let refusals = self.holds.iter().filter_map(|hold| hold.rate.on_exceeded.as_ref()?.body.as_ref());
        let mut asking = self.costs().chain(refusals).peekable();
        if asking.peek().is_none() {
            return true;
        }
        let named: Vec<&FactPath> = asking.flat_map(Expression::references).collect();
        facts.keep(&named);
        drop(named);
        let Some(lease) = memory.lease(Purpose::Keep, facts.size()) else { return false };
        self.facts_lease = lease;
        self.facts = Some(Box::new(facts));
        true
    }

    /// The request is forwarded and can no longer be refused.
    pub(super) fn admitted(&mut self) {
        let Some(mut facts) = self.facts.take() else { return };
        let named: Vec<&FactPath> = self.costs().flat_map(Expression::references).collect();
        if self.costs().next().is_some() {
            facts.keep(&named);
            let size = facts.size();
            self.facts = Some(facts);
            self.facts_lease.shrink(size);
        } else {
            self.facts_lease.shrink(0);
        }
    }

    /// Returns whether a limit needs the provider to report a stream's usage.
    pub(super) fn asks_for_usage(&self) -> bool {
        let rates = self.holds.iter().map(|hold| &hold.rate);
        let mut of_usage = rates.filter(|rate| rate.rate.unit.is_of_usage());
        of_usage.any(|rate| rate.usage.stream_usage == StreamUsage::Request)
    }

    pub(super) fn counts_tokens(&self) -> bool {
        self.holds.iter().any(|hold| hold.rate.rate.unit.is_of_usage())
    }

    pub(super) fn reserve(&self) -> Vec<u8> {
        let items = self.holds.iter();
        let items = items.map(|hold| Item {
            entries: &hold.entries,
            amount: hold.amount,
            ttl: hold.ttl,
            max: hold.rate.rate.max.fixed().is_none().then_some(hold.max),
            unenforced: !hold.enforced,
            draw: None,
        });
        let mut call = call::reserve(&self.id, items);
        self.trace.iter().for_each(|trace| call::add_trace(&mut call, trace));
        call
    }

    /// Admits the request from these leases, if they have room for all of its holds.
    pub(super) fn is_leased(&mut self, leases: &Leases) -> bool {
        let Some(statuses) = leases.admit(self.number, &self.holds) else { return false };
        self.leases = leases.clone();
        self.statuses = statuses;
        self.note_exceeded();
        true
    }

    /// Whether the client can find the result without the response: in a list, a thread or a conversation.
    pub(super) fn is_findable(&self) -> bool {
        self.is_findable
    }

    /// Makes a request that was admitted from leases a reservation that the adapter knows.
    pub(super) fn detach(&self) -> Option<Effect> {
        self.leases.detach(self.number).map(Effect::Commit)
    }

    /// A server that chose another id knows the reservation only by that id.
    pub(super) fn answered(&mut self, response: ReserveResponse) {
        if !response.reservation_id.is_empty() {
            self.id = response.reservation_id;
        }
        self.statuses = response.statuses;
        self.note_exceeded();
    }

    /// Records that the statuses have been sent to the client.
    pub(super) fn forget_statuses(&mut self) {
        self.statuses = Vec::new();
    }

    /// Each hold with the adapter's status for it, if there is one. A limit that the adapter does not know is
    /// not in force there: while a policy change propagates, the adapter may have a different plan.
    pub(super) fn standings(&self) -> Vec<RateStatus<'_>> {
        let known = |status: &&DescriptorStatus| status.code() != Code::Unknown;
        let statuses = self.statuses.iter().map(|status| Some(status).filter(known));
        let statuses = statuses.chain(std::iter::repeat(None));
        self.holds.iter().zip(statuses).map(|(hold, status)| RateStatus { hold, status }).collect()
    }

    /// Returns the holds that were refused, or all holds if the adapter did not report which.
    pub(super) fn refusing(&self) -> impl Iterator<Item = &Hold> {
        let named = self.statuses.iter().any(|status| status.code() == Code::OverLimit);
        self.standings()
            .into_iter()
            .filter(move |standing| !named || standing.is_over())
            .map(|standing| standing.hold)
    }

    /// Handles a request that was not forwarded.
    pub(super) fn release(&self) -> Effect {
        self.commit(&vec![0; self.holds.len()])
    }

    /// Handles a forwarded request whose response will not arrive: the client left, or Envoy stopped waiting. The
    /// input is charged. If the client can find the result elsewhere, its estimated output is charged, too.
    pub(super) fn unanswered(mut self) -> Vec<Effect> {
        let output = if self.is_findable { self.estimate.output } else { 0 };
        let usage = if self.tokenless { Usage::default() } else { estimated(self.input(), output) };
        // No response has shown anything about its length.
        self.lesson = None;
        self.charge(ResponseFacts { usage, ..ResponseFacts::default() }, UsageSource::Estimated)
    }

    /// Returns the number of input tokens, if it is known. For an unread body, it is estimated from the bytes
    /// that have passed.
    pub(super) fn input(&self) -> u64 {
        let passed = if self.unread { self.passed / CHARACTERS_PER_TOKEN } else { 0 };
        self.estimate.input.max(passed)
    }

    /// Settles the reservation with these charges, one for each hold.
    pub(super) fn commit(&self, charges: &[u64]) -> Effect {
        let items = self.holds.iter().zip(charges).map(|(hold, amount)| item(hold, *amount));
        let Some(draws) = self.leases.settle(self.number, charges) else {
            return Effect::Commit(Settlement::new(call::commit(&self.id, items)));
        };
        let items = items.zip(draws).map(|(item, draw)| Item { draw: Some(draw), ..item });
        Effect::Commit(Settlement::patient(call::commit(&self.id, items)))
    }

    /// Settles the reservation and defers what a background result will use. `charges` applies where a charge
    /// cannot be deferred.
    pub(super) fn park(
        &self,
        charges: &[u64],
        deferred: &[Option<DeferredCharge>],
        result: &CreatedResult,
    ) -> Effect {
        let items = self.holds.iter().zip(charges).map(|(hold, amount)| item(hold, *amount));
        let parked = result.parked(self.input());
        let deferred = deferred.iter().cloned();
        Effect::Commit(Settlement::new(call::park(&self.id, items.zip(deferred), parked)))
    }
}

/// Charges a hold's bucket.
fn item(hold: &Hold, amount: u64) -> Item<'_> {
    let rate = &hold.rate;
    // The adapter needs the maximum to decide whether the charge reaches a threshold.
    let warns = !rate.warn_at.is_empty() && rate.rate.max.fixed().is_none();
    let max = warns.then_some(hold.max);
    Item { entries: &hold.entries, amount, ttl: Duration::ZERO, max, unenforced: false, draw: None }
}

/// Whether the request asks for a stream, if that is known.
pub(super) fn streams(facts: &Facts, route: &Route) -> Option<bool> {
    let read = facts.read_body().filter(|body| !body.condition.hides_facts());
    read.map_or(route.stream, |body| Some(body.stream))
}

/// Whether a request may create a background result.
fn creation(facts: &Facts, route: &Route) -> ResultRole {
    let read = facts.read_body().filter(|body| !body.condition.hides_facts());
    // Any client can write `background` into a chat request, but most chats are answered at once.
    let is_heeded = |body: &RequestBody| body.route.background || body.operation == Operation::Response;
    let asked = facts.read_body().is_some_and(|body| body.background && is_heeded(body))
        || facts.path().is_some_and(llm::request::is_always_later);
    // A body that was not read may have asked for a background result, and xAI defers chats.
    let may_have = match read {
        Some(body) => body.background,
        None => route.operation == Some(Operation::Response),
    };
    match asked || may_have {
        true => ResultRole::Creates { asked },
        false => ResultRole::None,
    }
}

/// The usage of an exchange if its provider reported none.
pub(super) fn estimated(input: u64, output: u64) -> Usage {
    Usage { input, output, total: input.saturating_add(output), ..Usage::default() }
}
