//! Why calls were refused: counts per minute and rate for the last hour, and the latest refusals. Everything is
//! bounded, and lost when the adapter ends. Prometheus has the totals.

use crate::ledger::moment::Moment;
use crate::ledger::{Key, Status};
use policy::model::{Unit, Window};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The number of minutes that are kept.
pub const MINUTES: usize = 60;

/// The number of refusals that are kept one by one.
const MAX_LATEST: usize = 100;

/// The maximum length of the counters of a refusal that is kept, in bytes. A longer one is only counted, so that
/// callers cannot fill the memory.
const MAX_TEXT: usize = 4096;

/// The number of rates that are counted separately.
const MAX_RATES: usize = 4096;

/// Why a rate had no room, from the mildest to the most severe cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCause {
    /// The charges leave enough room, but other requests in flight hold it.
    InFlight,
    /// The charges of this window do not leave enough room.
    UsedUp,
    /// The request needs more than the maximum, so it can never pass.
    TooLarge,
}

/// One rate that refused a call.
#[derive(Clone, Debug)]
pub struct RateRefusal {
    pub time: Duration,
    pub key: Arc<Key>,
    pub cause: RefusalCause,
    /// The room that the call needed.
    pub needed: u64,
    /// The maximum, including grants.
    pub max: u64,
    pub used: u64,
    pub held: u64,
    /// The time until the rate has room. `None` if only an operator can make room.
    pub retry: Option<Duration>,
}

/// The number of refusals by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CauseCounts {
    pub in_flight: u64,
    pub used_up: u64,
    pub too_large: u64,
}

/// A rate, without its counters' values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RateKey {
    /// As in [`Key::limit`].
    pub limit: Arc<str>,
    pub unit: Unit,
    pub window: Window,
}

/// What is known about the last hour.
#[derive(Clone, Debug, Default)]
pub struct RefusedLately {
    /// Refused calls for each of the last [`MINUTES`] minutes, the oldest first. A call that several rates refuse
    /// counts once, under its most severe cause.
    pub minutes: Vec<(Duration, CauseCounts)>,
    /// Refusals by rate, sorted. A call counts for each rate that refuses it.
    pub rates: Vec<(RateKey, CauseCounts)>,
    /// The latest refusals, the newest first.
    pub latest: Vec<RateRefusal>,
}

/// Counts refusals.
#[derive(Debug, Default)]
pub struct RefusalLog(Mutex<RefusalState>);

#[derive(Debug, Default)]
struct RefusalState {
    calls: LastHour,
    rates: HashMap<RateKey, LastHour>,
    latest: VecDeque<RateRefusal>,
}

/// Counts per minute. Each slot belongs to the minute that it was last written in.
#[derive(Clone, Debug)]
struct LastHour([(u64, CauseCounts); MINUTES]);

impl Default for LastHour {
    fn default() -> Self {
        Self([(0, CauseCounts::default()); MINUTES])
    }
}

impl CauseCounts {
    fn add(&mut self, cause: RefusalCause) {
        let count = match cause {
            RefusalCause::InFlight => &mut self.in_flight,
            RefusalCause::UsedUp => &mut self.used_up,
            RefusalCause::TooLarge => &mut self.too_large,
        };
        *count = count.saturating_add(1);
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            in_flight: self.in_flight.saturating_add(other.in_flight),
            used_up: self.used_up.saturating_add(other.used_up),
            too_large: self.too_large.saturating_add(other.too_large),
        }
    }

    pub fn sum(self) -> u64 {
        self.in_flight.saturating_add(self.used_up).saturating_add(self.too_large)
    }
}

impl LastHour {
    fn add(&mut self, minute: u64, cause: RefusalCause) {
        if let Some((of, counts)) = self.0.get_mut(slot_of(minute)) {
            if *of != minute {
                (*of, *counts) = (minute, CauseCounts::default());
            }
            counts.add(cause);
        }
    }

    fn at(&self, minute: u64) -> CauseCounts {
        let slot = self.0.get(slot_of(minute)).filter(|(of, _)| *of == minute);
        slot.map(|(_, counts)| *counts).unwrap_or_default()
    }

    fn sum(&self, now: u64) -> CauseCounts {
        let lately = self.0.iter().filter(|(of, _)| lately(now).contains(of));
        lately.fold(CauseCounts::default(), |sum, (_, counts)| sum.plus(*counts))
    }
}

fn slot_of(minute: u64) -> usize {
    usize::try_from(minute % MINUTES as u64).unwrap_or_default()
}

fn minute_of(now: Moment) -> u64 {
    now.unix.as_secs() / 60
}

/// Returns the minutes that are kept.
fn lately(now: u64) -> std::ops::RangeInclusive<u64> {
    now.saturating_sub(MINUTES as u64 - 1)..=now
}

impl RateRefusal {
    /// Describes a rate that had no room for this amount.
    pub fn new(key: &Arc<Key>, needed: u64, status: &Status, now: Moment) -> Self {
        let held = status.max.saturating_sub(status.remaining).saturating_sub(status.used);
        let cause = if needed > status.max {
            RefusalCause::TooLarge
        } else if status.used.saturating_add(needed) > status.max {
            RefusalCause::UsedUp
        } else {
            RefusalCause::InFlight
        };
        let key = if status.overflowed { Arc::new(key.overflow()) } else { Arc::clone(key) };
        let has_end = key.window.ends() || cause == RefusalCause::InFlight;
        let retry = (has_end && cause != RefusalCause::TooLarge).then_some(status.reset);
        Self { time: now.unix, key, cause, needed, max: status.max, used: status.used, held, retry }
    }
}

impl RefusalLog {
    /// Records a refused call, with the rates that refused it.
    pub fn record(&self, refusals: Vec<RateRefusal>, now: Moment) {
        let Some(worst) = refusals.iter().map(|refusal| refusal.cause).max() else { return };
        let minute = minute_of(now);
        let mut state = self.lock();
        state.calls.add(minute, worst);
        for refusal in refusals {
            let Key { limit, unit, window, .. } = &*refusal.key;
            let rate = RateKey { limit: Arc::clone(limit), unit: *unit, window: window.clone() };
            state.count(rate, minute, refusal.cause);
            if refusal.key.text_len() <= MAX_TEXT {
                state.latest.truncate(MAX_LATEST - 1);
                state.latest.push_front(refusal);
            }
        }
    }

    /// Returns what is known about the last hour.
    pub fn lately(&self, now: Moment) -> RefusedLately {
        let now = minute_of(now);
        let state = self.lock();
        let minutes = lately(now)
            .map(|minute| (Duration::from_secs(minute.saturating_mul(60)), state.calls.at(minute)));
        let rates = state.rates.iter().map(|(rate, hour)| (rate.clone(), hour.sum(now)));
        let mut rates: Vec<_> = rates.filter(|(_, counts)| counts.sum() > 0).collect();
        let (minutes, latest) = (minutes.collect(), state.latest.iter().cloned().collect());
        drop(state);
        rates.sort_by(|(a, _), (b, _)| a.cmp(b));
        RefusedLately { minutes, rates, latest }
    }

    fn lock(&self) -> MutexGuard<'_, RefusalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefusalState {
    fn count(&mut self, rate: RateKey, minute: u64, cause: RefusalCause) {
        if self.rates.len() >= MAX_RATES && !self.rates.contains_key(&rate) {
            // Rates that refused nothing for an hour make room. Policies were edited thousands of times.
            self.rates.retain(|_, hour| hour.sum(minute).sum() > 0);
            if self.rates.len() >= MAX_RATES {
                return;
            }
        }
        self.rates.entry(rate).or_default().add(minute, cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RefusalCause::{InFlight, TooLarge, UsedUp};
    use std::time::Instant;

    fn at(minute: u64) -> Moment {
        Moment { instant: Instant::now(), unix: Duration::from_secs(minute * 60 + 7) }
    }

    fn key(limit: &str, who: &str) -> Arc<Key> {
        let counters = Arc::from([("auth.identity.userid".to_owned(), who.to_owned())]);
        let window = Window::Fixed(Duration::from_secs(3600));
        Arc::new(Key { limit: limit.into(), unit: Unit::Tokens, window, counters })
    }

    fn status(max: u64, used: u64, held: u64) -> Status {
        let remaining = max.saturating_sub(used + held);
        let reset = Duration::from_secs(60);
        Status { limited: true, excused: false, max, remaining, reset, used, overflowed: false, leased: 0 }
    }

    fn refusal(limit: &str, needed: u64, (max, used, held): (u64, u64, u64), minute: u64) -> RateRefusal {
        RateRefusal::new(&key(limit, "alice"), needed, &status(max, used, held), at(minute))
    }

    #[test]
    fn the_cause_is_what_would_have_to_change() {
        for (needed, status, cause, has_retry) in [
            (101, (100, 0, 0), TooLarge, false),
            (50, (100, 51, 0), UsedUp, true),
            (50, (100, 51, 40), UsedUp, true),
            (50, (100, 50, 1), InFlight, true),
            (1, (100, 250, 0), UsedUp, true),
            (1, (0, 0, 0), TooLarge, false),
        ] {
            let refusal = refusal("a/b/c", needed, status, 1000);
            assert_eq!((refusal.cause, refusal.retry.is_some()), (cause, has_retry), "{needed} {status:?}");
            assert_eq!(refusal.held, status.2, "{needed} {status:?}");
        }
    }

    #[test]
    fn a_call_counts_once_and_each_of_its_rates_counts() {
        let log = RefusalLog::default();
        log.record(
            vec![refusal("a/b/c", 50, (100, 50, 1), 1000), refusal("a/b/d", 101, (100, 0, 0), 1000)],
            at(1000),
        );
        log.record(vec![refusal("a/b/c", 50, (100, 51, 0), 1001)], at(1001));
        log.record(Vec::new(), at(1001));
        let lately = log.lately(at(1001));
        let none = CauseCounts::default();
        assert_eq!(lately.minutes.len(), MINUTES);
        assert_eq!(
            lately.minutes[MINUTES - 1],
            (Duration::from_secs(1001 * 60), CauseCounts { used_up: 1, ..none })
        );
        assert_eq!(lately.minutes[MINUTES - 2].1, CauseCounts { too_large: 1, ..none });
        assert_eq!(lately.minutes[MINUTES - 3].1, none);
        let rates: Vec<_> = lately.rates.iter().map(|(rate, counts)| (&*rate.limit, *counts)).collect();
        let wanted = [
            ("a/b/c", CauseCounts { in_flight: 1, used_up: 1, ..none }),
            ("a/b/d", CauseCounts { too_large: 1, ..none }),
        ];
        assert_eq!(rates, wanted);
        assert_eq!(
            lately.latest.iter().map(|one| one.cause).collect::<Vec<_>>(),
            [UsedUp, TooLarge, InFlight]
        );
    }

    #[test]
    fn an_hour_later_nothing_is_left_but_the_latest() {
        let log = RefusalLog::default();
        log.record(vec![refusal("a/b/c", 50, (100, 51, 0), 1000)], at(1000));
        assert_eq!(log.lately(at(1059)).minutes[0].1.used_up, 1);
        let later = log.lately(at(1060));
        assert!(later.minutes.iter().all(|(_, counts)| *counts == CauseCounts::default()));
        assert_eq!((later.rates.len(), later.latest.len()), (0, 1));
        // The minute an hour later has the same slot.
        log.record(vec![refusal("a/b/c", 50, (100, 51, 0), 1060)], at(1060));
        assert_eq!(log.lately(at(1060)).rates[0].1.sum(), 1);
    }

    #[test]
    fn nothing_grows_without_a_bound() {
        let log = RefusalLog::default();
        for index in 0..MAX_RATES + 10 {
            log.record(vec![refusal(&format!("a/b/{index}"), 50, (100, 51, 0), 1000)], at(1000));
        }
        let lately = log.lately(at(1000));
        assert_eq!((lately.rates.len(), lately.latest.len()), (MAX_RATES, MAX_LATEST));
        log.record(vec![refusal("a/b/new", 50, (100, 51, 0), 1060)], at(1060));
        assert_eq!(log.lately(at(1060)).rates.len(), 1, "rates without refusals make room");
        let long = key("a/b/long", &"x".repeat(MAX_TEXT));
        log.record(vec![RateRefusal::new(&long, 50, &status(100, 51, 0), at(1060))], at(1060));
        assert_eq!(&*log.lately(at(1060)).latest[0].key.limit, "a/b/new");
    }
}
