//! What a limit that applies would hold of each of its rates: how much, of which maximum, for how long.

use super::{Estimate, Failure, Hold, Judgement, Miss, Part, Planned, PlannedRate};
use crate::model::{DEFAULT_TTL, Limit, Maximum, Rate, Share, Tariff, Ttl, Unit, micro_usd};
use expression::cel::{EvaluationError, Expression, Given};
use expression::facts::Facts;
use protocol::call::Entries;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// The longest value of a counter that is told as it is, in bytes.
const LONGEST_VALUE: usize = 512;
/// How many characters of a longer one are shown.
const SHOWN: usize = 64;
/// A hold that lives shorter than this would be none.
const SHORTEST: Duration = Duration::from_secs(1);

/// A limit that applies, and whose bucket.
pub(super) struct Matching<'p> {
    planned: &'p Planned,
    pub limit: &'p Limit,
    /// With their maxima. Those that have none here are left out.
    rates: Vec<(&'p Arc<PlannedRate>, u64)>,
    bucket: Arc<Bucket>,
}

/// Whose it is: counter expressions and their values. Limits with the same counters share one.
pub(super) struct Bucket {
    counters: Arc<[(String, String)]>,
    entries: Entries,
}

/// The buckets of a request, as far as they are known.
#[derive(Default)]
pub(super) struct Buckets<'p>(Vec<(&'p [Expression], Arc<Bucket>)>);

impl<'p> Buckets<'p> {
    fn find(&mut self, planned: &Planned, limit: &'p Limit, facts: &Facts) -> Result<Arc<Bucket>, Failure> {
        let same = |(counters, _): &&(&[Expression], _)| {
            let sources = |all: &'p [Expression]| all.iter().map(Expression::source);
            sources(&limit.counters).eq(counters.iter().map(Expression::source))
        };
        if let Some((_, bucket)) = self.0.iter().find(same) {
            return Ok(bucket.clone());
        }
        let mut entries = Entries::default();
        let value = |counter: &Expression| match counter.text(facts) {
            Ok(value) => {
                let value = short(value);
                entries.push(counter.source(), &value);
                Ok((counter.source().to_owned(), value))
            }
            Err(error) => Err(planned.failure(Some(limit), Part::Counter, &error)),
        };
        let counters = limit.counters.iter().map(value).collect::<Result<_, _>>()?;
        let bucket = Arc::new(Bucket { counters, entries });
        self.0.push((&limit.counters, bucket.clone()));
        Ok(bucket)
    }
}

/// A value that is longer than any name is the bucket of its digest: a client could otherwise make the call to the adapter
/// too long, and with it the adapter's memory.
fn short(value: String) -> String {
    if value.len() <= LONGEST_VALUE {
        return value;
    }
    let beginning: String = value.chars().take(SHOWN).collect();
    format!("{beginning}...sha256:{:x}", Sha256::digest(&value))
}

impl<'p> Matching<'p> {
    /// Of a limit whose predicates hold: to whom it applies.
    pub fn of(
        planned: &'p Planned,
        limit: &'p Limit,
        rates: &'p [Arc<PlannedRate>],
        facts: &Facts,
        buckets: &mut Buckets<'p>,
    ) -> Result<Self, Miss> {
        let failed = |error| Miss::Failed(planned.failure(Some(limit), Part::Maximum, &error));
        let with_maximum = |rate: &'p Arc<PlannedRate>| match maximum(&rate.rate, facts) {
            Ok(max) => max.map(|max| Ok((rate, max))),
            Err(error) => Some(Err(failed(error))),
        };
        let rates = rates.iter().filter_map(with_maximum).collect::<Result<Vec<_>, _>>()?;
        if rates.is_empty() {
            return Err(Miss::NoMaximum);
        }
        let bucket = buckets.find(planned, limit, facts).map_err(Miss::Failed)?;
        Ok(Self { planned, limit, rates, bucket })
    }

    /// The smallest maximum that bounds what the response may say.
    pub fn smallest_output_limit(&self) -> Option<u64> {
        let bounds = |unit| matches!(unit, Unit::Tokens | Unit::OutputTokens);
        self.rates.iter().filter(|(rate, _)| bounds(rate.rate.unit)).map(|(_, max)| *max).min()
    }

    /// Adds one hold for each rate, or none, and what cannot be evaluated and is assumed. A call that `is_free` uses
    /// no tokens, and holds none: only a `cost` charges it.
    pub fn hold(
        &self,
        facts: &Facts,
        estimate: Estimate,
        is_free: bool,
        judgement: &mut Judgement,
    ) -> Result<(), Failure> {
        let mut assumed = |part, error: &EvaluationError| {
            judgement.assumed.push(self.planned.failure(Some(self.limit), part, error));
        };
        // What a client's numbers may make fail is held as if the policy had said nothing of it.
        let given =
            self.limit.amount.as_ref().and_then(|amount| {
                amount.amount(facts).inspect_err(|error| assumed(Part::Amount, error)).ok()
            });
        let ttl = match &self.limit.ttl {
            Ttl::Fixed(ttl) => *ttl,
            Ttl::From(ttl) => {
                let life = ttl.life(facts).inspect_err(|error| assumed(Part::Ttl, error));
                life.unwrap_or(DEFAULT_TTL).max(SHORTEST)
            }
        };
        let is_enforced = self.is_enforced(facts, &mut judgement.assumed);
        let before = judgement.holds.len();
        for (rate, max) in &self.rates {
            if is_free && rate.rate.unit.is_of_usage() && rate.rate.cost.is_none() {
                continue;
            }
            let tariff = self.tariff(&rate.rate, facts).inspect_err(|_| judgement.holds.truncate(before))?;
            judgement.holds.push(Hold {
                rate: Arc::clone(rate),
                counters: Arc::clone(&self.bucket.counters),
                entries: rate.entries.with(&self.bucket.entries),
                amount: amount(&rate.rate, given, tariff, estimate, facts),
                max: *max,
                most: self.most(&rate.rate, *max),
                ttl,
                enforced: is_enforced,
                tariff,
            });
        }
        Ok(())
    }

    /// What one request may hold of a rate, if it may not hold all.
    fn most(&self, rate: &Rate, max: u64) -> Option<(u64, Share)> {
        let share = self.limit.max_share.filter(|_| rate.unit.is_of_usage())?;
        Some((share.of(max), share))
    }

    /// An absent value cannot lift a limit, and neither can what has no value at all.
    fn is_enforced(&self, facts: &Facts, assumed: &mut Vec<Failure>) -> bool {
        match self.limit.enforce_when.as_ref().map(|when| when.predicate(facts)) {
            None | Some(Ok(true) | Err(EvaluationError::Absent(_))) => true,
            Some(Ok(false)) => false,
            Some(Err(error)) => {
                assumed.push(self.planned.failure(Some(self.limit), Part::Enforcement, &error));
                true
            }
        }
    }

    /// What the model's tokens cost, where that is needed.
    fn tariff(&self, rate: &Rate, facts: &Facts) -> Result<Option<Tariff>, Failure> {
        if rate.unit != Unit::Usd || rate.cost.is_some() {
            return Ok(None);
        }
        let model = facts.model().unwrap_or_default();
        let price = self.planned.policy.prices.iter().find(|price| price.is_for(&model));
        let missing = || {
            let error = EvaluationError::Failed("there is none for this model".to_owned());
            self.planned.failure(Some(self.limit), Part::Price, &error)
        };
        price.map(|price| Some(price.tariff)).ok_or_else(missing)
    }
}

/// What may be used of a rate in all; `None`: it is not limited. An absent `auth` or header value says so, too.
fn maximum(rate: &Rate, facts: &Facts) -> Result<Option<u64>, EvaluationError> {
    let expression = match &rate.max {
        Maximum::Fixed(max) => return Ok(Some(*max)),
        Maximum::From(expression) => expression,
    };
    let given = match expression.maximum(facts) {
        Err(EvaluationError::Absent(_)) => return Ok(None),
        given => given?,
    };
    // As in `limit`, money is in USD.
    let usd = rate.unit == Unit::Usd;
    let unsuitable =
        |needed: &str| Err(EvaluationError::Failed(format!("the value is a string, and must be {needed}")));
    match given {
        Given::Nothing => Ok(None),
        Given::Whole(max) => Ok(Some(if usd { max.saturating_mul(1_000_000) } else { max })),
        // A cast saturates.
        Given::Number(max) => Ok(Some(if usd { (max * 1e6).round() as u64 } else { max as u64 })),
        Given::Text(max) if usd => match micro_usd(&max) {
            Some(max) => Ok(Some(max)),
            None => unsuitable("an amount of USD such as `5.00`"),
        },
        Given::Text(_) => unsuitable("a number, or null"),
    }
}

/// What to hold: what is given, or what the estimate would be charged.
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
    // A cost that needs the response itself, such as a header, says nothing yet.
    let cost = |cost: &Expression| cost.amount(facts).ok();
    given.or_else(|| rate.cost.as_ref().and_then(cost)).unwrap_or_else(own).max(1)
}
