//! Estimates the time of the Redis server. The server's clock decides when windows begin and end. This
//! process computes the calendar periods for the server's estimated time. If the server is in another period,
//! it replies with its time, and the estimate is corrected.

use crate::ledger::Unavailable;
use crate::ledger::moment::Moment;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The maximum number of attempts per call. Two suffice unless a clock jumps.
pub const ATTEMPTS: usize = 4;

/// An estimate of the server's clock.
#[derive(Default)]
pub struct ServerClock {
    /// How far the server's clock is ahead of this machine's in ms, as last corrected.
    ahead: AtomicI64,
    /// How far this machine's clock is ahead of the true time in ms. Only tests set it.
    own_error: i64,
}

impl ServerClock {
    /// Creates the clock of a machine that is ahead by this many milliseconds.
    pub fn of_a_machine_ahead(milliseconds: i64) -> Self {
        Self { own_error: milliseconds, ..Self::default() }
    }

    /// Returns a clock of the same machine for another server.
    pub fn of_another_server(&self) -> Self {
        Self { own_error: self.own_error, ..Self::default() }
    }

    /// Returns the server's estimated time since 1970 in UTC.
    pub fn time(&self, now: Moment) -> Duration {
        let ms = self.own(now).saturating_add(self.ahead.load(Ordering::Relaxed));
        Duration::from_millis(u64::try_from(ms).unwrap_or_default())
    }

    /// Corrects the estimate with the server's time in milliseconds.
    pub fn learn(&self, server: u64, now: Moment) {
        let server = i64::try_from(server).unwrap_or(i64::MAX);
        self.ahead.store(server.saturating_sub(self.own(now)), Ordering::Relaxed);
    }

    fn own(&self, now: Moment) -> i64 {
        i64::try_from(now.unix.as_millis()).unwrap_or(i64::MAX).saturating_add(self.own_error)
    }
}

/// Reports that all [`ATTEMPTS`] failed.
pub fn jumps() -> Unavailable {
    Unavailable::failed("the clock of the Redis server jumps, so its calendar periods are unknown")
}
