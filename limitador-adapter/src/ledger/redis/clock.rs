//! What time it is in Redis. The server's clock decides when windows begin and end; the calendar's periods are computed here,
//! for the time that the server is taken to have. A server that is in another period says so, and is believed.

use crate::ledger::Unavailable;
use crate::ledger::moment::Moment;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// How often a script is told the calendar anew: twice is enough unless a clock jumps.
pub const ATTEMPTS: usize = 4;

/// The server's clock, as seen from here.
#[derive(Default)]
pub struct ServerClock {
    /// By how many milliseconds it is ahead of this machine's, as far as that ever mattered.
    ahead: AtomicI64,
    /// By how many this machine's is wrong: in tests alone.
    own_error: i64,
}

impl ServerClock {
    /// Of a machine whose own clock is ahead by so many milliseconds.
    pub fn of_a_machine_ahead(milliseconds: i64) -> Self {
        Self { own_error: milliseconds, ..Self::default() }
    }

    /// The server's time, in time since 1970 began.
    pub fn time(&self, now: Moment) -> Duration {
        let ms = self.own(now).saturating_add(self.ahead.load(Ordering::Relaxed));
        Duration::from_millis(u64::try_from(ms).unwrap_or_default())
    }

    /// The server has said what its time is, in milliseconds.
    pub fn learn(&self, server: u64, now: Moment) {
        let server = i64::try_from(server).unwrap_or(i64::MAX);
        self.ahead.store(server.saturating_sub(self.own(now)), Ordering::Relaxed);
    }

    fn own(&self, now: Moment) -> i64 {
        i64::try_from(now.unix.as_millis()).unwrap_or(i64::MAX).saturating_add(self.own_error)
    }
}

/// After [`ATTEMPTS`].
pub fn jumps() -> Unavailable {
    Unavailable::Storage("the clock of Redis jumps, so its periods of the calendar are not known".to_owned())
}
