//! Measures counting in memory, in a file and in a real Redis, in this process and over the wire: pairs of a
//! reserve and its commit per second, their latency, and by how much limits are overshot. Writes a section of `bench/RESULTS.md`.
//!
//! Run `cargo bench -p limitador-adapter --bench ledger`. Arguments after `--` select parts: wire, memory,
//! sqlite, redis, cluster, sliding, overshoot, estimates. With arguments, the benchmark writes no section.
// A failure ends the benchmark, as it ends a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod ledger {
    pub mod cluster;
    pub mod estimates;
    pub mod memory;
    pub mod overshoot;
    pub mod redis;
    pub mod sliding;
    pub mod sqlite;
    pub mod wire;
}

use limitador_adapter::ledger::{Charge, ChargeAt, Hold, Key, LeaseUse};
use policy::model::{Unit, Window};
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// The heading of the section, which is the file's last one.
const HEADING: &str = "## What counting costs";

/// Builds a request's holds: one for each limit of one user, in an hourly window.
fn holds(user: usize, limits: usize) -> Vec<Hold> {
    holds_over(&Window::Fixed(HOUR), user, limits)
}

/// Builds a request's holds in the given window. They share the names of their limits, like those of active
/// policies.
fn holds_over(window: &Window, user: usize, limits: usize) -> Vec<Hold> {
    static IN_FORCE: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
        (0..8).map(|limit| format!("default/llm-token-limits/limit-{limit}").into()).collect()
    });
    let counters: Arc<[_]> = Arc::from([("auth.identity.userid".to_owned(), format!("user-{user:08}"))]);
    let hold = |limit: &Arc<str>| {
        let limit = Arc::clone(limit);
        let key = Key { limit, unit: Unit::Tokens, window: window.clone(), counters: Arc::clone(&counters) };
        let key = Arc::new(key);
        Hold {
            key,
            amount: 500,
            max: u64::MAX,
            ttl: HOUR / 4,
            charge_at: ChargeAt::Commit,
            enforced: true,
            warn_at: None,
            lease: LeaseUse::None,
        }
    };
    IN_FORCE[..limits].iter().map(hold).collect()
}

/// Builds the charges for these holds.
fn charges(holds: &[Hold], amount: u64) -> Vec<Charge> {
    holds
        .iter()
        .map(|hold| Charge { key: Arc::clone(&hold.key), amount, warn_at: None, draw: None })
        .collect()
}

/// Selects the user of a pair. Users are spread, so that caches help no more than in production.
fn user(number: usize, users: usize) -> usize {
    number.wrapping_mul(7_919) % users
}

/// Returns the p50 and the p99 in microseconds.
fn percentiles(mut taken: Vec<Duration>) -> (f64, f64) {
    taken.sort();
    let at = |share: usize| taken.get(taken.len() * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6);
    (at(50), at(99))
}

/// Returns this process's CPU time.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// The number of counters, and the number of limits per request.
const CASES: [(usize, usize); 6] = [(1, 1), (10_000, 1), (1_000_000, 1), (1, 8), (10_000, 8), (1_000_000, 8)];

fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let date = std::env::var("BENCH_DATE").map(|date| format!(" on {date}")).unwrap_or_default();
    let mut section = format!(
        "{HEADING}\n\n`cargo bench -p limitador-adapter --bench ledger`{date}. As for real calls, keys are created for each call, and the names of limits are shared with the policies in force.\n"
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    if wants("wire") {
        write!(section, "\n{}", runtime.block_on(ledger::wire::table())).expect("a text grows");
    }
    if wants("memory") {
        write!(section, "\n{}", ledger::memory::table()).expect("a text grows");
    }
    if wants("sqlite") {
        write!(section, "\n{}", runtime.block_on(ledger::sqlite::table())).expect("a text grows");
    }
    if wants("redis") {
        write!(section, "\n{}", runtime.block_on(ledger::redis::table())).expect("a text grows");
    }
    if wants("cluster") {
        write!(section, "\n{}", runtime.block_on(ledger::cluster::table())).expect("a text grows");
    }
    if wants("sliding") {
        write!(section, "\n{}", runtime.block_on(ledger::sliding::table())).expect("a text grows");
    }
    if wants("overshoot") {
        write!(section, "\n{}", runtime.block_on(ledger::overshoot::table())).expect("a text grows");
    }
    if wants("estimates") {
        write!(section, "\n{}", ledger::estimates::table(&runtime)).expect("a text grows");
    }
    println!("{section}");
    if wanted.is_empty() {
        let file = e2e::artefacts::root().join("bench/RESULTS.md");
        let results = std::fs::read_to_string(&file).expect("the results are there");
        let others = results.split(HEADING).next().unwrap_or_default().trim_end();
        std::fs::write(file, format!("{others}\n\n{section}")).expect("the results can be written");
    }
}
