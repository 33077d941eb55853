//! The workers that are alive.

use super::changes::ChangeSet;
use crate::ledger::moment::Moment;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// The maximum number of tracked workers. This is enough for thousands of gateways.
const MAX_WORKERS: usize = 1 << 16;

/// The workers by their hash.
#[derive(Default)]
pub struct AttendedWorkers {
    known: HashMap<u64, Attendance>,
    pub changed: ChangeSet<u64>,
}

#[derive(Clone, Copy)]
struct Attendance {
    /// The time after which the worker counts as gone.
    until: Instant,
    /// How long it counts as alive after it was last attended.
    lives: Duration,
}

impl AttendedWorkers {
    pub fn attend(&mut self, worker: u64, lives: Duration, now: Moment) {
        let until = now.instant.checked_add(lives).unwrap_or(now.instant);
        let known = self.known.get(&worker).copied();
        if known.is_none() && self.known.len() >= MAX_WORKERS {
            return;
        }
        self.known.insert(worker, Attendance { until, lives });
        if known.is_none_or(|known| known.lives != lives) {
            self.changed.note(worker);
        }
    }

    /// Removes and returns those that are gone.
    pub fn take_gone(&mut self, now: Moment) -> HashSet<u64> {
        let is_gone = |_: &u64, attendance: &mut Attendance| attendance.until <= now.instant;
        let gone: HashSet<u64> = self.known.extract_if(is_gone).map(|(worker, _)| worker).collect();
        gone.iter().for_each(|worker| self.changed.note(*worker));
        gone
    }

    /// Returns for how long this worker counts as alive after it was last attended.
    #[cfg(feature = "sqlite")]
    pub fn lives(&self, worker: u64) -> Option<Duration> {
        self.known.get(&worker).map(|attendance| attendance.lives)
    }
}
