//! Computes how long to wait after a failure before the next attempt. The wait doubles up to a maximum. It is
//! randomised, so that workers that lost the same adapter do not all reconnect at once.

/// The first pause, in milliseconds.
pub const MIN_BACKOFF: u64 = 100;
/// The longest pause, in milliseconds.
pub const MAX_BACKOFF: u64 = 5_000;

/// Computes the waits of one client.
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    jitter: u64,
    min: u64,
    max: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::between(MIN_BACKOFF, MAX_BACKOFF)
    }
}

impl Backoff {
    /// A backoff between these two lengths, in milliseconds.
    pub fn between(min: u64, max: u64) -> Self {
        Self { failures: 0, jitter: 0, min, max }
    }

    /// Seeds the jitter, so that different clients wait differently.
    pub fn with_jitter(self, seed: u128) -> Self {
        Self { jitter: seed as u64, ..self }
    }

    /// The number of consecutive failures.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Records a success.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Records a failure and returns how long to wait: between half of the current wait and all of it.
    pub fn failed(&mut self) -> u64 {
        let pause = self.pause();
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Returns the current wait without recording a failure.
    pub fn pause(&mut self) -> u64 {
        let whole = self.min.saturating_mul(1 << self.failures.min(16)).min(self.max);
        // Knuth's linear congruential generator. Its high bits are the most random.
        self.jitter =
            self.jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let half = whole / 2;
        half.saturating_add((self.jitter >> 33) % half.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        for seed in 0..100 {
            let mut backoff = Backoff::default().with_jitter(seed);
            for longest in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
                let pause = backoff.failed();
                assert!((longest / 2..longest).contains(&pause), "{pause} of {longest}");
            }
            assert_eq!(backoff.failures(), 8);
            backoff.succeeded();
            assert!(backoff.failed() < 100);
        }
        let pauses = |seed| Backoff::default().with_jitter(seed).failed();
        assert!((0..100).any(|seed| pauses(seed) != pauses(100)));
        assert!((0..100).all(|_| Backoff::between(0, 0).failed() == 0));
        assert!(Backoff::between(u64::MAX, u64::MAX).failed() >= u64::MAX / 2);
    }
}
