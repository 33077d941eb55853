//! The calls that need room in buckets.

use super::arguments::{amount, charge_at, flag, held, numbers_of_attempt, terms, warn_rule};
use super::library::Function;
use super::{RedisLedger, key_name};
use crate::ledger::moment::Moment;
use crate::ledger::sharded::shard::Attempt;
use crate::ledger::{Hit, Hold, Idempotency, LedgerOutcome, Raised, RaisedHold, Unavailable, When};
use std::time::Duration;

/// The maximum lifetime of a hold.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl RedisLedger {
    /// Holds every amount, or none. `attempt` is present if the reservation is in several shards.
    pub(super) async fn hold(
        &self,
        id: &str,
        holds: Vec<Hold>,
        attempt: Option<Attempt>,
        now: Moment,
    ) -> Result<LedgerOutcome, Unavailable> {
        let keys = self.keys_of_call([self.names.reservation(id)], holds.iter().map(|hold| &hold.key));
        let attempt = attempt.map(|attempt| numbers_of_attempt(&attempt)).unwrap_or_default();
        let run = |server: Duration| {
            let mut arguments = vec![holds.len().to_string(), attempt.clone()];
            for hold in &holds {
                let terms = terms([
                    key_name::window_at(&hold.key.window, server),
                    amount(hold.max),
                    hold.ttl.min(YEAR).as_millis().to_string(),
                    flag(hold.enforced),
                    charge_at(hold, server),
                    warn_rule(&hold.warn_at),
                ]);
                arguments.extend([terms, held(hold)]);
            }
            self.run_in_batch(&self.batches.reserve, &keys, arguments, now)
        };
        let mut answer = self.run_by_calendar(now, run).await?;
        let admitted = answer.next()? > 0;
        let idempotency = match answer.next()? {
            0 => Idempotency::First,
            1 => Idempotency::Repeated,
            _ => Idempotency::Late,
        };
        let statuses = answer.statuses(holds.iter().map(|hold| (hold.max, hold.enforced)))?;
        self.report(answer, holds.iter().map(|hold| &hold.key))?;
        Ok(LedgerOutcome { admitted, idempotency, statuses })
    }

    /// Raises the holds of a reservation, even if there is no room.
    pub(super) async fn raise_holds(
        &self,
        id: &str,
        holds: Vec<RaisedHold>,
        now: Moment,
    ) -> Result<Raised, Unavailable> {
        let keys = self.keys([self.names.reservation(id)], holds.iter().map(|hold| &hold.key));
        let mut arguments = vec![self.time(now)];
        for hold in &holds {
            arguments.extend([amount(hold.total), amount(hold.max), flag(hold.enforced)]);
        }
        Ok(match self.run(Function::Raise, &keys, &arguments).await?.next()? {
            0 => Raised::Held,
            1 => Raised::OutOfRoom,
            _ => Raised::Unknown,
        })
    }

    /// Checks and charges without a hold.
    pub(super) async fn check(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        let keys = self.keys_of_call([], hits.iter().map(|hit| &hit.key));
        let run = |server: Duration| {
            let mut arguments = vec![hits.len().to_string()];
            for hit in &hits {
                let terms = terms([
                    key_name::window_at(&hit.key.window, server),
                    amount(hit.max),
                    flag(hit.when == When::Always),
                    flag(hit.enforced),
                    warn_rule(&hit.warn_at),
                ]);
                arguments.extend([terms, amount(hit.need.max(1)), amount(hit.charge)]);
            }
            self.run_in_batch(&self.batches.hit, &keys, arguments, now)
        };
        let mut answer = self.run_by_calendar(now, run).await?;
        let admitted = answer.next()? > 0;
        let statuses = answer.statuses(hits.iter().map(|hit| (hit.max, hit.enforced)))?;
        self.report(answer, hits.iter().map(|hit| &hit.key))?;
        Ok(LedgerOutcome { admitted, idempotency: Idempotency::First, statuses })
    }
}
