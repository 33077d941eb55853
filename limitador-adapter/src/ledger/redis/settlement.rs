//! The ends of reservations.

use super::arguments::{charged, created, terms, warn_rule};
use super::reply::FunctionReply;
use super::{RedisLedger, key_name};
use crate::ledger::moment::Moment;
use crate::ledger::sharded::shard::SettledPart;
use crate::ledger::stored::{CreationCharge, DeferredCharge, Parking, StoredResult};
use crate::ledger::{Charge, Settled, Unavailable};
use std::time::Duration;

impl RedisLedger {
    /// Ends a reservation and makes its charges.
    pub(super) async fn settle(
        &self,
        id: &str,
        charges: Vec<Charge>,
        now: Moment,
    ) -> Result<SettledPart, Unavailable> {
        let all = charges.iter().map(|charge| (charge, None));
        let mut answer = self.end(id, None, all, now).await?;
        let settled = match answer.next()? {
            0 => Settled::Released,
            1 => Settled::Charged,
            _ => Settled::AlreadySettled,
        };
        let shards = answer.shards()?;
        self.report(answer, charges.iter().map(|charge| &charge.key))?;
        Ok(SettledPart { settled, shards })
    }

    /// Ends a reservation that created a background result. Its charges may be deferred.
    pub(super) async fn settle_deferring(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        let all = charges.iter().map(|one| (&one.charge, one.deferred));
        let mut answer = self.end(id, Some(&result), all, now).await?;
        let parking = answer.next()?;
        answer.shards()?;
        let parking = match parking {
            2 => Parking::AlreadySettled,
            3 => {
                let seen = answer.deferred(charges.iter().filter(|one| one.deferred.is_some()))?;
                Parking::Parked(seen)
            }
            _ => Parking::Charged,
        };
        self.report(answer, charges.iter().map(|one| &one.charge.key))?;
        Ok(parking)
    }

    /// Ends a reservation. If it created a result, some of its charges are deferred.
    async fn end<'a>(
        &self,
        id: &str,
        result: Option<&StoredResult>,
        charges: impl Iterator<Item = (&'a Charge, Option<DeferredCharge>)> + Clone,
        now: Moment,
    ) -> Result<FunctionReply, Unavailable> {
        let keys =
            self.keys_of_call([self.names.reservation(id)], charges.clone().map(|(charge, _)| &charge.key));
        let (created, buckets) = (created(result), charges.clone().count().to_string());
        let run = |server: Duration| {
            let mut arguments = vec![buckets.clone(), created.clone()];
            for (charge, deferred) in charges.clone() {
                let window = key_name::window_at(&charge.key.window, server);
                let terms = terms([window, warn_rule(&charge.warn_at)]);
                arguments.extend([terms, charged(charge, deferred)]);
            }
            self.run_in_batch(&self.batches.commit, &keys, arguments, now)
        };
        self.run_by_calendar(now, run).await
    }
}
