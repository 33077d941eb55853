//! Measures counting in memory, on one core and on two threads.

use crate::{CASES, charges, holds, percentiles, user};
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write;
use std::time::{Duration, Instant};

const PAIRS: usize = 200_000;

/// The section's first table.
pub fn table() -> String {
    let mut table = "In memory, with one thread. \"Per core's second\" means per second of CPU time, so other work on the machine does not count. p50 and p99 are for a reserve and its commit together. The target is 100,000 pairs. With more counters, look-ups miss the CPU caches more often. Policies, limits and counters that a request does not use are not visited.\n\n\
        | limits | counters | pairs per core's second | p50 us | p99 us |\n|---|---|---|---|---|\n"
        .to_owned();
    for (users, limits) in CASES {
        // With eight limits, each user has eight counters.
        let (cpu, (p50, p99)) = measure((users / limits).max(1), limits);
        writeln!(table, "| {limits} | {users} | {:.0} | {p50:.1} | {p99:.1} |", 1.0 / cpu)
            .expect("a text grows");
    }
    table
}

/// Returns the CPU seconds per pair, and the latencies. Every user has earlier usage.
fn measure(users: usize, limits: usize) -> (f64, (f64, f64)) {
    let ledger = MemoryLedger::new(10_000_000_usize, Moment::now());
    let pair = |user, number: usize| {
        let holds = holds(user, limits);
        let id = format!("gateway-1a2b3c4d-{number:x}");
        let (charges, now) = (charges(&holds, 100), Moment::now());
        let admitted = ledger.reserve(&id, holds, now).is_ok_and(|outcome| outcome.admitted);
        assert!(admitted && ledger.commit(&id, &charges, now).is_ok());
    };
    (0..users).for_each(|user| pair(user, user));
    let mut taken = Vec::with_capacity(PAIRS);
    let before = cpu();
    for number in 0..PAIRS {
        let start = Instant::now();
        pair(user(number, users), users + number);
        taken.push(start.elapsed());
    }
    ((cpu() - before).as_secs_f64() / PAIRS as f64, percentiles(taken))
}

/// Returns this thread's CPU time.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}
