//! The grants of the in-memory ledger. Each id takes effect once.

use super::buckets::after;
use super::changes::ChangeSet;
use super::state::MemoryState;
use crate::ledger::moment::Moment;
use crate::ledger::{CounterReading, GRANT_REMEMBERED, Grant, Granted, Unavailable};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// The maximum number of remembered ids. Operators make grants, so there are few.
const MAX_IDS: usize = 1 << 16;

/// The ids of grants, and when each may be forgotten.
#[derive(Default)]
pub struct GrantIds {
    pub ends: HashMap<u64, Instant>,
    pub changed: ChangeSet<u64>,
}

impl GrantIds {
    fn knows(&self, id: u64, now: Moment) -> bool {
        self.ends.get(&id).is_some_and(|until| *until > now.instant)
    }

    fn has_room(&mut self, now: Moment) -> bool {
        if self.ends.len() >= MAX_IDS {
            self.ends.retain(|_, until| *until > now.instant);
        }
        self.ends.len() < MAX_IDS
    }
}

impl MemoryState {
    /// Raises the maximum of a bucket, unless a grant with this id has been made before.
    pub fn grant(&mut self, grant: &Grant, id: u64, now: Moment) -> Result<Granted, Unavailable> {
        let is_repeated = self.grants.knows(id, now);
        if !is_repeated {
            if !self.grants.has_room(now) {
                return Err(Unavailable::full("too many grants are remembered"));
            }
            let seat = self.buckets.seat(&grant.key);
            if seat.overflow.is_some() {
                return Err(Unavailable::full("the limit has no room for another counter"));
            }
            let place = self.buckets.sit(&grant.key, &seat);
            self.buckets.grant(place, grant.amount, now)?;
        }
        let place = self.buckets.find(&grant.key);
        let reading = place.and_then(|place| self.buckets.readings([place], now).pop());
        let none = CounterReading {
            key: Arc::clone(&grant.key),
            used: 0,
            held: 0,
            leased: 0,
            granted: 0,
            reset: None,
        };
        let reading = reading.unwrap_or(none);
        if !is_repeated {
            let until = after(now, reading.reset.unwrap_or_default().saturating_add(GRANT_REMEMBERED));
            self.grants.ends.insert(id, until);
            self.grants.changed.note(id);
        }
        Ok(Granted { reading, is_repeated })
    }
}
