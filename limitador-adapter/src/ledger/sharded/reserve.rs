//! Reserves in several shards: all of them hold, or none.
//!
//! The shards are asked in parallel. If one refuses or fails, the others take back what they hold. Until then,
//! these holds count like all others, so at worst two concurrent requests refuse each other.

use super::ShardedLedger;
use super::shard::{Attempt, BucketState, Shard};
use super::split::{ShardPart, in_order};
use crate::ledger::moment::Moment;
use crate::ledger::{Hold, Idempotency, Key, LedgerOutcome, Status, Unavailable};
use futures::future::join_all;
use std::sync::Arc;

/// A part of a reservation, with the answer of its shard.
struct ReservedPart<'a, S> {
    part: ShardPart<'a, S, Arc<Key>>,
    maxima: Vec<u64>,
    answer: Result<LedgerOutcome, Unavailable>,
}

/// What the answers of all shards mean together.
enum Decision {
    Admitted(Idempotency),
    /// A shard has no room.
    Refused,
    /// The reservation is settled or has lapsed, so nothing new is held.
    Late(Idempotency),
    Failed(Unavailable),
}

impl<S: Shard> ShardedLedger<S> {
    /// Reserves in these shards.
    pub(super) async fn reserve_in(
        &self,
        id: &str,
        parts: Vec<ShardPart<'_, S, Hold>>,
        now: Moment,
    ) -> Result<LedgerOutcome, Unavailable> {
        let attempt = self.next_attempt(parts.iter().map(|part| part.index).collect());
        let mut reserved = join_all(parts.into_iter().map(|part| ask(id, part, attempt, now))).await;
        let decision = decide(reserved.iter().map(|part| &part.answer));
        if let Decision::Late(_) = decision {
            reserved.iter_mut().for_each(ReservedPart::show_room);
        }
        join_all(
            reserved
                .iter_mut()
                .filter(|part| decision.takes_back(&part.answer))
                .map(|part| self.take_back(id, part, attempt, now)),
        )
        .await;
        let (admitted, idempotency) = match decision {
            Decision::Admitted(idempotency) | Decision::Late(idempotency) => (true, idempotency),
            Decision::Refused => (false, Idempotency::First),
            Decision::Failed(error) => return Err(error),
        };
        let statuses = reserved.into_iter().map(|reserved| reserved.statuses(now));
        Ok(LedgerOutcome { admitted, idempotency, statuses: in_order(statuses) })
    }

    /// Takes back what a shard holds for this attempt. If it does not answer, this is repeated later.
    async fn take_back(&self, id: &str, reserved: &mut ReservedPart<'_, S>, attempt: Attempt, now: Moment) {
        let ShardPart { index, shard, items: keys, .. } = &reserved.part;
        match shard.cancel(id, attempt.number, keys, now).await {
            Ok(states) => reserved.correct(&states),
            Err(error) => {
                tracing::debug!(%error, shard = index, "holds of a refused request could not be taken back yet");
                self.unfinished.push(*index, id, attempt.number);
            }
        }
    }
}

/// Reserves one part.
async fn ask<'a, S: Shard>(
    id: &str,
    part: ShardPart<'a, S, Hold>,
    attempt: Attempt,
    now: Moment,
) -> ReservedPart<'a, S> {
    let ShardPart { index, shard, positions, items: holds } = part;
    let keys = holds.iter().map(|hold| Arc::clone(&hold.key)).collect();
    let maxima = holds.iter().map(|hold| hold.max).collect();
    let answer = shard.reserve_part(id, holds, attempt, now).await;
    ReservedPart { part: ShardPart { index, shard, positions, items: keys }, maxima, answer }
}

/// A refusal outweighs a failure: a limit without room refuses the request, whatever the policy does about
/// failures of the storage. A reservation that is over is neither refused nor does it fail.
fn decide<'a>(answers: impl Iterator<Item = &'a Result<LedgerOutcome, Unavailable>> + Clone) -> Decision {
    let outcomes = answers.clone().flatten();
    let is_any = |idempotency| outcomes.clone().any(|outcome| outcome.idempotency == idempotency);
    if is_any(Idempotency::Late) {
        let is_repeated = is_any(Idempotency::Repeated);
        return Decision::Late(if is_repeated { Idempotency::Repeated } else { Idempotency::Late });
    }
    if outcomes.clone().any(|outcome| !outcome.admitted) {
        return Decision::Refused;
    }
    if let Some(error) = answers.filter_map(|answer| answer.as_ref().err()).next() {
        return Decision::Failed(error.clone());
    }
    let is_new = is_any(Idempotency::First);
    Decision::Admitted(if is_new { Idempotency::First } else { Idempotency::Repeated })
}

impl Decision {
    /// Returns whether a shard with this answer has to take back its part. A shard that did not answer may
    /// have executed the call.
    fn takes_back(&self, answer: &Result<LedgerOutcome, Unavailable>) -> bool {
        match (self, answer) {
            (Self::Admitted(_), _) => false,
            (Self::Refused | Self::Failed(_), Ok(outcome)) => outcome.admitted,
            (Self::Refused | Self::Failed(_), Err(_)) => true,
            // Repeated holds belong to the reservation that is settled.
            (Self::Late(_), Ok(outcome)) => outcome.idempotency == Idempotency::First,
            (Self::Late(_), Err(_)) => true,
        }
    }
}

impl<S> ReservedPart<'_, S> {
    /// Corrects the statuses after the part was taken back.
    fn correct(&mut self, states: &[BucketState]) {
        let Ok(outcome) = &mut self.answer else { return };
        for (status, BucketState { used, held, reset }) in outcome.statuses.iter_mut().zip(states) {
            status.used = *used;
            status.remaining = status.max.saturating_sub(*used).saturating_sub(*held);
            // A bucket without room shows when it will have room.
            if !status.limited && !status.excused {
                status.reset = *reset;
            }
        }
    }

    /// Shows that nothing lacked room, if this part has held nothing before.
    fn show_room(&mut self) {
        let new = self.answer.iter_mut().filter(|outcome| outcome.idempotency == Idempotency::First);
        for status in new.flat_map(|outcome| &mut outcome.statuses) {
            (status.limited, status.excused) = (false, false);
        }
    }

    /// Returns the positions of the statuses in the call, and the statuses. If the shard did not answer, its
    /// buckets are shown as unused: another shard has refused, and its limit is the one to show.
    fn statuses(self, now: Moment) -> (Vec<usize>, Vec<Status>) {
        let unused = |(key, max): (&Arc<Key>, &u64)| Status {
            limited: false,
            excused: false,
            max: *max,
            remaining: *max,
            reset: now.until_end_of(&key.window),
            used: 0,
            overflowed: false,
            leased: 0,
        };
        let ShardPart { positions, items: keys, .. } = self.part;
        let statuses = match self.answer {
            Ok(outcome) => outcome.statuses,
            Err(_) => keys.iter().zip(&self.maxima).map(unused).collect(),
        };
        (positions, statuses)
    }
}
