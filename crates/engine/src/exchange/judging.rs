//! Judges a request: refuses it, forwards it, or asks the adapter for its holds.

use super::request_body::{self, ReadBody};
use super::reservation::Reservation;
use super::stored::ResultRole;
use super::{Effect, Exchange, State, record, refused_memory};
use crate::metric::{DoubtCause, MemoryUse, Metric};
use crate::refusal;
use expression::facts::Facts;
use llm::request::Condition;
use policy::model::{FailureMode, WebSocketMode};
use policy::plan::{Doubt, Failure, Hold, Judgement, Plan};
use protocol::call::{LONGEST_CALL, MAX_DESCRIPTORS};

impl Exchange {
    /// Judges the request. `body` is its body, if that was read.
    pub(super) fn judged(
        &mut self,
        plan: &Plan,
        mut facts: Facts,
        bodiless: bool,
        body: Option<&ReadBody<'_>>,
    ) -> Vec<Effect> {
        let mut judgement = plan.judge(&mut facts, bodiless);
        if facts.is_message() {
            // Another policy may need more facts. For this policy, the request is free.
            judgement.holds.retain(|hold| !lets_messages_pass(hold));
        }
        let mut effects = counts(&judgement, &facts);
        if let Some(refusal) = self.refused_at_once(&judgement, &facts) {
            effects.extend(refusal);
        } else if judgement.holds.is_empty() {
            effects.extend(self.without_holds(plan, judgement, &facts, bodiless));
        } else {
            self.with_holds(plan, judgement, facts, bodiless, body, &mut effects);
        }
        effects
    }

    /// Refuses a request that no reply of the adapter can admit.
    fn refused_at_once(&self, judgement: &Judgement, facts: &Facts) -> Option<Vec<Effect>> {
        if let Some(hold) = judgement.holds.get(MAX_DESCRIPTORS) {
            // The adapter would reject the call, and nothing would be counted.
            return Some(refused_unasked(&hold.rate.policy, facts).into());
        }
        if let Some(failure) = judgement.failures.iter().find(|failure| failure.mode == FailureMode::Deny) {
            let denial = refusal::unavailable(Some(&failure.policy), facts.dialect());
            return Some(vec![Effect::Deny(denial)]);
        }
        if let Some(what) = judgement.conflicts.first() {
            let message = format!(
                "The request gives its {what} twice, with values that differ. Please give it once, in lower case."
            );
            return Some(invalid("conflict", &message, facts).into());
        }
        let hold = judgement.holds.iter().find(|hold| hold.exceeds_share())?;
        let record = record::of_refusal(hold, facts, self.reporting);
        Some(record.into_iter().chain(over_share(hold, facts)).collect())
    }

    /// Forwards a request without limits. If it reads a stored result, the result's creator may have to be charged.
    fn without_holds(
        &mut self,
        plan: &Plan,
        judgement: Judgement,
        facts: &Facts,
        bodiless: bool,
    ) -> Option<Effect> {
        let role = ResultRole::Reads(plan.stored_result(facts, bodiless)?.to_owned());
        let reservation = Reservation::new(&self.id, plan, judgement, facts, bodiless, None, &self.memory);
        let mut reservation = Box::new(reservation);
        reservation.role = role;
        if plan.records_usage() {
            reservation.keep_record(facts, true);
        }
        if !reservation.has_room_for(0) {
            return Some(refused_memory(MemoryUse::Holds));
        }
        self.state = State::Admitted(reservation);
        None
    }

    /// Admits a request with limits from leases, or asks the adapter.
    fn with_holds(
        &mut self,
        plan: &Plan,
        judgement: Judgement,
        mut facts: Facts,
        bodiless: bool,
        body: Option<&ReadBody<'_>>,
        effects: &mut Vec<Effect>,
    ) {
        let cap = judgement.output_cap;
        let (id, reporting) = (&self.id, self.reporting);
        let reservation = Reservation::new(id, plan, judgement, &facts, bodiless, reporting, &self.memory);
        let mut reservation = Box::new(reservation);
        reservation.is_warm_up = self.is_warm_up;
        if self.is_recorded() {
            reservation.keep_record(&facts, plan.records_usage());
        }
        reservation.trace = self.trace.take();
        if !reservation.has_room_for(0) {
            let denial = refusal::overloaded(reservation.dialect);
            effects.extend([refused_memory(MemoryUse::Holds), Effect::Deny(denial)]);
            return;
        }
        // A dry run never refuses.
        let may_refuse = reservation.holds.iter().any(|hold| hold.enforced);
        if let Some(hiding) = facts.usage_hiding(bodiless)
            && may_refuse
            && reservation.asks_for_usage()
        {
            effects.extend(invalid(hiding.name(), hiding.message(), &facts));
            return;
        }
        if let Some(body) = body {
            match body.change(&mut facts, reservation.asks_for_usage(), cap) {
                Ok((changes, unasked)) => {
                    reservation.usage_unasked = unasked;
                    reservation.tells_usage = !unasked && reservation.asks_for_usage();
                    effects.extend(changes);
                }
                Err(_) if !may_refuse => {}
                Err(why) => {
                    effects.extend(invalid(why.name(), why.message(), &facts));
                    return;
                }
            }
        }
        if request_body::needs_plain_response(reservation.usage_unasked, reservation.may_be_cut(), &facts) {
            effects.push(Effect::SetRequestHeader("accept-encoding", "identity"));
        }
        // The adapter makes the span of a sampled request.
        let is_sampled = reservation.trace.as_ref().is_some_and(|trace| trace.is_sampled());
        let is_leased = !is_sampled && reservation.is_leased(&self.leases);
        let call = (!is_leased).then(|| reservation.reserve());
        if call.as_ref().is_some_and(|call| call.len() > LONGEST_CALL) {
            let policy = reservation.holds.first().map(|hold| hold.rate.policy.clone());
            effects.extend(refused_unasked(&policy.unwrap_or_default(), &facts));
            return;
        }
        if !reservation.keep(facts, &self.memory) {
            effects.push(refused_memory(MemoryUse::Facts));
        }
        match call {
            None => effects.extend(self.admitted(reservation)),
            Some(call) => {
                effects.push(Effect::Reserve(call));
                self.state = State::Waiting(reservation);
            }
        }
    }
}

/// Whether the policy does not limit the messages of WebSockets.
fn lets_messages_pass(hold: &Hold) -> bool {
    hold.rate.usage.web_socket == WebSocketMode::Allow && hold.rate.rate.unit.is_of_usage()
}

/// Refuses an invalid request, and counts it by its cause.
fn invalid(cause: &'static str, message: &str, facts: &Facts) -> [Effect; 2] {
    let denial = refusal::invalid_request(facts.dialect(), message);
    [Effect::Count(Metric::InvalidRequest(cause)), Effect::Deny(denial)]
}

/// Counts what could not be evaluated, and what was assumed instead.
fn counts(judgement: &Judgement, facts: &Facts) -> Vec<Effect> {
    let mut effects = failed_parts(&judgement.failures);
    effects.extend(judgement.assumed.iter().map(|failure| Effect::Count(Metric::evaluation(failure))));
    let of_body = body_in_doubt(&judgement.holds, facts);
    let doubts = judgement.doubts.iter().chain(&of_body);
    effects.extend(doubts.map(|doubt| Effect::Count(Metric::in_doubt(doubt))));
    effects
}

/// Counts each part of a policy that could not be evaluated.
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

/// Returns a doubt for each applicable limit that depends on a body that could not be read.
fn body_in_doubt(holds: &[Hold], facts: &Facts) -> Vec<Doubt> {
    let condition = facts.read_body().map(|body| body.condition).unwrap_or_default();
    let mut doubts: Vec<Doubt> = Vec::new();
    for hold in holds.iter().filter(|hold| hold.rate.reads_body && condition != Condition::Read) {
        let (policy, limit) = (hold.rate.policy.clone(), hold.rate.limit.clone());
        let doubt = Doubt { policy, limit, cause: DoubtCause::Body(condition), detail: String::new() };
        // The rates of one limit are adjacent.
        if doubts.last() != Some(&doubt) {
            doubts.push(doubt);
        }
    }
    doubts
}

/// Refuses a request that asks for more than one request may hold of this limit. There is no need to ask the
/// adapter.
fn over_share(hold: &Hold, facts: &Facts) -> Vec<Effect> {
    let (policy, limit) = (hold.rate.policy.to_string(), hold.rate.limit.clone());
    let (denial, failed) = refusal::over_share(hold, facts);
    let counts = [Metric::refused(hold), Metric::OverShare { policy, limit }].into_iter().chain(failed);
    counts.map(Effect::Count).chain([Effect::Deny(denial)]).collect()
}

/// Refuses a request to which more rates apply than one call to the adapter can carry.
fn refused_unasked(policy: &str, facts: &Facts) -> [Effect; 2] {
    let denial = refusal::unavailable(Some(policy), facts.dialect());
    [Effect::Count(Metric::FailedClosed("too_many_rates")), Effect::Deny(denial)]
}
