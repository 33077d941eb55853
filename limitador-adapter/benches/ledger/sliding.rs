//! Compares a sliding window, with all of its slots in use, with a fixed window, and measures the memory of a
//! counter.

use crate::{HOUR, charges, holds_over, percentiles, user};
use e2e::redis::Redis;
use limitador_adapter::ledger::Ledger;
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::redis::RedisLedger;
use policy::model::Window;
use std::fmt::Write;
use std::time::{Duration, Instant};

const USERS: usize = 2_000;
const PAIRS: usize = 20_000;
/// The number of rounds. Fixed and sliding windows alternate, so that both run under the same conditions. The
/// result is the median.
const ROUNDS: usize = 5;

/// The section's third table.
pub async fn table() -> String {
    let mut table = format!(
        "A sliding window beside a fixed one: {USERS} counters, each charged once a minute for an hour, so that all slots of the sliding ones are in use; pairs one after the other, the median of {ROUNDS} rounds.\n\n\
        | storage | window | us per pair | of a fixed one | bytes per counter |\n|---|---|---|---|---|\n"
    );
    let redis = [Redis::start(), Redis::start()];
    let begun = Moment::now();
    let windows = [Window::Fixed(2 * HOUR), Window::Sliding(HOUR)];
    for storage in ["memory", "Redis"] {
        let mut ledgers: Vec<(Box<dyn Ledger>, f64)> = Vec::new();
        for (window, redis) in windows.iter().zip(&redis) {
            let taken = || if storage == "memory" { resident() } else { redis.info("used_memory") as f64 };
            let before = taken();
            let ledger: Box<dyn Ledger> = match storage {
                "memory" => Box::new(MemoryLedger::new(10_000_000_usize, begun)),
                _ => {
                    let place = redis.url(0).parse().expect("its address is a place");
                    let ledger = RedisLedger::new(place, Some(10_000_000_usize.into()));
                    Box::new(ledger.expect("it is one that can be reached").with_the_callers_time())
                }
            };
            for minute in 0..60 {
                for users in (0..USERS).collect::<Vec<_>>().chunks(250) {
                    let all = users.iter().flat_map(|user| charges(&holds_over(window, *user, 1), 1_234));
                    let now = begun + Duration::from_secs(60 * minute);
                    ledger.commit("", all.collect(), now).await.expect("an answer");
                }
            }
            ledgers.push((ledger, (taken() - before) / USERS as f64));
        }
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            for (at, window) in windows.iter().enumerate() {
                rounds[at].push(round_of(&*ledgers[at].0, window, begun, round).await);
            }
        }
        let [fixed, sliding] = rounds.map(|rounds| percentiles(rounds).0);
        for (at, (name, per_pair)) in [("fixed", fixed), ("sliding", sliding)].into_iter().enumerate() {
            let (times, bytes) = (per_pair / fixed, ledgers[at].1);
            writeln!(table, "| {storage} | {name} | {per_pair:.1} | {times:.2} | {bytes:.0} |")
                .expect("a text grows");
        }
    }
    table
}

/// Returns the time of one pair.
async fn round_of(ledger: &dyn Ledger, window: &Window, begun: Moment, round: usize) -> Duration {
    let start = Instant::now();
    for number in 0..PAIRS {
        // A new slot begins every minute, and the oldest ones end.
        let now = begun + Duration::from_millis(3_600_000 + (round * PAIRS + number) as u64);
        let holds = holds_over(window, user(number, USERS), 1);
        let (id, charges) = (format!("gateway-1a2b3c4d-{round}-{number:x}"), charges(&holds, 100));
        let outcome = ledger.reserve(&id, holds, now).await.expect("an answer");
        assert!(outcome.admitted);
        ledger.commit(&id, charges, now).await.expect("an answer");
    }
    start.elapsed() / PAIRS as u32
}

/// Returns the memory of this process in bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0
}
