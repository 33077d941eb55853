//! Checks and charges in several shards.
//!
//! If a refused call must charge nothing, the shards first hold what the call needs, and then charge it. These
//! holds last for seconds only, in case the adapter crashes in between.

use super::ShardedLedger;
use super::shard::Shard;
use super::split::{ShardPart, in_order};
use crate::ledger::moment::Moment;
use crate::ledger::{
    Charge, ChargeAt, Hit, Hold, Idempotency, LeaseUse, Ledger, LedgerOutcome, Status, Unavailable, When,
};
use futures::future::join_all;
use policy::model::Window;
use std::sync::Arc;
use std::time::Duration;

/// How long the needs of a call are held.
const HELD: Duration = Duration::from_secs(10);

impl<S: Shard> ShardedLedger<S> {
    pub(super) async fn hit_in(
        &self,
        parts: Vec<ShardPart<'_, S, Hit>>,
        now: Moment,
    ) -> Result<LedgerOutcome, Unavailable> {
        let is_always = |hit: &Hit| hit.when == When::Always;
        if parts.len() > 1 && !parts.iter().flat_map(|part| &part.items).all(is_always) {
            return self.hold_and_charge(parts, now).await;
        }
        let outcomes = join_all(parts.into_iter().map(async |part| {
            part.shard.hit(part.items, now).await.map(|outcome| (part.positions, outcome))
        }));
        let outcomes: Vec<_> = outcomes.await.into_iter().collect::<Result<_, _>>()?;
        let admitted = outcomes.iter().all(|(_, outcome)| outcome.admitted);
        let statuses = outcomes.into_iter().map(|(positions, outcome)| (positions, outcome.statuses));
        Ok(LedgerOutcome { admitted, idempotency: Idempotency::First, statuses: in_order(statuses) })
    }

    async fn hold_and_charge(
        &self,
        parts: Vec<ShardPart<'_, S, Hit>>,
        now: Moment,
    ) -> Result<LedgerOutcome, Unavailable> {
        let hits = in_order(parts.iter().map(|part| (part.positions.clone(), part.items.clone())));
        let parts = parts.into_iter().map(|ShardPart { index, shard, positions, items }| ShardPart {
            index,
            shard,
            positions,
            items: items.iter().map(hold).collect(),
        });
        let id = self.ids.next();
        let mut outcome = self.reserve_in(&id, parts.collect(), now).await?;
        let is_charged = |hit: &Hit| outcome.admitted || hit.when == When::Always;
        let charges: Vec<_> = hits.iter().filter(|hit| is_charged(hit)).map(charge).collect();
        // A refused call holds nothing, so its charges have no reservation to end.
        let id = if outcome.admitted { id } else { String::new() };
        if !charges.is_empty() {
            self.commit(&id, charges, now).await?;
        }
        for (hit, status) in hits.iter().zip(&mut outcome.statuses) {
            let charged = outcome.admitted || hit.when == When::Always;
            correct(status, hit, outcome.admitted, if charged { hit.charge } else { 0 });
        }
        Ok(outcome)
    }
}

fn hold(hit: &Hit) -> Hold {
    Hold {
        key: Arc::clone(&hit.key),
        amount: hit.need,
        max: hit.max,
        ttl: HELD,
        charge_at: ChargeAt::Commit,
        enforced: hit.enforced,
        warn_at: None,
        lease: LeaseUse::None,
    }
}

fn charge(hit: &Hit) -> Charge {
    Charge { key: Arc::clone(&hit.key), amount: hit.charge, warn_at: hit.warn_at.clone(), draw: None }
}

/// Corrects a status from before the charge. If the bucket has no room, what remains stays 0.
fn correct(status: &mut Status, hit: &Hit, was_held: bool, charged: u64) {
    let charged = if hit.key.window == Window::Now { 0 } else { charged };
    let held = if was_held && !status.excused { hit.need.max(1) } else { 0 };
    status.used = status.used.saturating_add(charged);
    status.remaining = status.remaining.saturating_add(held).saturating_sub(charged);
}
