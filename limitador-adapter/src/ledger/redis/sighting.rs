//! Reads of background results.

use super::arguments::{numbers, stored};
use super::library::Function;
use super::reply::crossing;
use super::{RedisLedger, clock, key_name};
use crate::ledger::moment::Moment;
use crate::ledger::stored::{ResultCharges, Seen, Sighting};
use crate::ledger::{Key, Unavailable, key_text};
use policy::model::Window;
use std::sync::Arc;

impl RedisLedger {
    /// Charges what a read of a background result shows.
    pub(super) async fn charge_seen(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        let Sighting { id, usage, is_partial, ends } = &sighting;
        let numbers_of_usage = [
            u64::from(*is_partial),
            usage.input,
            usage.cached,
            usage.cache_write,
            usage.cache_write_1h,
            usage.output,
            usage.reasoning,
            usage.total,
            u64::from(*ends),
        ];
        // Only the result's record contains the periods to charge. The server replies with them if they are
        // missing.
        let mut periods: Vec<Window> = Vec::new();
        for _ in 0..=clock::ATTEMPTS {
            let mut arguments = vec![self.time(now), stored(id), self.room(), numbers(numbers_of_usage)];
            let server = self.server.time(now);
            arguments.extend(periods.iter().map(|period| key_name::window_at(period, server)));
            let told: Vec<String> = self.link.run(Function::See, &self.keys([], []), &arguments).await?;
            if let [first, server, missing @ ..] = told.as_slice()
                && first == "-1"
            {
                self.server.learn(server.parse().unwrap_or_default(), now);
                periods = missing.iter().filter_map(|name| key_text::window_named(name)).collect();
                continue;
            }
            let end = told.iter().position(String::is_empty).unwrap_or(told.len());
            let (charged, crossed) = told.split_at_checked(end).unwrap_or((told.as_slice(), &[]));
            for [name, numbers @ ..] in crossed.get(1..).unwrap_or_default().as_chunks::<6>().0 {
                let numbers = numbers.each_ref().map(|number| number.parse().unwrap_or_default());
                let key = key_name::key(name).map(Arc::new);
                let crossing = key.and_then(|key| crossing(key, numbers));
                crossing.into_iter().for_each(|crossing| self.crossings.push(crossing));
            }
            let Some((input, rates)) = charged.split_first() else { return Ok(Seen::default()) };
            let rate = |[name, more, total]: &[String; 3]| {
                Some((Arc::new(key_name::key(name)?), more.parse().ok()?, total.parse().ok()?))
            };
            let rates: Vec<(Arc<Key>, u64, u64)> = rates.as_chunks::<3>().0.iter().filter_map(rate).collect();
            let charged = rates.iter().filter(|(_, more, _)| *more > 0);
            let charged = charged.map(|(key, more, _)| (Arc::clone(key), *more)).collect();
            let charges = rates.into_iter().map(|(key, _, total)| (key, total)).collect();
            let usage = sighting.usage_with(input.parse().unwrap_or_default());
            return Ok(Seen { charged, result: Some(ResultCharges { usage, charges }) });
        }
        Err(clock::jumps())
    }
}
