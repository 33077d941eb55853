//! Computes the hold of an applicable limit for each of its rates: the amount, the maximum and the lifetime.

use super::bucket::{BucketsNumber, RequestBuckets};
use super::learned::OutputKey;
use super::precedence::Effective;
use super::{
    CompiledPolicy, Doubt, DoubtCause, Estimate, Failure, Hold, Judgement, Miss, PlannedRate, PolicyPart,
    TokenRules,
};
use crate::model::{DEFAULT_TTL, Limit, Maximum, Rate, Share, Tariff, Ttl, Unit, micro_usd, price};
use expression::cel::{EvaluationError, Expression, LimitValue};
use expression::facts::Facts;
use llm::request::MaximumFields;
use std::sync::Arc;
use std::time::Duration;

/// The minimum lifetime of a hold. A shorter hold would be useless.
const SHORTEST: Duration = Duration::from_secs(1);

/// A limit that applies, and its buckets.
pub(super) struct Matching<'p> {
    planned: &'p CompiledPolicy,
    pub limit: &'p Limit,
    tokens: TokenRules,
    /// The rates that have a maximum for this request, with their maxima.
    rates: Vec<(&'p Arc<PlannedRate>, u64)>,
    /// The `limitFrom` expressions that did not produce a maximum.
    pub failures: Vec<Failure>,
    /// The `limitFrom` expressions with a maximum that is assumed.
    assumed: Vec<Failure>,
    buckets: BucketsNumber,
    pub doubts: Vec<Doubt>,
}

impl<'p> Matching<'p> {
    /// Creates the state of a limit with predicates that are all true.
    pub fn of(
        effective: &Effective<'p>,
        limit: &'p Limit,
        rates: &'p [Arc<PlannedRate>],
        facts: &Facts,
        buckets: &mut RequestBuckets<'p>,
    ) -> Result<Self, Miss> {
        let planned = effective.planned;
        let mut failures = Vec::new();
        let mut assumed = Vec::new();
        let failure = |error: &EvaluationError| planned.failure(limit, PolicyPart::Maximum, error);
        let failed = |error| failures.push(failure(&error));
        let rates = with_maxima(rates, facts, failed, |error| assumed.push(failure(error)));
        if rates.is_empty() {
            return Err(failures.into_iter().next().map_or(Miss::NoMaximum, Miss::Failed));
        }
        let own = buckets.find(limit, facts);
        let doubt = |(cause, detail): &(DoubtCause, String)| planned.doubt(limit, *cause, detail.clone());
        let doubts = buckets.doubts(own).iter().map(doubt).collect();
        let tokens = TokenRules::of(effective);
        Ok(Self { planned, limit, tokens, rates, failures, assumed, buckets: own, doubts })
    }

    /// The smallest maximum of the rates that limit the response's length.
    pub fn smallest_output_limit(&self) -> Option<u64> {
        self.rates.iter().filter(|(rate, _)| rate.rate.unit.bounds_output()).map(|(_, max)| *max).min()
    }

    /// Returns the key under which the limit's outputs are learned. `None` if the policy defines the hold, or if
    /// the hold caps the output: then responses would be cut at the length of earlier ones.
    pub fn output_key(&self, model: &str, maximum: MaximumFields) -> Option<OutputKey> {
        let (first, _) = self.rates.first()?;
        let is_learned = self.limit.amount.is_none() && (maximum.is_any() || !first.caps_output);
        let holds_output = self.rates.iter().any(|(rate, _)| rate.rate.unit.is_of_usage());
        (is_learned && holds_output).then(|| OutputKey::new(&first.policy, &first.limit, model, maximum))
    }

    /// Returns the most that each rate holds if the output is a learned one: what it would hold otherwise, or an
    /// eighth of its maximum. So the long responses of some users do not keep others from their limits.
    pub fn bounds(&self, facts: &Facts, estimate: Estimate) -> Vec<u64> {
        let bound = |(rate, max): &(&Arc<PlannedRate>, u64)| {
            let tariff = tariff_of(&rate.rate, self.planned, facts).map(|(tariff, _)| tariff);
            self.amount_of(rate, None, tariff, estimate, facts).max(*max / 8)
        };
        self.rates.iter().map(bound).collect()
    }

    /// Adds a hold for each rate in each bucket, at most its bound, and the parts that could not be evaluated. A
    /// call that `is_free` uses no tokens and holds none; only a `cost` charges it.
    pub fn hold(
        mut self,
        buckets: &RequestBuckets<'_>,
        facts: &Facts,
        estimate: Estimate,
        bounds: &[u64],
        is_free: bool,
        judgement: &mut Judgement,
    ) {
        judgement.assumed.append(&mut self.assumed);
        let mut assumed = |part, error: &EvaluationError| {
            judgement.assumed.push(self.planned.failure(self.limit, part, error));
        };
        // If a client's numbers make it fail, the estimate is held, as if there were no `reservation.amount`.
        let given = self.limit.amount.as_ref().and_then(|amount| {
            amount.amount(facts).inspect_err(|error| assumed(PolicyPart::Amount, error)).ok()
        });
        let ttl = match &self.limit.ttl {
            Ttl::Fixed(ttl) => *ttl,
            Ttl::From(ttl) => {
                let life = ttl.life(facts).inspect_err(|error| assumed(PolicyPart::Ttl, error));
                life.unwrap_or(DEFAULT_TTL).max(SHORTEST)
            }
        };
        let is_enforced = self.is_enforced(facts, &mut judgement.assumed);
        let signal = self.limit.boundary.signal().filter(|_| is_enforced);
        let refuses = is_enforced && !self.limit.boundary.is_soft();
        for (at, (rate, max)) in self.rates.iter().enumerate() {
            if is_free && rate.rate.unit.is_of_usage() && rate.rate.cost.is_none() {
                continue;
            }
            let tariff = tariff_of(&rate.rate, self.planned, facts);
            if let Some((_, Some(detail))) = &tariff {
                self.doubts.push(self.planned.doubt(self.limit, DoubtCause::Price, detail.clone()));
            }
            let tariff = tariff.map(|(tariff, _)| tariff);
            let tokens = self.tokens.for_rate(rate.rate.unit, rate.rate.cost.is_some());
            let amount = self.amount_of(rate, given, tariff, estimate, facts);
            let amount = bounds.get(at).map_or(amount, |bound| amount.min(*bound));
            let buckets = buckets.buckets(self.buckets);
            judgement.holds.extend(buckets.iter().map(|bucket| Hold {
                rate: Arc::clone(rate),
                counters: Arc::clone(&bucket.counters),
                entries: rate.entries.with(&bucket.entries),
                amount,
                max: *max,
                most: self.most(&rate.rate, *max),
                ttl,
                enforced: refuses,
                signal: signal.cloned(),
                tariff,
                tokens: tokens.clone(),
            }));
        }
        judgement.doubts.append(&mut self.doubts);
    }

    /// Returns how much a rate holds: the given amount, or what the estimate would be charged.
    fn amount_of(
        &self,
        rate: &PlannedRate,
        given: Option<u64>,
        tariff: Option<Tariff>,
        estimate: Estimate,
        facts: &Facts,
    ) -> u64 {
        let compute = self.tokens.compute_for(rate.rate.unit, rate.rate.cost.is_some());
        let computed = || compute?.amount(&Vec::new(), &estimate.usage(), false).ok();
        amount(&rate.rate, given.or_else(computed), tariff, estimate, facts)
    }

    /// Returns the maximum amount of a rate that one request may hold, if there is one.
    fn most(&self, rate: &Rate, max: u64) -> Option<(u64, Share)> {
        let share = self.limit.max_share.filter(|_| rate.unit.is_of_usage())?;
        Some((share.of(max), share))
    }

    /// Evaluates `enforceWhen`. An absent value or a failure does not turn enforcement off.
    fn is_enforced(&self, facts: &Facts, assumed: &mut Vec<Failure>) -> bool {
        let Some(when) = &self.limit.enforce_when else { return true };
        match when.predicate(facts) {
            Ok(enforced) => enforced || !when.is_surely_false(facts),
            Err(error) => {
                assumed.push(self.planned.failure(self.limit, PolicyPart::Enforcement, &error));
                true
            }
        }
    }
}

/// Returns the rates that have a maximum for this request. Calls `failed` for each rate with a maximum that
/// cannot be evaluated, and `assumed` for each with a maximum that is assumed.
fn with_maxima<'p>(
    rates: &'p [Arc<PlannedRate>],
    facts: &Facts,
    mut failed: impl FnMut(EvaluationError),
    mut assumed: impl FnMut(&EvaluationError),
) -> Vec<(&'p Arc<PlannedRate>, u64)> {
    let maximum = |rate: &'p Arc<PlannedRate>| match maximum(&rate.rate, facts, &mut assumed) {
        Ok(max) => max.map(|max| (rate, max)),
        Err(error) => {
            failed(error);
            None
        }
    };
    rates.iter().filter_map(maximum).collect()
}

/// Returns the price of the model's tokens, if it is needed, and a doubt if no price matches and the highest
/// applies.
fn tariff_of(rate: &Rate, planned: &CompiledPolicy, facts: &Facts) -> Option<(Tariff, Option<String>)> {
    if rate.unit != Unit::Usd || rate.cost.is_some() {
        return None;
    }
    let prices = &planned.policy.prices;
    let model = facts.asked_model();
    let own = model.as_ref().ok().and_then(|model| price::of(prices, model));
    let detail = || match &model {
        Ok(model) if model.is_empty() => "no model is named".to_owned(),
        Ok(_) => "no price is for the model".to_owned(),
        Err(why) => (*why).to_owned(),
    };
    Some(own.map_or_else(|| (price::dearest(prices), Some(detail())), |own| (own, None)))
}

/// Returns the rate's maximum for this request. `None` if there is no limit, for example because `auth` or a
/// header is absent. If tests in the expression fail, for example because the body is too long to be read, the
/// smallest of the possible maxima applies. It is 0 if there is none, but the expression uses a fact that is
/// unknown. In both cases, `assumed` is called with the error.
fn maximum(
    rate: &Rate,
    facts: &Facts,
    assumed: &mut impl FnMut(&EvaluationError),
) -> Result<Option<u64>, EvaluationError> {
    let expression = match &rate.max {
        Maximum::Fixed(max) => return Ok(Some(*max)),
        Maximum::From(expression) => expression,
    };
    let own = expression.maximum(facts).and_then(|given| in_unit(rate.unit, given));
    let error = match own {
        Ok(max) => return Ok(max),
        Err(EvaluationError::Absent(_)) => return Ok(None),
        Err(error) => error,
    };
    let possible = expression.possible_maxima(facts).into_iter();
    let smallest = possible.filter_map(|given| in_unit(rate.unit, given).ok().flatten()).min();
    let smallest = smallest.or_else(|| expression.is_in_doubt(facts).then_some(0));
    smallest.is_some().then(|| assumed(&error));
    smallest.map(Some).ok_or(error)
}

/// Converts the value of a `limitFrom` to a maximum in this unit.
fn in_unit(unit: Unit, given: LimitValue) -> Result<Option<u64>, EvaluationError> {
    let failed = |needed: &str| Err(EvaluationError::Failed(format!("the value must be {needed}")));
    // Amounts of money are in USD, as in `limit`.
    if unit == Unit::Usd {
        return match given {
            LimitValue::Nothing => Ok(None),
            LimitValue::Whole(max) => Ok(Some(max.saturating_mul(1_000_000))),
            // The cast saturates.
            LimitValue::Number(max) => Ok(Some((max * 1e6).round() as u64)),
            LimitValue::Text(max) => match micro_usd(&max) {
                Some(max) => Ok(Some(max)),
                None => failed("an amount of USD such as `5.00`, or null"),
            },
        };
    }
    match given {
        LimitValue::Nothing => Ok(None),
        LimitValue::Whole(max) => Ok(Some(max)),
        LimitValue::Number(max) if max.fract() == 0.0 => Ok(Some(max as u64)),
        LimitValue::Text(max) if max.bytes().all(|byte| byte.is_ascii_digit()) && !max.is_empty() => {
            // A number that is too large for an integer counts as the largest integer.
            Ok(Some(max.parse().unwrap_or(u64::MAX)))
        }
        LimitValue::Number(_) | LimitValue::Text(_) => failed("a whole number, 0 or more, or null"),
    }
}

/// Returns how much to hold: the given amount, or the charge for the estimate.
fn amount(rate: &Rate, given: Option<u64>, tariff: Option<Tariff>, estimate: Estimate, facts: &Facts) -> u64 {
    let own = || match (rate.unit, tariff) {
        (Unit::Requests | Unit::Concurrency, _) => 1,
        (Unit::InputTokens, _) => estimate.input,
        (Unit::OutputTokens, _) => estimate.output,
        (Unit::Usd, Some(tariff)) => tariff.cost(&estimate.usage()),
        (Unit::Usd, None) => 1,
        (Unit::Tokens, _) => estimate.total(),
    };
    if !rate.unit.is_of_usage() {
        return 1;
    }
    // A cost that needs the response itself, for example a header, is not known yet.
    let cost = |cost: &Expression| cost.largest_amount(facts);
    given.or_else(|| rate.cost.as_ref().and_then(cost)).unwrap_or_else(own).max(1)
}
