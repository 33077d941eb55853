//! Leases: room for several requests of one worker in one bucket. The worker admits requests from it without a call,
//! and tells afterwards which they were. A lease counts as held, so no limit is exceeded. If a call finds no room and
//! there are leases, they are recalled, and the call waits a moment for what their workers return.

use super::descriptors::{FoundDescriptors, Named};
use super::limiter::{CallError, HoldDefaults, Limiter, default_ttl, descriptor_status, find, holds};
use super::recall_pacer::{self, NextRecall};
use crate::ledger::moment::Moment;
use crate::ledger::recalls::{self, Recall};
use crate::ledger::{ChargeAt, Hold, LeaseUse, LedgerOutcome, Unavailable};
use crate::policies::snapshot::PolicySnapshot;
use futures::stream::{self, StreamExt};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{
    CommitRequest, GrantedLease, ReserveRequest, ReserveResponse,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// How long a lease counts as held, unless its worker returns it. A worker stops using it a little earlier.
const LEASE_TTL: Duration = Duration::from_secs(10);

/// A lease of less than this part of what its worker would like to have is not worth it.
const LEAST_PART: u64 = 16;

/// The pauses before a call that found no room is tried again, in milliseconds: at most 50 ms in total.
const RECALL_PAUSES: [u64; 6] = [2, 3, 5, 10, 15, 15];

/// The maximum number of reservations in one call that were admitted from leases.
const MAX_ADMITTED: usize = 4096;

/// The number of such reservations that are handled at once.
const ADMITTED_AT_ONCE: usize = 64;

/// What workers may lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// The largest part of a bucket's room in one lease, in percent. 0 means that there are no leases.
    pub percent: u64,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self { percent: 5 }
    }
}

impl LeaseTerms {
    /// Returns how much of this room to lease to a worker that would like this amount. `None` if it is too little to
    /// be of use: near the limit, every request has to ask.
    fn amount(self, wanted: u64, room: u64) -> Option<u64> {
        let share = u128::from(room).saturating_mul(u128::from(self.percent)) / 100;
        let amount = wanted.min(u64::try_from(share).unwrap_or(u64::MAX));
        (amount >= wanted.div_ceil(LEAST_PART).max(1)).then_some(amount)
    }
}

impl Limiter {
    /// Grants a lease in the bucket of the only descriptor, if it has enough room.
    pub(super) async fn lease(
        &self,
        request: ReserveRequest,
        now: Moment,
    ) -> Result<ReserveResponse, CallError> {
        let in_force = self.now_in_force();
        let id = request.reservation_id;
        let call = find(request.descriptors, &in_force)?;
        let granted = self.grant_lease(&id, &call, now).await;
        match &granted {
            Ok(Some(_)) => &self.metrics.leases_granted,
            Ok(None) => &self.metrics.leases_refused,
            Err(_) => &self.metrics.leases_unavailable,
        }
        .increment(1);
        let refused = || ReserveResponse {
            code: Code::OverLimit.into(),
            reservation_id: id.clone(),
            ..ReserveResponse::default()
        };
        Ok(granted?.unwrap_or_else(refused))
    }

    /// Returns the recalls of leases that follow.
    pub fn recalls(&self) -> broadcast::Receiver<Recall> {
        self.ledger.recalls().subscribe()
    }

    /// Whether there are leases.
    pub const fn grants_leases(&self) -> bool {
        self.leases.percent > 0
    }

    async fn grant_lease(
        &self,
        id: &str,
        call: &FoundDescriptors<'_>,
        now: Moment,
    ) -> Result<Option<ReserveResponse>, CallError> {
        let mut rates = call.rates();
        let (Some((named, rate, key)), None) = (rates.next(), rates.next()) else {
            return Err(CallError::Invalid("a lease is of one counter".to_owned()));
        };
        // A lease that cannot be recalled would keep its room from others.
        if !named.limit.leases || !self.grants_leases() || !self.ledger.recalls().reach_all() {
            return Ok(None);
        }
        let readings = self.counted(self.ledger.read(std::slice::from_ref(key), now).await)?;
        let Some(reading) = readings.first().filter(|reading| !reading.key.is_overflow()) else {
            return Ok(None);
        };
        let max = named.max_of(rate).saturating_add(reading.granted);
        let room = max.saturating_sub(reading.used.saturating_add(reading.held));
        let Some(amount) = self.leases.amount(named.amount.unwrap_or_default(), room) else {
            return Ok(None);
        };
        let hold = Hold {
            key: Arc::clone(key),
            amount,
            max: named.max_of(rate),
            ttl: LEASE_TTL,
            charge_at: ChargeAt::Commit,
            enforced: true,
            warn_at: None,
            lease: LeaseUse::Lease,
        };
        // Others may have taken the room in the meantime.
        let outcome = self.counted(self.ledger.reserve(id, vec![hold], now).await)?;
        if !outcome.admitted {
            return Ok(None);
        }
        let ttl_ms = u64::try_from(LEASE_TTL.as_millis()).unwrap_or(u64::MAX);
        let lease = GrantedLease { amount, ttl_ms, counter: recalls::number_of(key) };
        let statuses = outcome.statuses.into_iter().map(|status| descriptor_status(Some(status)));
        Ok(Some(ReserveResponse {
            code: Code::Ok.into(),
            reservation_id: id.to_owned(),
            statuses: statuses.collect(),
            lease: Some(lease),
        }))
    }

    /// Takes the holds of requests that were admitted from leases out of them, several at once. Those of `further`
    /// are included, because a request was admitted before it ended.
    pub(super) async fn take_admitted(
        &self,
        request: &mut CommitRequest,
        further: &mut [CommitRequest],
        in_force: &PolicySnapshot,
        now: Moment,
    ) -> Result<(), CallError> {
        let own = std::iter::once(request).chain(further);
        let admitted: Vec<_> = own.flat_map(|one| std::mem::take(&mut one.admitted)).collect();
        if admitted.len() > MAX_ADMITTED {
            let message = format!("a commit may tell of at most {MAX_ADMITTED} requests");
            return Err(CallError::Invalid(message));
        }
        let results = stream::iter(admitted).map(|one| self.take_one_admitted(one, in_force, now));
        let results: Vec<_> = results.buffered(ADMITTED_AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    async fn take_one_admitted(
        &self,
        request: ReserveRequest,
        in_force: &PolicySnapshot,
        now: Moment,
    ) -> Result<(), CallError> {
        let id = request.reservation_id;
        let call = find(request.descriptors, in_force)?;
        let defaults = HoldDefaults { amount: request.amount, ttl: default_ttl(request.ttl) };
        let drawn = |(hold, named): (Hold, &Named<'_>)| Hold {
            // It is admitted already.
            enforced: false,
            lease: named.draw(&id).map_or(LeaseUse::None, LeaseUse::Draw),
            ..hold
        };
        let named = call.rates().map(|(named, _, _)| named);
        let holds: Vec<_> = holds(&call, defaults).zip(named).map(drawn).collect();
        self.counted(self.ledger.reserve(&id, holds, now).await)?;
        self.metrics.leased_running.increment(1);
        Ok(())
    }

    /// Recalls the leases of these buckets, and repeats a refused call until it is admitted, its workers had enough time
    /// to return them, or the caller's patience is over.
    pub(super) async fn reserve_after_recall(
        &self,
        id: &str,
        buckets: &[u64],
        holds: impl Fn() -> Vec<Hold>,
        refused: LedgerOutcome,
        (began, had): (Moment, Duration),
    ) -> Result<LedgerOutcome, Unavailable> {
        let (mut outcome, mut patience) = (refused, had);
        match self.recall_pacer.next(buckets, began.instant) {
            NextRecall::Now => self.ledger.recall(buckets).await,
            NextRecall::Underway => {}
            NextRecall::InVain => return Ok(outcome),
        }
        for pause in RECALL_PAUSES.map(Duration::from_millis) {
            let Some(left) = patience.checked_sub(pause) else { break };
            patience = left;
            tokio::time::sleep(pause).await;
            outcome = self.ledger.reserve(id, holds(), Moment::now()).await?;
            if outcome.admitted || !has_leases(&outcome) {
                break;
            }
        }
        if has_leases(&outcome) && had.saturating_sub(patience) >= recall_pacer::UNDERWAY {
            self.recall_pacer.was_in_vain(buckets, began.instant);
        }
        match outcome.admitted {
            true => &self.metrics.recalls_with_room,
            false => &self.metrics.recalls_without_room,
        }
        .increment(1);
        Ok(outcome)
    }
}

/// Whether leases could give room to a refused call: each bucket that refuses it has some.
fn has_leases(outcome: &LedgerOutcome) -> bool {
    let mut refusing = outcome.statuses.iter().filter(|status| status.limited);
    !outcome.admitted && refusing.all(|status| status.leased > 0)
}

/// Returns the buckets whose leases to recall, if that could give room to a refused call.
pub(super) fn recallable(call: &FoundDescriptors<'_>, outcome: &LedgerOutcome) -> Vec<u64> {
    if !has_leases(outcome) {
        return Vec::new();
    }
    let refusing = call.rates().zip(&outcome.statuses).filter(|(_, status)| status.limited);
    refusing.map(|((_, _, key), _)| recalls::number_of(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_a_small_part_of_the_room_and_near_the_limit_there_is_none() {
        let terms = LeaseTerms { percent: 5 };
        assert_eq!(terms.amount(1000, 1_000_000), Some(1000));
        assert_eq!(terms.amount(1000, 10_000), Some(500));
        assert_eq!(terms.amount(1000, 1260), Some(63));
        assert_eq!(terms.amount(1000, 1259), None);
        assert_eq!((terms.amount(16, 40), terms.amount(1, 19), terms.amount(0, 0)), (Some(2), None, None));
        assert_eq!(terms.amount(u64::MAX / 16, u64::MAX), Some(u64::MAX / 20));
        assert_eq!(LeaseTerms { percent: 0 }.amount(1, u64::MAX), None);
    }
}
