//! Computes the charge of each rate for an exchange, in the rate's unit, from the usage that its policy sees.

use super::reservation::Reservation;
use super::stored::{CreatedResult, ResultRole};
use super::{ActivePlan, Effect};
use crate::metric::{Metric, UsageSource};
use expression::facts::{Facts, ResponseFacts};
use llm::response::{Found, Pointers, Usage};
use policy::model::{OnMissing, Unit};
use policy::plan::{Hold, PolicyPart};
use std::sync::Arc;

impl Reservation {
    /// The pointers into the response's body that policies define.
    pub(super) fn pointers<'p>(&self, in_force: &'p ActivePlan) -> Option<&'p Arc<Pointers>> {
        let ActivePlan::Plan(plan) = in_force else { return None };
        let is_pointed = |hold: &Hold| hold.tokens.pointers.is_some() || hold.tokens.compute.is_some();
        let wanted = self.facts.is_some() || self.holds.iter().any(is_pointed);
        Some(plan.answered()).filter(|pointers| wanted && !pointers.is_empty())
    }

    /// Whether the response's body has to be read.
    pub(super) fn reads(&self, in_force: &ActivePlan) -> bool {
        let reads_result = matches!(self.role, ResultRole::Reads(_));
        self.counts_tokens() || reads_result || self.pointers(in_force).is_some()
    }

    /// Ends the exchange and charges its usage.
    pub(super) fn charge(&mut self, answer: ResponseFacts, source: UsageSource) -> Vec<Effect> {
        self.charge_with(answer, source, None)
    }

    /// Like `charge`, but the usage of `created` is charged when a client reads that result.
    pub(super) fn charge_with(
        &mut self,
        answer: ResponseFacts,
        source: UsageSource,
        created: Option<CreatedResult>,
    ) -> Vec<Effect> {
        let (known, code, finished) = (answer.usage, answer.code, answer.finished);
        let pointed = answer.pointed.clone();
        if let Some(facts) = &mut self.facts {
            facts.answer(answer);
        }
        let is_reported = source == UsageSource::Reported;
        let mut told = (known, source);
        let (mut charges, mut counts) = (Vec::with_capacity(self.holds.len()), Vec::new());
        for hold in &self.holds {
            // A custom format is read as its policy defines it, and is ignored for other policies.
            let own = hold.tokens.pointers.as_ref();
            let own = own.and_then(|own| own.usage(&pointed, known, is_reported));
            // The usage that was read before a cut may be incomplete.
            let own = own.map(|own| if finished { own } else { own.max(known) });
            let (usage, source) = own.map_or((known, source), |own| (own, UsageSource::Reported));
            if let Some(facts) = &mut self.facts {
                facts.usage(usage);
            }
            if own.is_some() {
                told = (usage, source);
            }
            let facts = self.facts.as_deref();
            let charging = Charging { usage: &usage, pointed: &pointed, source, finished, facts };
            let (charge, failed) = charging.of(hold);
            charges.push(charge);
            counts.extend(failed.map(Effect::Count));
        }
        let is_whole = told.1 == UsageSource::Reported && finished && created.is_none();
        if let Some(lesson) = self.lesson.take().filter(|_| code < 400) {
            lesson.learn(told.0.output, is_whole);
        }
        self.used = told.0;
        let mut effects = match &created {
            Some(result) => {
                told = (result.delivered, UsageSource::Deferred);
                let deferred = self.deferred(result);
                let park = self.park(&charges, &deferred, result);
                // The rest is charged when the result is seen.
                let now = deferred.iter().map(|charge| charge.as_ref().map(|charge| charge.now));
                charges.iter_mut().zip(now).for_each(|(charge, now)| *charge = now.unwrap_or(*charge));
                self.detach().into_iter().chain([park]).collect()
            }
            None => vec![self.commit(&charges)],
        };
        effects.append(&mut counts);
        effects.extend(self.record(told.0, told.1, code, &charges));
        effects.extend(self.settled_record(told, (code, finished), &charges, created));
        if self.counts_tokens() {
            effects.push(Effect::Count(Metric::Usage(told.1)));
        }
        if told.0.total > 0 {
            effects.push(Effect::Count(Metric::TokensCharged(told.0.total)));
        }
        effects
    }
}

/// The outcome of an admitted exchange.
#[derive(Clone, Copy)]
pub(super) struct Charging<'a> {
    /// The reported or estimated usage.
    pub(super) usage: &'a Usage,
    /// The values at the policies' pointers.
    pub(super) pointed: &'a Found,
    /// The source of the usage. A failed call uses nothing, even if the policy has a `cost`.
    pub(super) source: UsageSource,
    /// Whether the response ended normally.
    pub(super) finished: bool,
    /// The facts, the response's included, if there is a `cost`.
    pub(super) facts: Option<&'a Facts>,
}

impl Charging<'_> {
    /// The charge of one rate, and a metric if its `cost` or `tokenCompute` could not be evaluated. If tests in
    /// the `cost` failed, its largest possible value is charged; else the unit's own count.
    pub(super) fn of(&self, hold: &Hold) -> (u64, Option<Metric>) {
        let rate = &hold.rate.rate;
        if rate.unit.is_of_usage() {
            // A response that was cut is charged for the delivered output, regardless of `onMissing`.
            let missing = self.source == UsageSource::Estimated && self.finished;
            match hold.rate.usage.on_missing {
                _ if self.source == UsageSource::None => return (0, None),
                OnMissing::Zero if missing => return (0, None),
                OnMissing::Hold if missing => return (hold.amount, None),
                _ => {}
            }
        }
        let failed =
            |part: PolicyPart| Metric::Evaluation { policy: hold.rate.policy.to_string(), part: part.name() };
        if let Some(compute) = &hold.tokens.compute {
            return match compute.amount(self.pointed, self.usage, !self.finished) {
                Ok(amount) => (amount, None),
                Err(_) => (self.own(hold), Some(failed(PolicyPart::TokenCompute))),
            };
        }
        let Some(cost) = &rate.cost else { return (self.own(hold), None) };
        match self.facts.map(|facts| cost.amount(facts).map_err(|_| cost.largest_amount(facts))) {
            Some(Ok(amount)) => (amount, None),
            Some(Err(largest)) => (largest.unwrap_or_else(|| self.own(hold)), Some(failed(PolicyPart::Cost))),
            // There was no memory to keep the facts for the `cost`. The hold is the `cost` of the estimate.
            None => (self.own(hold).max(hold.amount), None),
        }
    }

    fn own(&self, hold: &Hold) -> u64 {
        match (hold.rate.rate.unit, hold.tariff) {
            (Unit::Requests, _) => 1,
            (Unit::Tokens, _) => self.usage.total,
            (Unit::InputTokens, _) => self.usage.input,
            (Unit::OutputTokens, _) => self.usage.output,
            (Unit::Usd, Some(tariff)) => tariff.cost(self.usage),
            // Only the `cost` determines the price, so the hold is the best approximation.
            (Unit::Usd, None) => hold.amount,
            // The hold ends with the reservation.
            (Unit::Concurrency, _) => 0,
        }
    }
}
