//! Any order of calls and times: the ledger agrees with a model that is too simple to be wrong.

use crate::ledger::key;
use limitador_adapter::ledger::{Charge, Hold, Key, Settled, Take, Turn};
use limitador_adapter::memory::MemoryLedger;
use limitador_adapter::moment::Moment;
use policy::model::Unit;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const WINDOW: u64 = 60;

#[derive(Clone, Debug)]
enum Step {
    Reserve { id: u8, holds: Vec<Want> },
    Commit { id: u8, charges: Vec<(u8, u64)> },
    Wait(u64),
    Sweep,
}

#[derive(Clone, Debug)]
struct Want {
    bucket: u8,
    amount: u64,
    max: u64,
    ttl: u64,
}

/// Buckets 0 to 2 count tokens, 3 counts requests.
const REQUESTS: u8 = 3;

fn bucket(bucket: u8) -> Arc<Key> {
    key(&bucket.to_string(), if bucket == REQUESTS { Unit::Requests } else { Unit::Tokens })
}

fn step(max: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = Step> {
    let want = (0..4u8, 0..40u64, max, 1..100u64).prop_map(|(bucket, amount, max, ttl)| {
        let amount = if bucket == REQUESTS { 1 } else { amount };
        Want { bucket, amount, max, ttl }
    });
    prop_oneof![
        4 => (0..8u8, prop::collection::vec(want, 0..4)).prop_map(|(id, holds)| Step::Reserve { id, holds }),
        3 => (0..8u8, prop::collection::vec((0..4u8, 0..60u64), 0..4))
            .prop_map(|(id, charges)| Step::Commit { id, charges }),
        2 => (0..40u64).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ]
}

#[derive(Default)]
struct Model {
    now: u64,
    /// Bucket → (end, used), by the number of the window.
    windows: BTreeMap<u8, (u64, u64, usize)>,
    made: usize,
    live: BTreeMap<u8, Reservation>,
    past: BTreeMap<u8, Past>,
}

#[derive(Clone, Default)]
struct Reservation {
    holds: Vec<(u8, u64, u64)>,
    /// Bucket, amount, window, for as long as the reservation is not lapsed itself.
    advances: Vec<(u8, u64, usize)>,
    until: u64,
}

#[derive(Clone)]
enum Past {
    Settled,
    Lapsed(Vec<(u8, u64, usize)>),
}

impl Model {
    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        let now = self.now;
        self.windows.retain(|_, (end, ..)| *end > now);
        for reservation in self.live.values_mut() {
            reservation.holds.retain(|(.., until)| *until > now);
        }
        let lapsed: Vec<u8> = self
            .live
            .iter()
            .filter(|(_, reservation)| reservation.holds.is_empty() && reservation.until <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in lapsed {
            let reservation = self.live.remove(&id).unwrap();
            self.past.insert(id, Past::Lapsed(reservation.advances));
        }
    }

    fn used(&self, bucket: u8) -> u64 {
        self.windows.get(&bucket).map_or(0, |(_, used, _)| *used)
    }

    fn held(&self, bucket: u8) -> u64 {
        let holds = self.live.values().flat_map(|reservation| &reservation.holds);
        holds.filter(|(of, ..)| *of == bucket).map(|(_, amount, _)| amount).sum()
    }

    fn charge(&mut self, bucket: u8, amount: u64) -> usize {
        if amount == 0 {
            return 0;
        }
        self.made += 1;
        let fresh = (self.now + WINDOW, 0, self.made);
        let window = self.windows.entry(bucket).or_insert(fresh);
        window.1 += amount;
        window.2
    }

    fn reserve(&mut self, id: u8, wants: &[Want]) -> (bool, Turn) {
        if self.live.contains_key(&id) {
            return (true, Turn::Repeated);
        }
        if self.past.contains_key(&id) {
            return (true, Turn::Late);
        }
        let mut taken = BTreeMap::<u8, u64>::new();
        let mut admitted = true;
        for want in wants {
            let amount = want.amount.max(1);
            let before =
                self.used(want.bucket) + self.held(want.bucket) + taken.get(&want.bucket).unwrap_or(&0);
            if before + amount <= want.max {
                *taken.entry(want.bucket).or_default() += amount;
            } else {
                admitted = false;
            }
        }
        if admitted && !wants.is_empty() {
            let mut reservation = Reservation::default();
            for want in wants {
                let (amount, until) = (want.amount.max(1), self.now + want.ttl);
                if want.bucket == REQUESTS {
                    let window = self.charge(REQUESTS, amount);
                    reservation.advances.push((REQUESTS, amount, window));
                } else {
                    reservation.holds.push((want.bucket, amount, until));
                }
            }
            reservation.until = wants.iter().map(|want| self.now + want.ttl).min().unwrap();
            self.live.insert(id, reservation);
        }
        (admitted, Turn::First)
    }

    fn commit(&mut self, id: u8, charges: &[(u8, u64)]) -> Settled {
        let (settled, mut advances) = match (self.live.remove(&id), self.past.get(&id).cloned()) {
            (Some(reservation), _) => (Settled::Released, reservation.advances),
            (None, Some(Past::Settled)) => return Settled::AlreadySettled,
            (None, Some(Past::Lapsed(advances))) => (Settled::Charged, advances),
            (None, None) => (Settled::Charged, Vec::new()),
        };
        self.past.insert(id, Past::Settled);
        for (bucket, amount) in charges {
            let mut amount = *amount;
            for (of, advance, window) in advances.iter_mut().filter(|(of, ..)| of == bucket) {
                let confirmed = amount.min(*advance);
                if let Some((_, used, running)) = self.windows.get_mut(of)
                    && running == window
                {
                    *used -= *advance - confirmed;
                }
                amount -= confirmed;
                *advance = 0;
            }
            self.charge(*bucket, amount);
        }
        settled
    }
}

/// Plays steps on both, and compares all that can be seen after each.
fn play(steps: &[Step], check: impl Fn(&Model)) {
    let start = Moment::now();
    let (ledger, mut model) = (MemoryLedger::new(1000, start), Model::default());
    for step in steps {
        let now = start + Duration::from_secs(model.now);
        match step {
            Step::Reserve { id, holds } => {
                let wants = holds.iter().map(|want| Hold {
                    key: bucket(want.bucket),
                    amount: want.amount,
                    max: want.max,
                    ttl: Duration::from_secs(want.ttl),
                    take: if want.bucket == REQUESTS { Take::Charge } else { Take::Hold },
                    enforced: true,
                });
                let outcome = ledger.reserve(&id.to_string(), wants.collect(), now).unwrap();
                assert_eq!((outcome.admitted, outcome.turn), model.reserve(*id, holds), "{step:?}");
                for (status, want) in outcome.statuses.iter().zip(holds) {
                    let taken = model.used(want.bucket) + model.held(want.bucket);
                    assert_eq!(status.remaining, want.max.saturating_sub(taken), "{step:?}");
                }
            }
            Step::Commit { id, charges } => {
                let wire = charges.iter().map(|(of, amount)| Charge { key: bucket(*of), amount: *amount });
                let settled = ledger.commit(&id.to_string(), &wire.collect::<Vec<_>>(), now).unwrap();
                assert_eq!(settled, model.commit(*id, charges), "{step:?}");
            }
            Step::Wait(seconds) => model.pass(*seconds),
            Step::Sweep => ledger.sweep(now).unwrap(),
        }
        let now = start + Duration::from_secs(model.now);
        let mut books: Vec<_> =
            ledger.readings(now).unwrap().into_iter().map(|r| (r.key.clone(), r.used, r.held)).collect();
        books.sort();
        let mut wanted: Vec<_> = (0..4).map(|of| (bucket(of), model.used(of), model.held(of))).collect();
        wanted.retain(|(_, used, held)| used + held > 0);
        wanted.sort();
        assert_eq!(books, wanted, "after {step:?}");
        check(&model);
    }
    let end = start + Duration::from_secs(model.now + 200_000);
    ledger.sweep(end).unwrap();
    let size = ledger.size();
    assert_eq!((size.counters, size.holds, size.reservations), (0, 0, 0), "something is left behind");
}

/// Commits that charge no more than was held, of ids that were reserved: the estimate was never too low.
fn exact(steps: Vec<Step>) -> Vec<Step> {
    let mut held: BTreeMap<u8, Vec<(u8, u64)>> = BTreeMap::new();
    let exact = steps.into_iter().filter_map(|step| match step {
        Step::Reserve { id, mut holds } if !held.contains_key(&id) => {
            // One exchange holds one bucket once, and for long enough.
            holds.sort_by_key(|want| want.bucket);
            holds.dedup_by_key(|want| want.bucket);
            holds.iter_mut().for_each(|want| want.ttl = 100_000);
            held.insert(id, holds.iter().map(|want| (want.bucket, want.amount.max(1))).collect());
            Some(Step::Reserve { id, holds })
        }
        Step::Reserve { .. } => None,
        Step::Commit { id, charges } => {
            let mut charges: Vec<_> = charges;
            charges.dedup_by_key(|(of, _)| *of);
            let within = held.get(&id)?.iter().map(|(of, most)| {
                let wanted =
                    charges.iter().find(|(charged, _)| charged == of).map_or(*most, |(_, amount)| *amount);
                (*of, wanted.min(*most))
            });
            Some(Step::Commit { id, charges: within.collect() })
        }
        other => Some(other),
    });
    exact.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_calls_agrees_with_the_model(steps in prop::collection::vec(step(0..100u64), 1..60)) {
        play(&steps, |_| {});
    }

    #[test]
    fn with_exact_charges_no_limit_is_ever_exceeded(steps in prop::collection::vec(step(Just(50)), 1..60)) {
        // A refused reservation that is committed all the same would be charged: those are no exact charges.
        let mut admitted = Model::default();
        let mut steps = exact(steps);
        steps.retain(|step| match step {
            Step::Reserve { id, holds } => { admitted.reserve(*id, holds); true }
            Step::Commit { id, charges } => {
                let live = admitted.live.contains_key(id);
                if live { admitted.commit(*id, charges); }
                live
            }
            Step::Wait(seconds) => { admitted.pass(*seconds); true }
            Step::Sweep => true,
        });
        play(&steps, |model| {
            for of in 0..4 {
                assert!(model.used(of) + model.held(of) <= 50);
            }
        });
    }
}
