//! Reads buckets without changing them.

use super::library::Function;
use super::reply::{reading, slots_used};
use super::{BATCH, RedisLedger, key_name};
use crate::ledger::moment::Moment;
use crate::ledger::{CounterReading, Key, Unavailable};
use std::sync::Arc;
use std::time::Duration;

impl RedisLedger {
    /// Reads these buckets.
    pub(super) async fn read_buckets(
        &self,
        keys: &[Arc<Key>],
        now: Moment,
    ) -> Result<Vec<CounterReading>, Unavailable> {
        let names = self.keys([], keys);
        let run = async |server: Duration| {
            let windows = keys.iter().map(|key| key_name::window_at(&key.window, server));
            let arguments: Vec<_> = [self.time(now), self.room()].into_iter().chain(windows).collect();
            self.run(Function::Read, &names, &arguments).await
        };
        let mut answer = self.run_by_calendar(now, run).await?;
        let reading = |key: &Arc<Key>| {
            let overflows = answer.next()? > 0;
            let key = if overflows { Arc::new(key.overflow()) } else { Arc::clone(key) };
            let (used, held) = (answer.next()?, answer.next()?);
            let (leased, granted) = (answer.next()?, answer.next()?);
            let reset = Some(Duration::from_millis(answer.next()?));
            Ok(CounterReading { key, used, held, leased, granted, reset })
        };
        keys.iter().map(reading).collect()
    }

    /// Reads all buckets, page by page, so other calls are not blocked for long.
    pub(super) async fn read_all(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        let now = self.sweep_some(0, now).await?.now;
        let all = self.names.own("buckets");
        let (mut readings, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let asked = ["ZSCAN", &all, &cursor, "COUNT", &BATCH.to_string()];
            let (next, page): (String, Vec<(String, f64)>) = self.link.ask(&asked).await?;
            let names: Vec<_> = page.iter().map(|(name, _)| name.as_str()).collect();
            if !names.is_empty() {
                // Sliding windows have slots.
                let slots: Vec<_> = names.iter().map(|name| key_name::slots(name)).collect();
                let of_slots = slots.iter().flatten().flat_map(|(names, _)| names).map(String::as_str);
                let asked: Vec<_> =
                    std::iter::once("MGET").chain(names.iter().copied()).chain(of_slots).collect();
                let mut records: Vec<Option<String>> = self.link.ask(&asked).await?;
                let mut of_slots = records.split_off(names.len().min(records.len())).into_iter();
                let amended: Vec<_> = names.iter().map(|name| self.names.amendment(name)).collect();
                let asked: Vec<_> =
                    std::iter::once("MGET").chain(amended.iter().map(String::as_str)).collect();
                let amended: Vec<Option<String>> = self.link.ask(&asked).await?;
                let leases = self.names.own("leased");
                let asked: Vec<_> =
                    ["HMGET", leases.as_str()].into_iter().chain(names.iter().copied()).collect();
                let leased: Vec<Option<u64>> = self.link.ask(&asked).await?;
                let records = names.iter().zip(records).zip(&slots).zip(amended.into_iter().zip(leased));
                for (((name, record), slots), (amended, leased)) in records {
                    let sliding = slots.as_ref().map(|(_, length)| {
                        let records: Vec<String> = of_slots.by_ref().take(2).flatten().collect();
                        slots_used(&records.join(";"), *length, now)
                    });
                    let further = (amended.unwrap_or_default(), leased.unwrap_or_default());
                    let further = (further.0.as_str(), further.1);
                    readings.extend(record.and_then(|record| reading(name, &record, sliding, further, now)));
                }
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // SCAN may return a key twice.
        readings.sort_by(|a, b| a.key.cmp(&b.key));
        readings.dedup_by(|a, b| a.key == b.key);
        Ok(readings)
    }
}
