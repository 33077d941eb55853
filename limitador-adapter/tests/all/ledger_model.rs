//! For any policy and any order of calls and times, every storage agrees with a simple model.

mod sharded;

use crate::restarted::RestartedLedger;
use crate::storages::in_redis_of_a_clock_ahead;
use e2e::redis::Redis;
use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, Timestamp};
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::{
    Charge, ChargeAt, GRANT_REMEMBERED, Grant, Hold, Idempotency, Key, LeaseUse, Ledger, REMEMBERED_BRIEFLY,
    Raised, RaisedHold, Settled,
};
use policy::model::{Period, Unit, Window, ZoneName};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// One rate of a policy.
#[derive(Clone, Debug)]
struct Rate {
    unit: Unit,
    window: Window,
    max: u64,
    /// Whether a hold that lapses is charged.
    charges_lapsed: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        id: u8,
        wants: Vec<Want>,
    },
    Commit {
        id: u8,
        charges: Vec<(Bucket, u64)>,
    },
    Raise {
        id: u8,
        holds: Vec<(Bucket, u64, bool)>,
    },
    /// An operator resets a bucket.
    Reset(Bucket),
    /// An operator raises a bucket's maximum.
    Grant {
        bucket: Bucket,
        amount: u64,
        id: u8,
    },
    Wait(u64),
    Sweep,
    /// All workers with even ids, or all workers with odd ids, are gone.
    Die(u8),
}

/// The number of a rate and of a user.
type Bucket = (usize, u8);

#[derive(Clone, Debug)]
struct Want {
    bucket: Bucket,
    amount: u64,
    /// The call's own maximum.
    max: Option<u64>,
    ttl: u64,
    enforced: bool,
}

/// A policy, and a sequence of events.
#[derive(Clone, Debug)]
struct Story {
    /// The number of seconds before a clock change in some time zone. `None` means now.
    before_change: Option<u64>,
    policy: Vec<Rate>,
    steps: Vec<Step>,
}

const ZONES: &[&str] = &["UTC", "America/New_York", "Asia/Kolkata"];

fn rate() -> impl Strategy<Value = Rate> {
    let unit = prop::sample::select(vec![
        Unit::Tokens,
        Unit::Usd,
        Unit::Requests,
        Unit::Requests,
        Unit::Concurrency,
    ]);
    let window = prop_oneof![
        3 => (1..90u64).prop_map(|seconds| Window::Fixed(Duration::from_secs(seconds))),
        2 => (1..300u64).prop_map(|seconds| Window::Sliding(Duration::from_secs(seconds))),
        1 => (prop::sample::select(Period::NAMED), prop::sample::select(ZONES))
            .prop_map(|((_, period), zone)| Window::Period(period, ZoneName::parse(zone).unwrap())),
    ];
    (unit, window, 0..120u64, any::<bool>()).prop_map(|(unit, window, max, charges)| {
        let window = if unit == Unit::Concurrency { Window::Now } else { window };
        let max = if unit == Unit::Concurrency { max % 5 } else { max };
        let charges_lapsed = charges && matches!(unit, Unit::Tokens | Unit::Usd);
        Rate { unit, window, max, charges_lapsed }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let bucket = (0..4usize, 0..2u8);
    let raised = bucket.clone();
    let want = (
        bucket.clone(),
        0..40u64,
        prop::option::weighted(0.3, 0..100u64),
        1..100u64,
        prop::bool::weighted(0.8),
    );
    let want =
        want.prop_map(|(bucket, amount, max, ttl, enforced)| Want { bucket, amount, max, ttl, enforced });
    prop_oneof![
        8 => (0..8u8, prop::collection::vec(want, 0..4)).prop_map(|(id, wants)| Step::Reserve { id, wants }),
        6 => (0..8u8, prop::collection::vec((bucket, 0..60u64), 0..4))
            .prop_map(|(id, charges)| Step::Commit { id, charges }),
        4 => (0..8u8, prop::collection::vec((raised, 0..80u64, any::<bool>()), 0..4))
            .prop_map(|(id, holds)| Step::Raise { id, holds }),
        1 => (0..4usize, 0..2u8).prop_map(Step::Reset),
        2 => ((0..4usize, 0..2u8), 1..60u64, 0..3u8)
            .prop_map(|(bucket, amount, id)| Step::Grant { bucket, amount, id }),
        4 => (0..40u64).prop_map(Step::Wait),
        1 => (1..40 * 24 * 3600u64).prop_map(Step::Wait),
        2 => Just(Step::Sweep),
        1 => (0..2u8).prop_map(Step::Die),
    ]
}

fn story() -> impl Strategy<Value = Story> {
    let before_change = prop::option::of(0..3 * 86_400u64);
    (before_change, prop::collection::vec(rate(), 1..5), prop::collection::vec(step(), 1..60)).prop_map(
        |(before_change, mut policy, mut steps)| {
            // A policy cannot have two rates of one limit with the same unit and window.
            let mut known = Vec::new();
            policy.retain(|rate| {
                let new = !known.contains(&(rate.unit, rate.window.clone()));
                known.push((rate.unit, rate.window.clone()));
                new
            });
            let rates = policy.len();
            for step in &mut steps {
                match step {
                    Step::Reserve { wants, .. } => wants.iter_mut().for_each(|want| {
                        want.bucket.0 %= rates;
                        if matches!(policy[want.bucket.0].unit, Unit::Requests | Unit::Concurrency) {
                            want.amount = 1;
                        }
                    }),
                    Step::Commit { charges, .. } => charges.iter_mut().for_each(|((rate, _), amount)| {
                        *rate %= rates;
                        // Some commits refund the charge at admission, some confirm it, and some add to it.
                        if policy[*rate].unit == Unit::Requests {
                            *amount %= 3;
                        }
                    }),
                    Step::Raise { holds, .. } => {
                        holds.iter_mut().for_each(|((rate, _), ..)| *rate %= rates);
                    }
                    Step::Reset((rate, _)) | Step::Grant { bucket: (rate, _), .. } => *rate %= rates,
                    Step::Wait(_) | Step::Sweep | Step::Die(_) => {}
                }
            }
            // A sliding window does not end, so it has no grants.
            let slides = |rate: &usize| matches!(policy[*rate].window, Window::Sliding(_));
            steps.retain(|step| !matches!(step, Step::Grant { bucket: (rate, _), .. } if slides(rate)));
            Story { before_change, policy, steps }
        },
    )
}

fn key(policy: &[Rate], (rate, user): Bucket) -> Arc<Key> {
    let counters = Arc::from([("auth.identity.userid".to_owned(), user.to_string())]);
    let Rate { unit, window, .. } = policy[rate].clone();
    Arc::new(Key { limit: "default/llm/free".into(), unit, window, counters })
}

/// The id of a call. Ids from long ago may be forgotten, so they are not used again.
type Id = (u32, u8);

#[derive(Default)]
struct Model {
    /// The time since 1970.
    now: u64,
    age: u32,
    /// Bucket → (end, used, number of the window).
    windows: BTreeMap<Bucket, (u64, u64, usize)>,
    /// The slots of sliding windows, from oldest to newest.
    slots: BTreeMap<Bucket, Vec<Slot>>,
    made: usize,
    /// The amounts granted in the running windows.
    granted: BTreeMap<Bucket, u64>,
    /// The ids of grants, and how long each is remembered.
    grants: BTreeMap<(Bucket, u8), u64>,
    live: BTreeMap<Id, Reservation>,
    past: BTreeMap<Id, Past>,
}

struct Slot {
    start: u64,
    end: u64,
    used: u64,
    number: usize,
}

/// A reservation. Each hold has a bucket, an amount and the time when it lapses.
#[derive(Clone, Default)]
struct Reservation {
    holds: Vec<(Bucket, u64, u64)>,
    advances: Vec<Advance>,
    /// The wants that had no room but were not enforced.
    excused: Vec<usize>,
    until: u64,
}

#[derive(Clone)]
enum Past {
    Settled,
    /// Settled without a charge, and remembered until this time.
    Over(u64),
    Lapsed(Vec<Advance>),
}

/// A charge before the commit.
#[derive(Clone)]
struct Advance {
    bucket: Bucket,
    amount: u64,
    /// The number of the charged window.
    window: usize,
    at_lapse: bool,
}

impl Model {
    fn pass(&mut self, policy: &[Rate], seconds: u64) {
        self.now += seconds;
        self.age += u32::from(seconds > 100);
        let now = self.now;
        self.windows.retain(|_, (end, ..)| *end > now);
        self.granted.retain(|bucket, _| self.windows.contains_key(bucket));
        self.slots.values_mut().for_each(|slots| slots.retain(|slot| slot.end > now));
        let ids: Vec<Id> = self.live.keys().copied().collect();
        ids.into_iter().for_each(|id| self.lapse(policy, id, |until| until <= now));
        let over = |reservation: &Reservation| reservation.holds.is_empty() && reservation.until <= now;
        let lapsed: Vec<Id> = self.live.iter().filter(|(_, it)| over(it)).map(|(id, _)| *id).collect();
        for id in lapsed {
            let reservation = self.live.remove(&id).unwrap();
            self.past.insert(id, Past::Lapsed(reservation.advances));
        }
    }

    /// Ends the holds of a reservation for which `ends` is true.
    fn lapse(&mut self, policy: &[Rate], id: Id, ends: impl Fn(u64) -> bool) {
        let holds = std::mem::take(&mut self.live.get_mut(&id).unwrap().holds);
        let (over, left): (Vec<_>, Vec<_>) = holds.into_iter().partition(|(.., until)| ends(*until));
        let mut advances = Vec::new();
        for (bucket, amount, until) in over {
            let Rate { window, charges_lapsed, .. } = &policy[bucket.0];
            let lapsed = until.min(self.now);
            let end = match window {
                Window::Fixed(length) | Window::Sliding(length) => lapsed + length.as_secs(),
                Window::Period(period, zone) => naive_end(*period, zone, lapsed),
                Window::Now => continue,
            };
            if *charges_lapsed && end > self.now {
                let window = self.charge(policy, bucket, amount);
                advances.push(Advance { bucket, amount, window, at_lapse: true });
            }
        }
        let reservation = self.live.get_mut(&id).unwrap();
        reservation.holds = left;
        reservation.advances.extend(advances);
    }

    fn die(&mut self, policy: &[Rate], worker: u8) {
        let gone: Vec<Id> = self.live.keys().filter(|(_, id)| id % 2 == worker).copied().collect();
        for id in gone {
            self.lapse(policy, id, |_| true);
            let reservation = self.live.remove(&id).unwrap();
            self.past.insert(id, Past::Lapsed(reservation.advances));
        }
    }

    fn past(&self, id: Id) -> Option<Past> {
        let over = |past: &&Past| matches!(past, Past::Over(until) if *until <= self.now);
        self.past.get(&id).filter(|past| !over(past)).cloned()
    }

    fn granted(&self, bucket: Bucket) -> u64 {
        self.granted.get(&bucket).copied().unwrap_or_default()
    }

    /// Returns whether there was anything to reset.
    fn reset(&mut self, bucket: Bucket) -> bool {
        let granted = self.granted.remove(&bucket).is_some();
        let slots = self.slots.remove(&bucket).unwrap_or_default();
        let slid = slots.iter().any(|slot| slot.used > 0);
        self.windows.remove(&bucket).is_some_and(|(_, used, _)| used > 0) || granted || slid
    }

    /// Returns whether the id was known.
    fn grant(&mut self, policy: &[Rate], bucket: Bucket, amount: u64, id: u8) -> bool {
        if self.grants.get(&(bucket, id)).is_some_and(|until| *until > self.now) {
            return true;
        }
        // Charging and refunding an amount starts the window.
        self.charge(policy, bucket, 1);
        let window = self.windows.get_mut(&bucket).unwrap();
        window.1 -= 1;
        self.grants.insert((bucket, id), window.0.saturating_add(GRANT_REMEMBERED.as_secs()));
        *self.granted.entry(bucket).or_default() += amount;
        false
    }

    fn used(&self, bucket: Bucket) -> u64 {
        let slots = self.slots.get(&bucket).into_iter().flatten().map(|slot| slot.used);
        self.windows.get(&bucket).map_or(0, |(_, used, _)| *used) + slots.sum::<u64>()
    }

    /// Returns when the window of a bucket ends, or when the usage of a sliding one will have fallen to this
    /// amount.
    fn end(&self, bucket: Bucket, at_most: Option<u64>) -> Option<u64> {
        let mut used = self.used(bucket);
        let slots = self.slots.get(&bucket).into_iter().flatten();
        let mut slots = slots.map(|slot| {
            used -= slot.used;
            (slot.end, used)
        });
        let enough = slots.find(|(end, left)| {
            at_most.is_some_and(|at_most| *left <= at_most) || self.newest(bucket) == Some(*end)
        });
        enough.map(|(end, _)| end).or_else(|| self.windows.get(&bucket).map(|(end, ..)| *end))
    }

    fn newest(&self, bucket: Bucket) -> Option<u64> {
        Some(self.slots.get(&bucket)?.last()?.end)
    }

    fn held(&self, bucket: Bucket) -> u64 {
        let holds = self.live.values().flat_map(|reservation| &reservation.holds);
        holds.filter(|(of, ..)| *of == bucket).map(|(_, amount, _)| amount).sum()
    }

    fn charge(&mut self, policy: &[Rate], bucket: Bucket, amount: u64) -> usize {
        let end = match &policy[bucket.0].window {
            Window::Sliding(length) => return self.charge_slot(bucket, amount, *length),
            Window::Fixed(length) => self.now + length.as_secs(),
            Window::Period(period, zone) => naive_end(*period, zone, self.now),
            Window::Now => return 0,
        };
        if amount == 0 {
            return 0;
        }
        self.made += 1;
        let window = self.windows.entry(bucket).or_insert((end, 0, self.made));
        window.1 += amount;
        window.2
    }

    fn charge_slot(&mut self, bucket: Bucket, amount: u64, length: Duration) -> usize {
        if amount == 0 {
            return 0;
        }
        self.made += 1;
        let (now, end) = (self.now, self.now + length.as_secs());
        let slots = self.slots.entry(bucket).or_default();
        // A sixtieth of the window.
        if slots
            .last()
            .is_none_or(|slot| (now - slot.start) * 1000 >= (length.as_millis() as u64).div_ceil(60))
        {
            slots.push(Slot { start: now, end, used: 0, number: self.made });
        }
        let slot = slots.last_mut().unwrap();
        (slot.used, slot.end) = (slot.used + amount, end);
        slot.number
    }

    /// Returns the wants of a reserve that have no room but are not enforced. A repeated reserve returns
    /// those of the first call.
    fn excused(&self, policy: &[Rate], id: u8, wants: &[Want]) -> Vec<usize> {
        let id = (self.age, id);
        if let Some(reservation) = self.live.get(&id) {
            return reservation.excused.clone();
        }
        let mut taken = BTreeMap::<Bucket, u64>::new();
        let mut excused = Vec::new();
        for (at, want) in wants.iter().enumerate().filter(|_| self.past(id).is_none()) {
            let (amount, max) = (want.amount.max(1), want.max.unwrap_or(policy[want.bucket.0].max));
            let taken = taken.entry(want.bucket).or_default();
            let fits = self.used(want.bucket) + self.held(want.bucket) + *taken + amount
                <= max + self.granted(want.bucket);
            *taken += if fits || !want.enforced { amount } else { 0 };
            excused.extend((!fits && !want.enforced).then_some(at));
        }
        excused
    }

    fn reserve(&mut self, policy: &[Rate], id: u8, wants: &[Want]) -> (bool, Idempotency) {
        let excused = self.excused(policy, id, wants);
        let id = (self.age, id);
        if self.live.contains_key(&id) {
            return (true, Idempotency::Repeated);
        }
        if self.past(id).is_some() {
            return (true, Idempotency::Late);
        }
        let mut taken = BTreeMap::<Bucket, u64>::new();
        let mut admitted = true;
        for want in wants {
            let (amount, max) = (want.amount.max(1), want.max.unwrap_or(policy[want.bucket.0].max));
            let before =
                self.used(want.bucket) + self.held(want.bucket) + taken.get(&want.bucket).unwrap_or(&0);
            if before + amount <= max + self.granted(want.bucket) || !want.enforced {
                *taken.entry(want.bucket).or_default() += amount;
            } else {
                admitted = false;
            }
        }
        if admitted && !wants.is_empty() {
            let mut reservation = Reservation { excused, ..Reservation::default() };
            for want in wants {
                let (amount, until) = (want.amount.max(1), self.now + want.ttl);
                if policy[want.bucket.0].unit == Unit::Requests {
                    let window = self.charge(policy, want.bucket, amount);
                    let advance = Advance { bucket: want.bucket, amount, window, at_lapse: false };
                    reservation.advances.push(advance);
                } else {
                    reservation.holds.push((want.bucket, amount, until));
                }
            }
            reservation.until = wants.iter().map(|want| self.now + want.ttl).min().unwrap();
            self.live.insert(id, reservation);
        }
        (admitted, Idempotency::First)
    }

    fn raise(&mut self, policy: &[Rate], id: u8, holds: &[(Bucket, u64, bool)]) -> Raised {
        let Some(reservation) = self.live.get_mut(&(self.age, id)) else { return Raised::Unknown };
        let mut enforced = Vec::new();
        for (bucket, total, is_enforced) in holds {
            if let Some((_, amount, _)) = reservation.holds.iter_mut().find(|(of, ..)| of == bucket) {
                *amount = (*amount).max(*total);
                enforced.extend(is_enforced.then_some(*bucket));
            }
        }
        let has_room = |of: &Bucket| self.used(*of) + self.held(*of) <= policy[of.0].max + self.granted(*of);
        if enforced.iter().all(has_room) { Raised::Held } else { Raised::OutOfRoom }
    }

    fn commit(&mut self, policy: &[Rate], id: u8, charges: &[(Bucket, u64)]) -> Settled {
        let id = (self.age, id);
        let (settled, mut advances) = match (self.live.remove(&id), self.past(id)) {
            (Some(reservation), _) => (Settled::Released, reservation.advances),
            (None, Some(Past::Settled | Past::Over(_))) => return Settled::AlreadySettled,
            (None, Some(Past::Lapsed(advances))) => (Settled::Charged, advances),
            (None, None) => (Settled::Charged, Vec::new()),
        };
        let costs = |(of, amount): &(Bucket, u64)| *amount > 0 && policy[of.0].unit != Unit::Concurrency;
        let brief = REMEMBERED_BRIEFLY.as_secs();
        let past = if charges.iter().any(costs) { Past::Settled } else { Past::Over(self.now + brief) };
        self.past.insert(id, past);
        for (bucket, amount) in charges {
            let mut amount = *amount;
            for advance in advances.iter_mut().filter(|advance| advance.bucket == *bucket) {
                let confirmed = amount.min(advance.amount);
                self.refund(advance, advance.amount - confirmed);
                amount -= confirmed;
                advance.amount = 0;
            }
            self.charge(policy, *bucket, amount);
        }
        for advance in advances.iter().filter(|advance| advance.at_lapse) {
            self.refund(advance, advance.amount);
        }
        settled
    }

    fn refund(&mut self, advance: &Advance, amount: u64) {
        if let Some((_, used, running)) = self.windows.get_mut(&advance.bucket)
            && *running == advance.window
        {
            *used -= amount;
        }
        let slots = self.slots.get_mut(&advance.bucket).into_iter().flatten();
        if let Some(slot) = slots.into_iter().find(|slot| slot.number == advance.window) {
            slot.used -= amount;
        }
    }
}

/// Finds the first time when a wall clock shows another period, first in steps of days and then in steps of
/// quarters of an hour.
fn naive_end(period: Period, zone: &ZoneName, now: u64) -> u64 {
    const QUARTER: u64 = 900;
    let zone = TimeZoneDatabase::bundled().get(zone.name()).unwrap();
    let shown = |second: u64| {
        let clock = Timestamp::from_second(second as i64).unwrap().to_zoned(zone.clone());
        let date = clock.date();
        let (year, month) = (i64::from(date.year()), i64::from(date.month()));
        let days = second as i64 + i64::from(clock.offset().seconds());
        let days = days.div_euclid(86_400);
        match period {
            Period::Hour => (days, i64::from(clock.hour()), i64::from(clock.offset().seconds())),
            Period::Day => (days, 0, 0),
            // The fifth of January 1970 was a Monday.
            Period::Week => ((days - 4).div_euclid(7), 0, 0),
            Period::Month => (year, month, 0),
            Period::Quarter => (year, (month - 1) / 3, 0),
            Period::Year => (year, 0, 0),
            Period::Lifetime => (0, 0, 0),
        }
    };
    if period == Period::Lifetime {
        return u64::MAX;
    }
    let mut second = now / QUARTER * QUARTER;
    while shown(second + 86_400) == shown(now) {
        second += 86_400;
    }
    while shown(second) == shown(now) || second <= now {
        second += QUARTER;
    }
    second
}

/// Returns a time shortly before the next change of clocks in New York.
fn before_the_next_change(seconds: u64) -> u64 {
    let zone = TimeZoneDatabase::bundled().get("America/New_York").unwrap();
    let later = Timestamp::now() + SignedDuration::from_hours(7 * 24);
    let change = zone.following(later).next().unwrap().timestamp();
    change.as_second() as u64 - seconds
}

fn worker_name(worker: u8) -> String {
    format!("{worker:032x}")
}

fn named(age: u32, id: u8) -> String {
    format!("{}-{age}-{id}", worker_name(id % 2))
}

/// Plays a story on adapters that share a storage. Each call goes to another adapter. Compares everything
/// observable after each call.
async fn play(adapters: impl Fn(Moment) -> Vec<Arc<dyn Ledger>>, story: &Story, check: impl Fn(&Model)) {
    let Story { before_change, policy, steps } = story;
    let begun = Moment::now();
    // The steps are whole seconds, so the time is one too.
    let second = before_change.map_or_else(|| begun.unix.as_secs() + 1, before_the_next_change);
    let begun = Moment { unix: Duration::from_secs(second), ..begun };
    let adapters = &adapters(begun);
    let at = |model: &Model| begun + Duration::from_secs(model.now - begun.unix.as_secs());
    let mut model = Model { now: begun.unix.as_secs(), ..Model::default() };
    for (idempotency, step) in steps.iter().enumerate() {
        let (ledger, now) = (&adapters[idempotency % adapters.len()], at(&model));
        match step {
            Step::Reserve { id, wants } => {
                let holds = wants.iter().map(|want| Hold {
                    key: key(policy, want.bucket),
                    amount: want.amount,
                    max: want.max.unwrap_or(policy[want.bucket.0].max),
                    ttl: Duration::from_secs(want.ttl),
                    charge_at: match policy[want.bucket.0] {
                        Rate { unit: Unit::Requests, .. } => ChargeAt::Admission,
                        Rate { charges_lapsed: true, .. } => ChargeAt::CommitOrLapse,
                        Rate { charges_lapsed: false, .. } => ChargeAt::Commit,
                    },
                    enforced: want.enforced,
                    warn_at: None,
                    lease: LeaseUse::None,
                });
                let named = named(model.age, *id);
                let outcome = ledger.reserve(&named, holds.collect(), now).await.unwrap();
                let excused = outcome.statuses.iter().enumerate().filter(|(_, status)| status.excused);
                let excused: Vec<usize> = excused.map(|(at, _)| at).collect();
                let mut wanted = model.excused(policy, *id, wants);
                // A repeated reserve may contain other holds.
                wanted.retain(|at| wants.get(*at).is_some_and(|want| !want.enforced));
                assert_eq!(excused, wanted, "{step:?}");
                assert_eq!(
                    (outcome.admitted, outcome.idempotency),
                    model.reserve(policy, *id, wants),
                    "{step:?}"
                );
                for (status, want) in outcome.statuses.iter().zip(wants) {
                    let taken = model.used(want.bucket) + model.held(want.bucket);
                    assert_eq!(status.remaining, status.max.saturating_sub(taken), "{step:?}");
                    let ends = policy[want.bucket.0].window.ends();
                    let full = status.limited || status.excused;
                    let at_most = full.then(|| status.max.saturating_sub(want.amount.max(1)));
                    if let Some(end) = model.end(want.bucket, at_most).filter(|_| ends) {
                        assert_eq!(status.reset.as_secs(), end - model.now, "{step:?}");
                    }
                }
            }
            Step::Commit { id, charges } => {
                let wire = charges.iter().map(|(of, amount)| Charge {
                    key: key(policy, *of),
                    amount: *amount,
                    warn_at: None,
                    draw: None,
                });
                let named = named(model.age, *id);
                let settled = ledger.commit(&named, wire.collect(), now).await.unwrap();
                assert_eq!(settled, model.commit(policy, *id, charges), "{step:?}");
            }
            Step::Raise { id, holds } => {
                let wire = holds.iter().map(|(of, total, enforced)| RaisedHold {
                    key: key(policy, *of),
                    total: *total,
                    max: policy[of.0].max,
                    enforced: *enforced,
                });
                let wire: Vec<_> = wire.collect();
                let named = named(model.age, *id);
                let wanted = model.raise(policy, *id, holds);
                // Repeating a raise changes nothing.
                for ledger in adapters {
                    assert_eq!(ledger.raise(&named, wire.clone(), now).await.unwrap(), wanted, "{step:?}");
                }
            }
            Step::Reset(bucket) => {
                let reset = ledger.reset(vec![key(policy, *bucket)], now).await.unwrap();
                assert_eq!(!reset.is_empty(), model.reset(*bucket), "{step:?}");
            }
            Step::Grant { bucket, .. } if policy[bucket.0].unit == Unit::Concurrency => {}
            Step::Grant { bucket, amount, id } => {
                let grant = Grant { key: key(policy, *bucket), amount: *amount, id: id.to_string() };
                let granted = ledger.grant(grant, now).await.unwrap();
                assert_eq!(granted.is_repeated, model.grant(policy, *bucket, *amount, *id), "{step:?}");
                let found = (granted.reading.used, granted.reading.held, granted.reading.granted);
                let wanted = (model.used(*bucket), model.held(*bucket), model.granted(*bucket));
                assert_eq!(found, wanted, "{step:?}");
            }
            Step::Wait(seconds) => model.pass(policy, *seconds),
            Step::Sweep => ledger.sweep(now).await.unwrap(),
            Step::Die(worker) => {
                // One adapter records that the worker is gone, and another adapter releases its holds.
                ledger.attend(&[worker_name(*worker)], Duration::ZERO, now).await.unwrap();
                adapters[(idempotency + 1) % adapters.len()].release_gone(now).await.unwrap();
                model.die(policy, *worker);
            }
        }
        let readings = ledger.readings(at(&model)).await.unwrap();
        let mut books: Vec<_> =
            readings.into_iter().map(|r| (r.key.clone(), r.used, r.held, r.granted)).collect();
        books.sort();
        let buckets = (0..policy.len()).flat_map(|rate| (0..2).map(move |user| (rate, user)));
        let mut wanted: Vec<_> =
            buckets.map(|of| (key(policy, of), model.used(of), model.held(of), model.granted(of))).collect();
        wanted.retain(|(_, used, held, granted)| used + held + granted > 0);
        wanted.sort();
        assert_eq!(books, wanted, "after {step:?}");
        check(&model);
    }
    let end = at(&model) + Duration::from_secs(400 * 24 * 3600);
    for ledger in adapters {
        ledger.sweep(end).await.unwrap();
        let size = ledger.size().await.unwrap();
        let left = policy.iter().any(|rate| !rate.window.ends());
        let counters = if left { size.counters } else { 0 };
        assert_eq!(
            (size.counters, size.holds, size.reservations),
            (counters, 0, 0),
            "something is left behind"
        );
    }
}

/// Returns the part of a story in which every commit ends an admitted reservation and charges at most its
/// holds. In this part, estimates are never too low, so every limit is enforced exactly.
fn exact(Story { before_change, policy, mut steps }: Story) -> Story {
    let now = before_change.map_or_else(|| Moment::now().unix.as_secs() + 1, before_the_next_change);
    let mut model = Model { now, ..Model::default() };
    let mut held: BTreeMap<Id, BTreeMap<Bucket, u64>> = BTreeMap::new();
    steps.retain_mut(|step| match step {
        Step::Reserve { id, wants } => {
            // Each exchange holds a bucket only once, and for long enough.
            wants.sort_by_key(|want| want.bucket);
            wants.dedup_by_key(|want| want.bucket);
            for want in wants.iter_mut() {
                (want.ttl, want.max, want.enforced) = (90 * 24 * 3600, None, true);
            }
            let (name, new) = ((model.age, *id), model.reserve(&policy, *id, wants));
            if new == (true, Idempotency::First) {
                held.insert(name, wants.iter().map(|want| (want.bucket, want.amount.max(1))).collect());
            }
            new.1 == Idempotency::First
        }
        Step::Commit { id, charges } => {
            let Some(most) = held.remove(&(model.age, *id)) else { return false };
            let asked: BTreeMap<Bucket, u64> = charges.drain(..).collect();
            let within =
                most.iter().map(|(of, most)| (*of, asked.get(of).map_or(*most, |asked| *asked.min(most))));
            *charges = within.collect();
            model.commit(&policy, *id, charges);
            true
        }
        Step::Wait(seconds) => {
            *seconds %= 100;
            model.pass(&policy, *seconds);
            true
        }
        Step::Reset(bucket) => {
            model.reset(*bucket);
            true
        }
        // A charge may outlive the grant.
        Step::Grant { .. } => false,
        Step::Sweep => true,
        // The charge may exceed the limit.
        Step::Raise { .. } => false,
        // The hold would be missing when the usage is charged.
        Step::Die(_) => false,
    });
    Story { before_change, policy, steps }
}

fn within_every_limit(policy: &[Rate]) -> impl Fn(&Model) {
    move |model| {
        for (number, rate) in policy.iter().enumerate() {
            for user in 0..2 {
                let taken = model.used((number, user)) + model.held((number, user));
                assert!(taken <= rate.max, "{taken} of {rate:?}");
            }
        }
    }
}

/// Plays this many stories, each on new adapters.
fn every_story(cases: u32, adapters: impl Fn(Moment) -> Vec<Arc<dyn Ledger>>) {
    every_story_of(cases, story(), adapters);
}

/// Plays this many of these stories, and the exact parts of as many.
fn every_story_of(
    cases: u32,
    stories: impl Strategy<Value = Story>,
    adapters: impl Fn(Moment) -> Vec<Arc<dyn Ledger>>,
) {
    let runtime = Runtime::new().unwrap();
    let config = || ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config())
        .run(&stories, |story| {
            runtime.block_on(play(&adapters, &story, |_| {}));
            Ok(())
        })
        .unwrap();
    TestRunner::new(config())
        .run(&stories.prop_map(exact), |story| {
            runtime.block_on(play(&adapters, &story, within_every_limit(&story.policy)));
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_story_in_memory_agrees_with_the_model() {
    every_story(500, |_| vec![Arc::new(MemoryLedger::new(1000_usize, Moment::now()))]);
}

#[test]
fn any_story_of_two_adapters_on_one_redis_agrees_with_the_model() {
    let redis = Redis::start();
    every_story(300, |_| {
        redis.command(&["FLUSHALL"]);
        // The clock of the second adapter is wrong.
        (0..2).map(|one| in_redis_of_a_clock_ahead(&redis, 0, 1000, one * 40 * 86_400_000)).collect()
    });
}

#[test]
fn any_story_of_an_adapter_that_restarts_agrees_with_the_model() {
    every_story(40, |begun| vec![Arc::new(RestartedLedger::new(begun))]);
}
