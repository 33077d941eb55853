//! Background results with charges in several shards. Each shard keeps the deferred charges of its buckets, under
//! the same id. One shard, chosen by that id, always has a part, and decides whether anything is deferred.

use super::ShardedLedger;
use super::shard::Shard;
use super::split::{ShardPart, shard_of_text};
use crate::ledger::Unavailable;
use crate::ledger::moment::Moment;
use crate::ledger::stored::{CreationCharge, Parking, StoredResult};
use futures::future::join_all;

impl<S: Shard> ShardedLedger<S> {
    pub(super) async fn park_in(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        let home = shard_of_text(result.id.as_str(), self.shards.len());
        let parts = self.split(charges, |one| &one.charge.key);
        let (at_home, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.index == home);
        let at_home = at_home.into_iter().flat_map(|part| part.items).collect();
        let shard = self.shards.get(home).ok_or_else(super::no_shards)?;
        let parking = shard.park(id, result.clone(), at_home, now).await?;
        let is_charged = parking == Parking::Charged;
        let others = others.into_iter().map(|part| park_part(id, &result, part, is_charged, now));
        let others: Vec<_> = join_all(others).await.into_iter().collect::<Result<_, _>>()?;
        Ok(others.into_iter().fold(parking, both))
    }
}

/// Parks the charges of one shard, or makes them if nothing is deferred.
async fn park_part<S: Shard>(
    id: &str,
    result: &StoredResult,
    part: ShardPart<'_, S, CreationCharge>,
    is_charged: bool,
    now: Moment,
) -> Result<Parking, Unavailable> {
    if !is_charged && part.items.iter().any(|one| one.deferred.is_some()) {
        return part.shard.park(id, result.clone(), part.items, now).await;
    }
    let charges = part.items.into_iter().map(|one| one.charge).collect();
    part.shard.commit_part(id, charges, now).await?;
    // Whether this is a repetition depends on the deferred charges.
    Ok(Parking::AlreadySettled)
}

fn both(one: Parking, other: Parking) -> Parking {
    match (one, other) {
        (Parking::Parked(one), Parking::Parked(other)) => Parking::Parked([one, other].concat()),
        (Parking::Parked(seen), _) | (_, Parking::Parked(seen)) => Parking::Parked(seen),
        (Parking::Charged, _) | (_, Parking::Charged) => Parking::Charged,
        (Parking::AlreadySettled, Parking::AlreadySettled) => Parking::AlreadySettled,
    }
}
