//! Handles rate limit calls: converts messages to ledger calls and back. Both gRPC services use it.

use crate::grpc::descriptors::{FoundDescriptors, Named};
use crate::grpc::leases::{LeaseTerms, recallable};
use crate::grpc::observe::Observers;
use crate::grpc::recall_pacer::RecallPacer;
use crate::ledger::moment::Moment;
use crate::ledger::own_ids::OwnIds;
use crate::ledger::stored::{
    CreationCharge, Parking, ResultCharges, Seen, SeenCharges, Sighting, StoredId, StoredResult,
};
use crate::ledger::{
    Charge, ChargeAt, CounterReading, Hit, Hold, Idempotency, LeaseUse, Ledger, LedgerOutcome, Raised,
    RaisedHold, Settled, Status, Unavailable, When,
};
use crate::metrics::AdapterMetrics;
use crate::observed::ObservedReserve;
use crate::policies::snapshot::{KnownRate, PolicySnapshot};
use crate::warnings::Warnings;
use crate::warnings::webhook::WebhookQueue;
use futures::stream::{self, StreamExt};
use llm::response::Usage;
use policy::model::{OnLapse, Unit};
use prost::Message;
use protocol::call::{MAX_DESCRIPTORS, MAX_RESULT_ID};
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{
    CommitRequest, CommitResponse, DescriptorStatus, ParkedResult, RaisedHolds, ReserveRequest,
    ReserveResponse, SeenResult,
};
use protocol::wire::weir::v1::{BucketUsage, GetUsageRequest, GetUsageResponse};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The maximum lifetime of a hold, whatever lifetime a call requests. An exchange that takes a day has
/// failed.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// The maximum amount of a hold without a maximum. Sums of holds saturate at the storage's largest number.
/// Releasing a hold from a saturated sum would also free the amounts of other holds.
const MAX_UNENFORCED: u64 = 1 << 40;

/// The maximum number of reservations in one Commit.
const MAX_COMMITS: usize = 4096;

/// The maximum number of results in the commit of one reservation.
const MAX_SEEN: usize = 64;

/// The number of commits or raises that are handled at once.
const COMMITS_AT_ONCE: usize = 64;

/// The interval between log lines about unknown limits.
const TELL_EVERY: Duration = Duration::from_secs(60);

pub struct Limiter {
    pub(super) ledger: Arc<dyn Ledger>,
    in_force: watch::Receiver<Arc<PolicySnapshot>>,
    pub(super) metrics: Arc<AdapterMetrics>,
    pub(super) leases: LeaseTerms,
    pub(super) recall_pacer: RecallPacer,
    warnings: Warnings,
    told: Mutex<Option<Instant>>,
    observers: Observers,
    /// The ids of reservations without an id.
    ids: OwnIds,
}

/// Why a call failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call is invalid, and repeating it cannot help.
    #[error("{0}")]
    Invalid(String),
    /// The storage failed.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Limiter {
    /// Creates a limiter for these policies and this ledger.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        in_force: watch::Receiver<Arc<PolicySnapshot>>,
        metrics: Arc<AdapterMetrics>,
    ) -> Self {
        let warnings = Warnings::new(Arc::clone(&metrics), None);
        let (leases, observers) = (LeaseTerms::default(), Observers::default());
        let (recall_pacer, told, ids) = (RecallPacer::default(), Mutex::new(None), OwnIds::default());
        Self { ledger, in_force, metrics, leases, recall_pacer, warnings, told, observers, ids }
    }

    /// Sets what workers may lease.
    pub fn leasing(self, leases: LeaseTerms) -> Self {
        Self { leases, ..self }
    }

    /// Sends warnings to a webhook, too.
    pub fn with_webhook(self, webhook: Option<WebhookQueue>) -> Self {
        Self { warnings: Warnings::new(Arc::clone(&self.metrics), webhook), ..self }
    }

    /// Returns the callers of `explain --watch`, which wait for the next Reserve.
    pub fn observers(&self) -> Observers {
        self.observers.clone()
    }

    /// Holds the amount of every descriptor that names a limit in force, or nothing.
    pub async fn reserve(&self, request: ReserveRequest, now: Moment) -> Result<ReserveResponse, CallError> {
        self.reserve_observed(request, now, false).await.map(|(response, _)| response)
    }

    /// The same. With `observe`, it also returns what was held and how the limits stood.
    pub async fn reserve_observed(
        &self,
        request: ReserveRequest,
        now: Moment,
        observe: bool,
    ) -> Result<(ReserveResponse, Option<ObservedReserve>), CallError> {
        if request.lease {
            return Ok((self.lease(request, now).await?, None));
        }
        let in_force = self.now_in_force();
        let call = find(request.descriptors, &in_force)?;
        let id = match request.reservation_id {
            id if id.is_empty() => self.ids.next(),
            id => id,
        };
        // While an edit spreads, a filter may have a different plan. A limit that is unknown here is not in
        // force here, and does not affect other limits.
        if call.unknown() > 0 {
            self.tell_unknown("Reserve", call.unknown(), now);
        }
        let defaults = HoldDefaults { amount: request.amount, ttl: default_ttl(request.ttl) };
        let is_observed = observe || self.observers.is_any();
        let amounts = is_observed.then(|| holds(&call, defaults).map(|hold| hold.amount).collect::<Vec<_>>());
        let outcome = self.counted(self.ledger.reserve(&id, holds(&call, defaults).collect(), now).await)?;
        let outcome = match recallable(&call, &outcome) {
            buckets if buckets.is_empty() => outcome,
            buckets => {
                let again = || holds(&call, defaults).collect();
                let patience = Duration::from_millis(request.recall_ms);
                self.counted(self.reserve_after_recall(&id, &buckets, again, outcome, (now, patience)).await)?
            }
        };
        self.warn(now);
        self.count_reserve(&call, &outcome, request.amount, now);
        let observed = amounts.map(|amounts| ObservedReserve::new(&call, &amounts, &outcome));
        observed.iter().for_each(|observed| self.observers.show(observed));
        let code = if outcome.admitted { Code::Ok } else { Code::OverLimit };
        let statuses =
            call.statuses(&outcome).into_iter().map(|status| descriptor_status(status.map(|s| s.1)));
        let statuses = statuses.collect();
        let response = ReserveResponse { code: code.into(), reservation_id: id, statuses, lease: None };
        Ok((response, observed))
    }

    /// Settles reservations, several at once if the ledger is remote. If one fails, the caller repeats it and
    /// all later ones. Repeating a settled one changes nothing. Acknowledge it after [`Self::durable`].
    pub async fn commit(&self, mut request: CommitRequest, now: Moment) -> Result<CommitResponse, CallError> {
        let mut further = std::mem::take(&mut request.further);
        if further.len() >= MAX_COMMITS {
            return Err(CallError::Invalid(format!("a commit may end at most {MAX_COMMITS} reservations")));
        }
        let in_force = self.now_in_force();
        self.take_admitted(&mut request, &mut further, &in_force, now).await?;
        let out_of_room = self.raise(std::mem::take(&mut request.raised), &in_force, now).await?;
        if request.encoded_len() == 0 && further.is_empty() {
            return Ok(CommitResponse { out_of_room, ..CommitResponse::default() });
        }
        let released = self.commit_one(request, &in_force, now).await?;
        let mut settled = 1;
        let further = stream::iter(further).map(|request| self.commit_one(request, &in_force, now));
        let mut further = pin!(further.buffered(COMMITS_AT_ONCE));
        while let Some(result) = further.next().await {
            if let Err(error) = result {
                tracing::debug!(%error, settled, "a batch of commits was settled only in part");
                break;
            }
            settled += 1;
        }
        Ok(CommitResponse { reservation_released: released == Settled::Released, settled, out_of_room })
    }

    /// Waits until everything that earlier calls have charged is durable.
    pub async fn durable(&self) -> Result<(), CallError> {
        Ok(self.counted(self.ledger.durable().await)?)
    }

    /// Raises holds, several at once, and returns the reservations that have no room. A failed raise is not
    /// repeated, because the next raise includes it and no charge depends on it.
    async fn raise(
        &self,
        raised: Vec<RaisedHolds>,
        in_force: &PolicySnapshot,
        now: Moment,
    ) -> Result<Vec<String>, CallError> {
        if raised.len() > MAX_COMMITS {
            return Err(CallError::Invalid(format!("a commit may raise at most {MAX_COMMITS} reservations")));
        }
        let results = stream::iter(raised).map(|raised| self.raise_one(raised, in_force, now));
        let results: Vec<_> = results.buffered(COMMITS_AT_ONCE).collect().await;
        let results: Result<Vec<_>, _> = results.into_iter().collect();
        Ok(results?.into_iter().flatten().collect())
    }

    /// Raises the holds of one reservation. Returns its id if there is no room.
    async fn raise_one(
        &self,
        raised: RaisedHolds,
        in_force: &PolicySnapshot,
        now: Moment,
    ) -> Result<Option<String>, CallError> {
        let id = raised.reservation_id;
        let call = find(raised.descriptors, in_force)?;
        let of_usage = call.rates().filter(|(_, rate, _)| rate.unit.is_of_usage());
        let holds = of_usage.filter_map(|(named, rate, key)| {
            Some(RaisedHold {
                key: Arc::clone(key),
                total: named.amount?.min(MAX_UNENFORCED),
                max: named.max_of(rate),
                enforced: named.refuses(),
            })
        });
        let outcome = self.counted(self.ledger.raise(&id, holds.collect(), now).await);
        match outcome {
            Ok(Raised::Held) => &self.metrics.raises_held,
            Ok(Raised::OutOfRoom) => &self.metrics.raises_out_of_room,
            Ok(Raised::Unknown) => &self.metrics.raises_unknown,
            Err(_) => &self.metrics.raises_unavailable,
        }
        .increment(1);
        Ok((outcome == Ok(Raised::OutOfRoom)).then_some(id))
    }

    async fn commit_one(
        &self,
        mut request: CommitRequest,
        in_force: &PolicySnapshot,
        now: Moment,
    ) -> Result<Settled, CallError> {
        let seen = std::mem::take(&mut request.seen);
        let is_bare = !seen.is_empty() || request.reservation_id.is_empty();
        let ends_nothing = is_bare && request.descriptors.is_empty();
        if seen.len() > MAX_SEEN {
            return Err(CallError::Invalid(format!("a commit may show at most {MAX_SEEN} results")));
        }
        for seen in seen {
            self.see(seen, in_force, now).await?;
        }
        if ends_nothing {
            return Ok(Settled::AlreadySettled);
        }
        let call = find(request.descriptors, in_force)?;
        if call.unknown() > 0 {
            self.tell_unknown("Commit", call.unknown(), now);
        }
        let charges = call.rates().map(|(named, rate, key)| Charge {
            key: Arc::clone(key),
            amount: named.amount_in(rate, named.amount.unwrap_or(request.actual_amount)),
            warn_at: named.warn_at(rate),
            draw: named.draw(&request.reservation_id),
        });
        let charges: Vec<_> = charges.collect();
        let is_leased = charges.iter().any(|charge| charge.draw.is_some());
        if let Some(result) = request.parked {
            return self.park(&request.reservation_id, &result, &call, charges, in_force, now).await;
        }
        let amounts: Vec<_> = charges.iter().map(|charge| charge.amount).collect();
        let settled = self.counted(self.ledger.commit(&request.reservation_id, charges, now).await)?;
        self.warn(now);
        match settled {
            Settled::Released => &self.metrics.released,
            Settled::Charged if is_leased => &self.metrics.leased,
            Settled::Charged => &self.metrics.charged,
            Settled::AlreadySettled => &self.metrics.replayed,
        }
        .increment(1);
        if settled != Settled::AlreadySettled {
            call.rates().zip(amounts).for_each(|((_, rate, _), amount)| rate.charged.increment(amount));
        }
        Ok(settled)
    }

    /// Charges the creator of a result for what a read shows. Repeating the call charges nothing. Returns the result, if
    /// its creation is known.
    pub async fn see(
        &self,
        seen: SeenResult,
        in_force: &PolicySnapshot,
        now: Moment,
    ) -> Result<Option<ResultCharges>, CallError> {
        let Seen { charged, result } = self.counted(self.ledger.see(sighting(seen)?, now).await)?;
        self.warn(now);
        count_seen(&charged, in_force);
        Ok(result)
    }

    /// Ends a reservation that created a background result.
    async fn park(
        &self,
        id: &str,
        result: &ParkedResult,
        call: &FoundDescriptors<'_>,
        charges: Vec<Charge>,
        in_force: &PolicySnapshot,
        now: Moment,
    ) -> Result<Settled, CallError> {
        let result = StoredResult { id: stored_id(&result.id)?, input: result.input };
        let charges = call
            .rates()
            .zip(charges)
            .map(|((named, rate, _), charge)| CreationCharge { deferred: named.deferred_in(rate), charge });
        let charges: Vec<_> = charges.collect();
        let parking = self.counted(self.ledger.park(id, result, charges.clone(), now).await)?;
        self.warn(now);
        let amount = |one: &CreationCharge| match (&parking, one.deferred) {
            (Parking::AlreadySettled, _) => 0,
            (Parking::Parked(_), Some(deferred)) => deferred.now,
            (Parking::Parked(_) | Parking::Charged, _) => one.charge.amount,
        };
        call.rates().zip(&charges).for_each(|((_, rate, _), one)| rate.charged.increment(amount(one)));
        let (counter, settled) = match &parking {
            Parking::Parked(seen) => {
                count_seen(seen, in_force);
                (&self.metrics.parked, Settled::Released)
            }
            Parking::Charged => (&self.metrics.charged, Settled::Charged),
            Parking::AlreadySettled => (&self.metrics.replayed, Settled::AlreadySettled),
        };
        counter.increment(1);
        Ok(settled)
    }

    /// Reads the bucket of each descriptor. Changes nothing.
    pub async fn usage(&self, request: GetUsageRequest, now: Moment) -> Result<GetUsageResponse, CallError> {
        let in_force = self.now_in_force();
        let call = find(request.descriptors, &in_force)?;
        let keys: Vec<_> = call.rates().map(|(_, _, key)| Arc::clone(key)).collect();
        let mut readings = self.counted(self.ledger.read(&keys, now).await)?.into_iter();
        let buckets = call.descriptors.iter().map(|named| {
            let Some(named) = named else { return BucketUsage::default() };
            let rates = named.rates.iter().map(|(rate, _)| named.max_of(rate)).zip(readings.by_ref());
            // Weir's own descriptors name one rate. If a descriptor names several, the strictest one counts.
            let all: Vec<_> = rates.map(|(max, reading)| bucket_usage(max, &reading)).collect();
            all.into_iter().min_by_key(|bucket| bucket.remaining).unwrap_or_default()
        });
        Ok(GetUsageResponse { buckets: buckets.collect() })
    }

    /// Checks and charges without a hold. `call` is the name of the call in metrics.
    pub async fn hit<'a>(
        &self,
        call: &FoundDescriptors<'a>,
        name: &'static str,
        hits: Vec<Hit>,
        now: Moment,
    ) -> Result<LedgerOutcome, CallError> {
        if call.unknown() > 0 {
            self.tell_unknown(name, call.unknown(), now);
        }
        let charges: Vec<_> = hits.iter().map(|hit| (hit.when, hit.charge)).collect();
        let outcome = self.counted(self.ledger.hit(hits, now).await)?;
        self.warn(now);
        let mut is_charged = false;
        for ((_, rate, _), (when, amount)) in call.rates().zip(charges) {
            if outcome.admitted || when == When::Always {
                rate.charged.increment(amount);
                is_charged |= amount > 0;
            }
        }
        if is_charged {
            self.durable().await?;
        }
        Ok(outcome)
    }

    /// Returns the policies in force.
    pub fn now_in_force(&self) -> Arc<PolicySnapshot> {
        Arc::clone(&self.in_force.borrow())
    }

    pub fn metrics(&self) -> &AdapterMetrics {
        &self.metrics
    }

    /// Raises a warning for each threshold that charges have reached.
    fn warn(&self, now: Moment) {
        let crossings = self.ledger.take_crossings();
        if !crossings.is_empty() {
            self.warnings.raise(crossings, &self.now_in_force(), now);
        }
    }

    fn count_reserve(
        &self,
        call: &FoundDescriptors<'_>,
        outcome: &LedgerOutcome,
        by_default: u64,
        now: Moment,
    ) {
        match (outcome.admitted, outcome.idempotency) {
            (false, _) => &self.metrics.refused,
            (true, Idempotency::First) => &self.metrics.admitted,
            (true, Idempotency::Repeated) => &self.metrics.repeated,
            (true, Idempotency::Late) => &self.metrics.late,
        }
        .increment(1);
        if outcome.idempotency == Idempotency::First {
            call.count_refusals(outcome);
            call.count_excused(outcome);
        }
        if !outcome.admitted {
            let needed = |named: &Named<'_>, rate: &KnownRate| held_amount(named, rate, by_default);
            self.metrics.refusals.record(call.refusals(outcome, now, needed), now);
        }
        call.count_overflows(outcome);
    }

    pub(super) fn counted<T>(&self, result: Result<T, Unavailable>) -> Result<T, Unavailable> {
        if result.is_err() {
            self.metrics.unavailable.increment(1);
        }
        result
    }

    fn tell_unknown(&self, call: &'static str, unknown: usize, now: Moment) {
        self.metrics.unknown_limits(call).increment(unknown as u64);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|last| now.instant.saturating_duration_since(last) >= TELL_EVERY) {
            *told = Some(now.instant);
            tracing::warn!(
                call,
                "a call names a limit that no policy in force has; weir_unknown_limits_total counts them"
            );
        }
    }
}

/// What holds without their own values have.
#[derive(Clone, Copy)]
pub(super) struct HoldDefaults {
    pub amount: u64,
    pub ttl: Option<Duration>,
}

/// Returns the lifetime that a call gives for all of its holds.
pub(super) fn default_ttl(ttl: Option<prost_types::Duration>) -> Option<Duration> {
    ttl.and_then(|ttl| Duration::try_from(ttl).ok()).filter(|ttl| !ttl.is_zero())
}

/// Returns the holds of a call.
pub(super) fn holds<'a>(
    call: &'a FoundDescriptors<'_>,
    defaults: HoldDefaults,
) -> impl Iterator<Item = Hold> + 'a {
    call.rates().map(move |(named, rate, key)| Hold {
        key: Arc::clone(key),
        amount: held_amount(named, rate, defaults.amount),
        max: named.max_of(rate),
        ttl: named.ttl.or(defaults.ttl).unwrap_or(named.limit.ttl).min(LONGEST_HOLD),
        charge_at: charge_at(rate.unit, named.limit.on_lapse),
        enforced: named.refuses(),
        warn_at: named.warn_at(rate),
        lease: LeaseUse::None,
    })
}

/// Returns the amount to hold. `by_default` is the amount of the call.
fn held_amount(named: &Named<'_>, rate: &KnownRate, by_default: u64) -> u64 {
    match rate.unit {
        Unit::Requests | Unit::Concurrency => 1,
        Unit::Tokens | Unit::InputTokens | Unit::OutputTokens | Unit::Usd => {
            let most = if named.refuses() { u64::MAX } else { MAX_UNENFORCED };
            named.amount.unwrap_or(by_default).clamp(1, most)
        }
    }
}

/// Returns when a hold is charged. An admitted request is forwarded at once, so what a worker had in flight when
/// it died may have been used.
fn charge_at(unit: Unit, on_lapse: OnLapse) -> ChargeAt {
    match (unit, on_lapse) {
        (Unit::Requests, _) => ChargeAt::Admission,
        (Unit::Concurrency, _) => ChargeAt::Commit,
        (Unit::Tokens | Unit::InputTokens | Unit::OutputTokens | Unit::Usd, OnLapse::Charge) => {
            ChargeAt::CommitOrLapse
        }
        (Unit::Tokens | Unit::InputTokens | Unit::OutputTokens | Unit::Usd, OnLapse::Release) => {
            ChargeAt::Commit
        }
    }
}

/// Counts these charges in the metrics of their limits.
fn count_seen(charged: &SeenCharges, in_force: &PolicySnapshot) {
    for (key, amount) in charged {
        let rates = in_force.limit_of(key).map(|limit| limit.rates.as_slice()).unwrap_or_default();
        let rate = rates.iter().find(|rate| rate.unit == key.unit && rate.window == key.window);
        rate.into_iter().for_each(|rate| rate.charged.increment(*amount));
    }
}

fn stored_id(id: &str) -> Result<StoredId, CallError> {
    match id.len() {
        1..=MAX_RESULT_ID => Ok(StoredId::of(id)),
        _ => Err(CallError::Invalid(format!("the id of a result must have 1 to {MAX_RESULT_ID} bytes"))),
    }
}

fn sighting(seen: SeenResult) -> Result<Sighting, CallError> {
    let id = stored_id(&seen.id)?;
    let SeenResult { input, cached, cache_write, cache_write_1h, output, reasoning, total, .. } = seen;
    let usage = Usage { input, output, total, cached, cache_write, cache_write_1h, reasoning };
    Ok(Sighting { id, usage, is_partial: seen.partial, ends: seen.ends })
}

/// Resolves a call's descriptors.
pub fn find(
    descriptors: Vec<RateLimitDescriptor>,
    in_force: &PolicySnapshot,
) -> Result<FoundDescriptors<'_>, CallError> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(CallError::Invalid(format!("a call may have at most {MAX_DESCRIPTORS} descriptors")));
    }
    Ok(FoundDescriptors::find(descriptors, in_force))
}

fn bucket_usage(max: u64, reading: &CounterReading) -> BucketUsage {
    let max = max.saturating_add(reading.granted);
    let reset = reading.reset.unwrap_or_default();
    BucketUsage {
        known: true,
        max,
        used: reading.used,
        held: reading.held,
        remaining: max.saturating_sub(reading.used.saturating_add(reading.held)),
        reset_ms: u64::try_from(reset.as_millis()).unwrap_or(u64::MAX),
    }
}

pub(super) fn descriptor_status(status: Option<Status>) -> DescriptorStatus {
    let Some(status) = status else { return DescriptorStatus::default() };
    DescriptorStatus {
        code: if status.limited { Code::OverLimit } else { Code::Ok }.into(),
        limit: status.max,
        remaining: status.remaining,
        reset_ms: u64::try_from(status.reset.as_millis()).unwrap_or(u64::MAX),
        used: Some(status.used),
        exceeded: status.excused,
    }
}
