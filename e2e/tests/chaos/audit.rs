//! Compares the counters with what clients were told.

use crate::clients::{Outcome, Sent, USAGE, name};
use crate::kills::{Kills, Victim};
use e2e::adapter::Counter;

/// What a user was charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub requests: u64,
    /// How many holds have lapsed.
    pub lapsed: u64,
}

/// The accounts of all users.
pub type Books = [Account; USAGE.len()];

/// What a round may add to an account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The requests that must be charged.
    certain: u64,
    /// The requests that may be charged.
    pub doubtful: u64,
    may_lapse: u64,
}

/// From when a request survives a kill of Envoy, because the adapter knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As soon as it is admitted, even if the adapter is killed, too.
    Admission,
    /// As soon as it is admitted, unless the adapter is killed, too, before it has written the hold.
    Write,
    /// Once it is charged: until then, the adapter may know only of a lease.
    Charge,
}

/// Returns what is known about the requests of each user.
pub fn expected(sent: &[Sent], kills: &Kills, durability: Durability) -> [Expected; USAGE.len()] {
    let mut all = [Expected::default(); USAGE.len()];
    for Sent { user, envoy_kills, adapter_kills, outcome } in sent {
        let expected = &mut all[*user];
        let has_lost_envoy = kills.of(Victim::Envoy) > *envoy_kills;
        let may_lose_hold = match durability {
            Durability::Admission => false,
            Durability::Write => kills.of(Victim::Adapter) > *adapter_kills,
            Durability::Charge => true,
        };
        match outcome {
            Outcome::Refused => continue,
            Outcome::Told { is_admitted } if has_lost_envoy && (!is_admitted || may_lose_hold) => {
                expected.doubtful += 1;
            }
            Outcome::Told { .. } => expected.certain += 1,
            Outcome::Cut => {
                assert!(has_lost_envoy, "an Envoy that is running has cut a response");
                expected.doubtful += 1;
            }
        }
        expected.may_lapse += u64::from(has_lost_envoy);
    }
    all
}

/// Returns each user's account, if nothing is held and the counters agree with each other.
pub fn books(counters: &[Counter]) -> Result<Books, String> {
    if let Some(held) = counters.iter().find(|counter| counter.held > 0) {
        return Err(format!("it is held: {held:?}"));
    }
    let used = |limit: &str, unit: &str, who: Option<&String>| {
        let mine = counters.iter().filter(|counter| counter.limit == limit && counter.unit == unit);
        let mut mine = mine.filter(|counter| counter.counters.values().next() == who);
        mine.next().map_or(0, |counter| counter.used)
    };
    let mut books = Books::default();
    let (mut requests, mut tokens) = (0, 0);
    for (user, (account, usage)) in books.iter_mut().zip(USAGE).enumerate() {
        let who = name(user);
        account.requests = used("exact", "requests", Some(&who));
        let exact = used("exact", "tokens", Some(&who));
        let double = used("double", "tokens", Some(&who));
        if exact != account.requests * usage || double < exact || !double.is_multiple_of(usage) {
            return Err(format!("{who}: {exact} tokens of {} requests, or {double}", account.requests));
        }
        account.lapsed = (double - exact) / usage;
        requests += account.requests;
        tokens += exact;
    }
    let all = (used("all", "requests", None), used("all", "tokens", None));
    if all == (requests, tokens) { Ok(books) } else { Err(format!("{all:?} of all, but {books:?}")) }
}

/// Compares what a round has changed with what its clients were told.
pub fn compare(before: &Books, now: &Books, expected: &[Expected]) -> Result<(), String> {
    for (user, ((before, now), expected)) in before.iter().zip(now).zip(expected).enumerate() {
        let Expected { certain, doubtful, may_lapse } = *expected;
        let charged = now.requests.checked_sub(before.requests);
        let lapsed = now.lapsed.checked_sub(before.lapsed);
        let is_right = charged.is_some_and(|charged| (certain..=certain + doubtful).contains(&charged))
            && lapsed.is_some_and(|lapsed| lapsed <= may_lapse);
        if !is_right {
            return Err(format!("{}: charged {charged:?}, lapsed {lapsed:?} of {expected:?}", name(user)));
        }
    }
    Ok(())
}
