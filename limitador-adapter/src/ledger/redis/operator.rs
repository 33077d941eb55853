//! An operator's changes to buckets.

use super::arguments::amount;
use super::library::Function;
use super::{BATCH, RedisLedger, key_name};
use crate::ledger::moment::Moment;
use crate::ledger::{CounterReading, GRANT_REMEMBERED, Grant, Granted, Key, Unavailable};
use std::sync::Arc;
use std::time::Duration;

impl RedisLedger {
    /// Resets buckets. Returns those that had a charge or a grant.
    pub(super) async fn reset_buckets(
        &self,
        keys: Vec<Arc<Key>>,
        now: Moment,
    ) -> Result<Vec<Arc<Key>>, Unavailable> {
        let mut reset = Vec::new();
        for batch in keys.chunks(BATCH) {
            let mut answer = self.run(Function::Reset, &self.keys([], batch), &[self.time(now)]).await?;
            for key in batch {
                if answer.next()? > 0 {
                    reset.push(Arc::clone(key));
                }
            }
        }
        Ok(reset)
    }

    /// Raises the maximum of a bucket until its window ends.
    pub(super) async fn grant_more(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable> {
        let Grant { key, amount: more, id } = grant;
        let keys = self.keys([self.names.bucket(&key), self.names.grant(&key, &id)], []);
        let remembered = GRANT_REMEMBERED.as_millis().to_string();
        let run = async |server: Duration| {
            let window = key_name::window_at(&key.window, server);
            let arguments = [self.time(now), self.room(), window, amount(more), remembered.clone()];
            self.run(Function::Grant, &keys, &arguments).await
        };
        let mut answer = self.run_by_calendar(now, run).await?;
        let is_repeated = match answer.next()? {
            0 => false,
            1 => true,
            _ => return Err(Unavailable::full("the limit has no room for another counter")),
        };
        let (used, held) = (answer.next()?, answer.next()?);
        let (leased, granted) = (answer.next()?, answer.next()?);
        let reset = Some(Duration::from_millis(answer.next()?)).filter(|reset| !reset.is_zero());
        Ok(Granted { reading: CounterReading { key, used, held, leased, granted, reset }, is_repeated })
    }
}
