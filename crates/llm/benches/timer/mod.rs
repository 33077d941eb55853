//! How long something takes when nothing disturbs it.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Nanoseconds of one call, in the shortest round of `times` calls; there are as many rounds as 700 ms hold.
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
