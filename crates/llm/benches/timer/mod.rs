//! Measures the undisturbed time of a function.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Returns the nanoseconds of one call in the shortest round of `times` calls. The rounds take 700 ms in all.
pub fn best<T>(times: u32, mut work: impl FnMut() -> T) -> f64 {
    let (mut best, begin) = (Duration::MAX, Instant::now());
    while begin.elapsed() < Duration::from_millis(700) {
        let round = Instant::now();
        for _ in 0..times {
            black_box(work());
        }
        best = best.min(round.elapsed());
    }
    best.as_nanos() as f64 / f64::from(times)
}
