//! Results that a provider stores. If a request creates one in the background, its holds remain until any
//! gateway sees the result's usage. Reading a result costs nothing, and its usage is reported.

use super::Effect;
use super::charging::Charging;
use super::reservation::{Reservation, estimated};
use crate::metric::UsageSource;
use crate::outbox::Settlement;
use expression::facts::ResponseFacts;
use llm::response::{CHARACTERS_PER_TOKEN, Found, MeterReading, StoredAnswer, Usage};
use policy::model::{Unit, UsageCost};
use policy::plan::Hold;
use protocol::call::{self, MAX_RESULT_ID};
use protocol::wire::envoy::extensions::common::ratelimit::v3::DeferredCharge;
use protocol::wire::kuadrant::service::ratelimit::v1::{ParkedResult, SeenResult};

/// How a request relates to a stored result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ResultRole {
    /// It has no relation to a stored result.
    #[default]
    None,
    /// It may create a result in the background. `asked` is true if its body or path requests this.
    Creates { asked: bool },
    /// It reads the result with this id.
    Reads(String),
}

/// A result that a request has created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreatedResult {
    pub(super) id: String,
    /// The charge now: nothing, if the provider will report all usage later.
    pub(super) delivered: Usage,
}

impl ResultRole {
    /// Returns the result that a response without usage promises. A complete response already contains its
    /// result, even if the request asked for a background result.
    pub(super) fn created(
        &self,
        stored: &StoredAnswer,
        reading: &MeterReading,
        input: u64,
        finished: bool,
    ) -> Option<CreatedResult> {
        let Self::Creates { asked } = *self else { return None };
        let in_background = asked || stored.is_in_background();
        // The provider itself announces that the usage will follow. A client can disconnect from a stream
        // after any event, so an incomplete response promises nothing.
        let promised = finished && (stored.is_pending() || stored.is_announced() && reading.delivered == 0);
        let unfinished = in_background && (!finished || reading.delivered == 0);
        let is_later = promised || unfinished;
        let id = stored.id().filter(|id| id.len() <= MAX_RESULT_ID && is_later && !reading.ended_in_error)?;
        // The provider has the input, and the delivered output has been sent.
        let delivered = estimated(input, reading.delivered.div_ceil(CHARACTERS_PER_TOKEN));
        let delivered = if promised { Usage::default() } else { delivered };
        Some(CreatedResult { id: id.to_owned(), delivered })
    }

    /// Returns the part of the result that the response contains, if the request reads one. `whole` is true
    /// if the result is complete.
    pub(super) fn seen(
        &self,
        stored: &StoredAnswer,
        reading: &MeterReading,
        whole: bool,
    ) -> Option<SeenResult> {
        let Self::Reads(id) = self else { return None };
        if reading.other_unit || id.len() > MAX_RESULT_ID {
            return None;
        }
        let reported = reading.usage.filter(|usage| usage.total > 0);
        let delivered = reading.delivered.div_ceil(CHARACTERS_PER_TOKEN);
        let (usage, partial) = match reported {
            Some(usage) if whole => (reading.completed(usage, 0), usage.input == 0),
            Some(_) => (reading.usage_if_cut().unwrap_or_default(), true),
            None => (estimated(0, delivered), true),
        };
        let is_over = stored.has_failed() || stored.is_cancelled();
        let ends = whole && !stored.is_pending() && (reported.is_some() || is_over || delivered > 0);
        if usage.total == 0 && !ends {
            return None;
        }
        // A failed call costs nothing.
        let partial = partial && !(stored.has_failed() && usage.total == 0);
        Some(SeenResult {
            id: id.clone(),
            partial,
            input: usage.input,
            cached: usage.cached,
            cache_write: usage.cache_write,
            cache_write_1h: usage.cache_write_1h,
            output: usage.output,
            reasoning: usage.reasoning,
            total: usage.total,
            ends,
        })
    }
}

impl CreatedResult {
    pub(super) fn parked(&self, input: u64) -> ParkedResult {
        ParkedResult { id: self.id.clone(), input }
    }
}

impl Reservation {
    /// Ends the read of a result, which costs no tokens, and reports the usage that it showed.
    pub(super) fn charge_reader(&mut self, answer: ResponseFacts, seen: Option<SeenResult>) -> Vec<Effect> {
        let mut effects = self.charge(answer, UsageSource::None);
        for effect in &mut effects {
            if let Effect::Commit(Settlement { message, .. }) = effect {
                seen.iter().for_each(|seen| call::add_seen(message, seen.clone()));
            }
        }
        if self.holds.is_empty() && seen.is_none() {
            effects.retain(|effect| !matches!(effect, Effect::Commit(_)));
        }
        effects.extend(seen.and_then(|seen| self.record_of_seen(seen)));
        effects
    }

    /// Returns what each rate is charged for the created result: a part now, and the rest when its usage is
    /// seen.
    pub(super) fn deferred(&mut self, result: &CreatedResult) -> Vec<Option<DeferredCharge>> {
        (0..self.holds.len()).map(|at| self.deferred_in(at, result)).collect()
    }

    fn deferred_in(&mut self, at: usize, result: &CreatedResult) -> Option<DeferredCharge> {
        let cost = self.usage_cost(at)?;
        let usage = &result.delivered;
        let hold = self.holds.get(at)?;
        if let Some(facts) = &mut self.facts {
            facts.usage(*usage);
        }
        let source = UsageSource::Estimated;
        let (facts, pointed) = (self.facts.as_deref(), &Found::new());
        let charging = Charging { usage, pointed, source, finished: false, facts };
        let now = if usage.total > 0 { charging.of(hold).0 } else { 0 };
        let UsageCost { base, tariff, reasoning } = cost;
        Some(DeferredCharge {
            now,
            base,
            input: tariff.input,
            cached: tariff.cached,
            cache_write: tariff.cache_write,
            cache_write_1h: tariff.cache_write_1h,
            output: tariff.output,
            reasoning,
        })
    }

    /// The cost of usage in one rate, as far as it can be determined without the response. A `cost` that is
    /// not linear costs what was held.
    fn usage_cost(&mut self, at: usize) -> Option<UsageCost> {
        let Self { holds, facts, .. } = self;
        let hold = holds.get(at).filter(|hold| hold.rate.rate.unit.is_of_usage())?;
        if let Some(compute) = &hold.tokens.compute {
            let amount = |usage: &Usage| compute.amount(&Found::new(), usage, false).ok();
            return Some(match amount(&Usage::default()) {
                Some(_) => UsageCost::fitted(amount).unwrap_or_else(|| UsageCost::fixed(hold.amount)),
                None => own_cost(hold),
            });
        }
        let Some(cost) = &hold.rate.rate.cost else { return Some(own_cost(hold)) };
        let Some(facts) = facts else { return Some(UsageCost::fixed(hold.amount)) };
        let mut amount = |usage: &Usage| {
            facts.usage(*usage);
            cost.largest_amount(facts)
        };
        if amount(&Usage::default()).is_none() {
            return Some(own_cost(hold));
        }
        Some(UsageCost::fitted(amount).unwrap_or_else(|| UsageCost::fixed(hold.amount)))
    }
}

/// The unit's own cost, without a `cost` expression.
fn own_cost(hold: &Hold) -> UsageCost {
    match (hold.rate.rate.unit, hold.tariff) {
        (Unit::Tokens, _) => UsageCost::tokens(true, true),
        (Unit::InputTokens, _) => UsageCost::tokens(true, false),
        (Unit::OutputTokens, _) => UsageCost::tokens(false, true),
        (Unit::Usd, Some(tariff)) => UsageCost::from(tariff),
        (Unit::Usd, None) => UsageCost::fixed(hold.amount),
        (Unit::Requests | Unit::Concurrency, _) => UsageCost::fixed(0),
    }
}
