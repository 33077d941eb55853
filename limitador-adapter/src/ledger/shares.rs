//! Divides the memory for counters among limits. A client that invents counter values fills only the share of
//! its own limit.
//!
//! Half of the memory is divided evenly among the limits. If a limit needs more than its guaranteed share, it
//! takes memory from the other half, first come, first served. If there is no room, the limit's overflow
//! bucket counts further users. Overflow buckets are always available, because the number of limits and rates
//! is small.

use std::collections::HashMap;
use std::sync::Arc;

/// The capacity for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// A number of counters.
    Counters(u64),
    /// A number of bytes for all counters together.
    Bytes(u64),
}

impl From<usize> for Capacity {
    fn from(counters: usize) -> Self {
        Self::Counters(counters as u64)
    }
}

impl Capacity {
    /// Returns the capacity in its own unit.
    pub fn total(self) -> u64 {
        match self {
            Self::Counters(total) | Self::Bytes(total) => total,
        }
    }

    /// Returns how much of the capacity a counter of this many bytes takes.
    pub fn cost(self, bytes: u64) -> u64 {
        match self {
            Self::Counters(_) => 1,
            Self::Bytes(_) => bytes,
        }
    }
}

/// The capacity that each limit has taken.
pub struct Shares {
    capacity: Capacity,
    /// The number of limits in force.
    known: u64,
    taken: HashMap<Arc<str>, u64>,
    /// The amount taken beyond the guaranteed shares.
    beyond: u64,
    sum: u64,
}

impl Shares {
    /// Creates shares without any counters.
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, known: 1, taken: HashMap::new(), beyond: 0, sum: 0 }
    }

    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Returns the capacity that is taken.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Sets the number of limits in force.
    pub fn know(&mut self, limits: usize) {
        self.known = (limits as u64).max(1);
        self.count_beyond();
    }

    /// Returns whether there is room for another counter of a limit.
    pub fn has_room(&self, limit: &str, cost: u64) -> bool {
        let taken = self.taken.get(limit);
        let guaranteed = self.guaranteed(taken.is_none());
        let more = beyond(taken.copied().unwrap_or(0), cost, guaranteed);
        let promised = guaranteed.saturating_mul(self.limits(taken.is_none()));
        more == 0 || self.beyond.saturating_add(more) <= self.capacity.total().saturating_sub(promised)
    }

    /// Takes room for a counter. The caller has checked that there is room.
    pub fn take(&mut self, limit: &Arc<str>, cost: u64) {
        self.sum = self.sum.saturating_add(cost);
        let guaranteed = self.guaranteed(false);
        match self.taken.get_mut(limit) {
            Some(taken) => {
                self.beyond = self.beyond.saturating_add(beyond(*taken, cost, guaranteed));
                *taken = taken.saturating_add(cost);
            }
            None => {
                self.taken.insert(Arc::clone(limit), cost);
                // One more limit may make each guaranteed share smaller.
                self.count_beyond();
            }
        }
    }

    /// Releases the room of a counter.
    pub fn give_back(&mut self, limit: &Arc<str>, cost: u64) {
        let Some(taken) = self.taken.get_mut(limit) else { return };
        *taken = taken.saturating_sub(cost);
        self.sum = self.sum.saturating_sub(cost);
        if *taken == 0 {
            self.taken.remove(limit);
            self.count_beyond();
        } else {
            let left = *taken;
            self.beyond = self.beyond.saturating_sub(beyond(left, cost, self.guaranteed(false)));
        }
    }

    /// Returns the number of limits that share the capacity. Limits that are no longer in force may still
    /// have counters.
    fn limits(&self, one_more: bool) -> u64 {
        self.known.max((self.taken.len() as u64).saturating_add(u64::from(one_more)))
    }

    fn guaranteed(&self, one_more: bool) -> u64 {
        self.capacity.total() / 2 / self.limits(one_more)
    }

    fn count_beyond(&mut self) {
        let guaranteed = self.guaranteed(false);
        self.beyond = self.taken.values().map(|taken| taken.saturating_sub(guaranteed)).sum();
    }
}

/// Returns the part of `cost` beyond a limit's guaranteed share, given what the limit has taken before.
fn beyond(taken: u64, cost: u64, guaranteed: u64) -> u64 {
    taken.saturating_add(cost).saturating_sub(taken.max(guaranteed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take_all(shares: &mut Shares, limit: &str) -> u64 {
        let limit: Arc<str> = Arc::from(limit);
        let mut take = |_: &u64| {
            let has_room = shares.has_room(&limit, 1);
            if has_room {
                shares.take(&limit, 1);
            }
            has_room
        };
        (0..).take_while(|at| take(at)).count() as u64
    }

    #[test]
    fn a_flood_in_one_limit_leaves_the_others_their_parts() {
        let mut shares = Shares::new(Capacity::Counters(1000));
        shares.know(5);
        assert_eq!(take_all(&mut shares, "flooded"), 600, "its share, and everything that is not guaranteed");
        for other in ["a", "b", "c", "d"] {
            assert_eq!(take_all(&mut shares, other), 100);
        }
        assert_eq!(shares.sum(), 1000);
        shares.give_back(&Arc::from("flooded"), 300);
        assert_eq!(take_all(&mut shares, "a"), 300);
    }

    #[test]
    fn one_limit_alone_has_everything() {
        let mut shares = Shares::new(Capacity::Bytes(1000));
        assert_eq!(take_all(&mut shares, "a"), 1000);
        assert!(!shares.has_room("a", 1));
    }

    proptest! {
        #[test]
        fn what_is_taken_never_exceeds_what_there_is(
            limits in 1..6usize,
            steps in proptest::collection::vec((0..6usize, 1..40u64, any::<bool>()), 0..200)
        ) {
            let mut shares = Shares::new(Capacity::Bytes(1000));
            shares.know(6);
            let mut taken: Vec<Vec<u64>> = vec![Vec::new(); 6];
            for (limit, cost, takes) in steps {
                let name: Arc<str> = Arc::from((limit % limits).to_string());
                let mine = &mut taken[limit % limits];
                if takes {
                    let has = mine.iter().sum::<u64>();
                    let has_room = shares.has_room(&name, cost);
                    prop_assert!(has_room || has + cost > 1000 / 2 / 6, "its share is guaranteed");
                    if has_room {
                        shares.take(&name, cost);
                        mine.push(cost);
                    }
                } else if let Some(cost) = mine.pop() {
                    shares.give_back(&name, cost);
                }
                let sum = taken.iter().flatten().sum::<u64>();
                prop_assert!(sum <= 1000 && sum == shares.sum());
                let beyond: u64 = taken.iter().map(|one| one.iter().sum::<u64>().saturating_sub(1000 / 2 / 6)).sum();
                prop_assert_eq!(beyond, shares.beyond);
            }
        }
    }
}
