//! Background results in the in-memory ledger. See [`crate::ledger::stored`].

#[cfg(feature = "sqlite")]
pub mod record;

use super::buckets::after;
use super::changes::ChangeSet;
use super::settled_ids::{Advance, Charged, Id, Ids};
use super::state::{Held, MemoryState};
use crate::ledger::crossing::WarnAt;
use crate::ledger::moment::Moment;
use crate::ledger::stored::{
    CreationCharge, EARLY, MAX_STORED, Parking, ResultCharges, SEEN, Seen, SeenCharges, Sighting,
    StoredResult, UNSEEN,
};
use crate::ledger::{Charge, Key, Unavailable};
use policy::model::UsageCost;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// The remembered results.
#[derive(Default)]
pub struct StoredResults {
    results: Ids<RememberedResult>,
    /// When each result is forgotten, and when the next of its holds lapses.
    ends: BTreeSet<(Instant, Id)>,
    lapses: BTreeSet<(Instant, Id)>,
    /// Reads of unknown results, and when they are forgotten.
    early: Ids<(Instant, Sighting)>,
    early_ends: VecDeque<(Instant, Id)>,
    changed: ChangeSet<Id>,
    early_changed: ChangeSet<Id>,
}

struct RememberedResult {
    /// The reservation that created it.
    creator: Id,
    /// The estimated input.
    input: u64,
    seen: bool,
    ends: Instant,
    rates: Vec<DeferredRate>,
}

struct DeferredRate {
    key: Arc<Key>,
    cost: UsageCost,
    charged: u64,
    hold: Option<Held>,
    /// The part of `charged` that was charged when the hold lapsed.
    lapsed: Option<Advance>,
    warn_at: Option<WarnAt>,
}

impl RememberedResult {
    fn next_lapse(&self) -> Option<Instant> {
        self.rates.iter().filter_map(|rate| rate.hold.as_ref()).map(|hold| hold.until).min()
    }
}

impl StoredResults {
    /// Returns the number of results with holds.
    pub fn holding(&self) -> usize {
        self.lapses.len()
    }

    /// Returns whether this reservation created this result.
    pub fn is_of(&self, id: Id, creator: Id) -> bool {
        self.results.get(&id).is_some_and(|known| known.creator == creator)
    }

    /// Returns whether another reservation may create this result. This requires that no unread result has
    /// the same id, and that there is room.
    fn takes(&self, id: Id) -> bool {
        self.results.get(&id).map_or(self.results.len() < MAX_STORED, |known| known.seen)
    }

    fn remove(&mut self, id: Id) -> Option<RememberedResult> {
        let result = self.results.remove(&id)?;
        self.changed.note(id);
        self.ends.remove(&(result.ends, id));
        result.next_lapse().into_iter().for_each(|lapse| {
            self.lapses.remove(&(lapse, id));
        });
        Some(result)
    }

    fn insert(&mut self, id: Id, result: RememberedResult) {
        self.changed.note(id);
        self.ends.insert((result.ends, id));
        self.lapses.extend(result.next_lapse().map(|lapse| (lapse, id)));
        self.results.insert(id, result);
    }

    fn remember_early(&mut self, id: Id, sighting: Sighting, now: Moment) {
        if self.early.get(&id).is_none_or(|(_, known)| sighting.supersedes(known)) {
            let end = after(now, EARLY);
            self.early.insert(id, (end, sighting));
            self.early_changed.note(id);
            self.early_ends.push_back((end, id));
        }
        self.forget_early(now);
    }

    fn forget_early(&mut self, now: Moment) {
        while let Some((end, id)) = self.early_ends.front().copied()
            && (end <= now.instant || self.early_ends.len() > MAX_STORED)
        {
            self.early_ends.pop_front();
            if self.early.get(&id).is_some_and(|(until, _)| *until == end) {
                self.remove_early(id);
            }
        }
    }

    fn remove_early(&mut self, id: Id) -> Option<(Instant, Sighting)> {
        let early = self.early.remove(&id)?;
        self.early_changed.note(id);
        Some(early)
    }
}

impl MemoryState {
    /// Ends a creation with these holds. Deferred charges wait until the result is seen.
    pub fn park(
        &mut self,
        (id, result): (Id, &StoredResult),
        creator: Id,
        mut holds: Vec<Held>,
        charges: &[CreationCharge],
        advances: Charged,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        if !self.stored.takes(id) {
            let charges: Vec<Charge> = charges.iter().map(|one| one.charge.clone()).collect();
            return self.settle(holds, &charges, advances, now).map(|()| Parking::Charged);
        }
        let mut remembered = RememberedResult {
            creator,
            input: result.input,
            seen: false,
            ends: after(now, UNSEEN),
            rates: Vec::new(),
        };
        let mut others = Vec::new();
        for CreationCharge { charge, deferred } in charges {
            let Some(deferred) = deferred else {
                others.push(charge.clone());
                continue;
            };
            let hold = holds.iter().position(|held| self.is_held_for(held, &charge.key));
            let mut rate = DeferredRate {
                key: Arc::clone(&charge.key),
                cost: deferred.cost,
                charged: 0,
                hold: hold.map(|at| holds.swap_remove(at)),
                lapsed: None,
                warn_at: charge.warn_at.clone(),
            };
            self.charge_up_to(&mut rate, deferred.now, now)?;
            remembered.rates.push(rate);
        }
        self.settle(holds, &others, advances, now)?;
        if let Some(before) = self.stored.remove(id) {
            self.release(before.rates.into_iter().filter_map(|rate| rate.hold).collect());
        }
        self.stored.insert(id, remembered);
        let early = self.stored.remove_early(id);
        let seen = early.map_or(Ok(Seen::default()), |(_, sighting)| self.see(id, sighting, now));
        seen.map(|seen| Parking::Parked(seen.charged))
    }

    /// Records that a result was seen. Charges its creator the part that has not been charged yet.
    pub fn see(&mut self, id: Id, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        let Some(mut result) = self.stored.remove(id) else {
            self.stored.remember_early(id, sighting, now);
            return Ok(Seen::default());
        };
        let usage = sighting.usage_with(result.input);
        let mut charged = SeenCharges::new();
        for rate in &mut result.rates {
            let more = self.charge_up_to(rate, rate.cost.of(&usage), now)?;
            charged.extend((more > 0).then(|| (Arc::clone(&rate.key), more)));
        }
        if sighting.ends {
            for rate in &mut result.rates {
                self.refund_lapsed(rate, rate.cost.of(&usage));
            }
            self.release(result.rates.iter_mut().filter_map(|rate| rate.hold.take()).collect());
            (result.seen, result.ends) = (true, after(now, SEEN));
        }
        let charges = result.rates.iter().map(|rate| (Arc::clone(&rate.key), rate.charged)).collect();
        self.stored.insert(id, result);
        Ok(Seen { charged, result: Some(ResultCharges { usage, charges }) })
    }

    /// Charges a rate up to this total and reduces its hold accordingly. Returns the newly charged amount.
    fn charge_up_to(
        &mut self,
        rate: &mut DeferredRate,
        amount: u64,
        now: Moment,
    ) -> Result<u64, Unavailable> {
        let more = amount.saturating_sub(rate.charged);
        rate.charged = rate.charged.max(amount);
        match &mut rate.hold {
            Some(held) => {
                self.buckets.charge(held.place, more, rate.warn_at.as_ref(), now)?;
                let less = more.min(held.amount.saturating_sub(1));
                self.buckets.lessen(held.place, less);
                held.amount = held.amount.saturating_sub(less);
            }
            None => self.charge_one(&rate.key, more, rate.warn_at.as_ref(), now)?,
        }
        Ok(more)
    }

    /// Refunds what a lapse has charged beyond the usage of a complete result.
    fn refund_lapsed(&mut self, rate: &mut DeferredRate, used: u64) {
        let Some(advance) = rate.lapsed.take() else { return };
        let excess = advance.amount.min(rate.charged.saturating_sub(used));
        self.buckets.refund(advance.place, excess, advance.window);
        rate.charged = rate.charged.saturating_sub(excess);
    }

    /// Ends the holds of a result that have expired, and charges them.
    fn lapse_rates(&mut self, result: &mut RememberedResult, now: Moment) -> Result<(), Unavailable> {
        let mut ended = Ok(());
        for rate in &mut result.rates {
            let Some(hold) = rate.hold.take_if(|hold| hold.until <= now.instant) else { continue };
            match self.charge_lapsed(&hold, now) {
                Ok(advance) => rate.lapsed = advance,
                Err(error) => ended = Err(error),
            }
            let charged = rate.lapsed.as_ref().map_or(0, |advance| advance.amount);
            rate.charged = rate.charged.saturating_add(charged);
            self.release(vec![hold]);
        }
        ended
    }

    /// Ends all expired holds, and removes expired results.
    pub fn lapse_stored(&mut self, now: Moment) -> Result<(), Unavailable> {
        let is_due = |end: &(Instant, Id)| end.0 <= now.instant;
        while let Some((_, id)) = self.stored.lapses.first().copied().filter(is_due) {
            let Some(mut result) = self.stored.remove(id) else {
                self.stored.lapses.pop_first();
                continue;
            };
            let ended = self.lapse_rates(&mut result, now);
            self.stored.insert(id, result);
            ended?;
        }
        while let Some((_, id)) = self.stored.ends.first().copied().filter(is_due) {
            let Some(result) = self.stored.remove(id) else {
                self.stored.ends.pop_first();
                continue;
            };
            self.release(result.rates.into_iter().filter_map(|rate| rate.hold).collect());
        }
        self.stored.forget_early(now);
        Ok(())
    }
}
