//! Random choices that another run can repeat.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A small generator of random numbers (xorshift).
pub struct Random(u64);

impl Random {
    /// Creates a generator with the seed in `SEED`, or with a new one, and prints the seed.
    pub fn from_environment() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64;
        let seed = variable("SEED").unwrap_or(now) | 1;
        eprintln!("SEED={seed}");
        Self(seed)
    }

    /// Returns a number below this one.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    /// Returns one of these.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Sleeps for a random time of up to `longest`.
    pub fn pause(&mut self, longest: Duration) {
        std::thread::sleep(Duration::from_micros(self.below(longest.as_micros() as u64)));
    }
}

/// Returns the number in an environment variable.
pub fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
