//! What a rate is charged for an exchange, in its own unit.

use crate::count::{Count, UsageSource};
use crate::facts::Facts;
use crate::meter::Usage;
use crate::model::{OnMissing, Unit};
use crate::plan::{Hold, Part};

/// What an exchange that went on came to.
#[derive(Clone, Copy)]
pub(super) struct Spent<'a> {
    /// Reported or estimated.
    pub usage: &'a Usage,
    /// Where that comes from. A call that failed uses nothing, whatever a `cost` says of usage.
    pub source: UsageSource,
    /// The response came to its own end.
    pub finished: bool,
    /// With the answer's, where there is a `cost`.
    pub facts: Option<&'a Facts>,
}

impl Spent<'_> {
    /// The charge of one rate, and what is to be counted if its `cost` has no value: then it is charged without it.
    pub fn of(&self, hold: &Hold) -> (u64, Option<Count>) {
        let rate = &hold.rate.rate;
        if rate.unit.is_of_usage() {
            // What was cut is charged for what came, whatever is said of answers without usage.
            let missing = self.source == UsageSource::Estimated && self.finished;
            match hold.rate.usage.on_missing {
                _ if self.source == UsageSource::None => return (0, None),
                OnMissing::Zero if missing => return (0, None),
                OnMissing::Hold if missing => return (hold.amount, None),
                _ => {}
            }
        }
        match rate.cost.as_ref().zip(self.facts).map(|(cost, facts)| cost.amount(facts)) {
            Some(Ok(amount)) => (amount, None),
            Some(Err(_)) => {
                let policy = hold.rate.policy.to_string();
                (self.own(hold), Some(Count::Evaluation { policy, part: Part::Cost.name() }))
            }
            None => (self.own(hold), None),
        }
    }

    fn own(&self, hold: &Hold) -> u64 {
        match (hold.rate.rate.unit, hold.tariff) {
            (Unit::Requests, _) => 1,
            (Unit::Tokens, _) => self.usage.total,
            (Unit::InputTokens, _) => self.usage.input,
            (Unit::OutputTokens, _) => self.usage.output,
            (Unit::Usd, Some(tariff)) => tariff.cost(self.usage),
            // Only a `cost` knows the price: what was held is the best that is known.
            (Unit::Usd, None) => hold.amount,
            // What it held goes with the reservation.
            (Unit::Concurrency, _) => 0,
        }
    }
}
