//! How many reserve and commit pairs the ledger in memory takes per second: on one core, and from several threads.
//!
//! `cargo bench -p limitador-adapter`

use limitador_adapter::ledger::{Charge, Hold, Key, Take};
use limitador_adapter::memory::MemoryLedger;
use limitador_adapter::moment::Moment;
use policy::model::{Unit, Window};
use std::sync::Arc;
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_secs(2);
const HOUR: Duration = Duration::from_secs(3600);

fn holds(user: usize, limits: usize) -> Vec<Hold> {
    let counters: Arc<[_]> = Arc::from([("auth.identity.userid".to_owned(), format!("user-{user:08}"))]);
    let hold = |limit| {
        let limit = format!("default/llm-token-limits/limit-{limit}").into();
        let key =
            Key { limit, unit: Unit::Tokens, window: Window::Fixed(HOUR), counters: Arc::clone(&counters) };
        Hold {
            key: Arc::new(key),
            amount: 500,
            max: u64::MAX,
            ttl: HOUR / 4,
            take: Take::Hold,
            enforced: true,
        }
    };
    (0..limits).map(hold).collect()
}

/// Pairs per second, all threads together. Each call makes its keys anew, as a call over the wire does.
fn pairs(users: usize, limits: usize, threads: usize) -> f64 {
    let ledger = MemoryLedger::new(10_000_000, Moment::now());
    let start = Instant::now();
    let done: usize = std::thread::scope(|scope| {
        let work = |thread: usize| {
            let ledger = &ledger;
            move || {
                let mut done = 0;
                while start.elapsed() < RUN {
                    let holds = holds((done * threads + thread) % users, limits);
                    let id = format!("gateway-1a2b3c4d-{thread}-{done:x}");
                    let charge = |hold: &Hold| Charge { key: Arc::clone(&hold.key), amount: 100 };
                    let charges: Vec<_> = holds.iter().map(charge).collect();
                    let now = Moment::now();
                    let admitted = ledger.reserve(&id, holds, now).is_ok_and(|outcome| outcome.admitted);
                    let settled = ledger.commit(&id, &charges, now).is_ok();
                    done += usize::from(admitted && settled);
                }
                done
            }
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    done as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    println!("{:>9} {:>6} {:>7} {:>12} {:>10}", "users", "limits", "threads", "pairs/s", "us/pair");
    for (users, limits, threads) in
        [(1, 1, 1), (1_000, 1, 1), (1_000_000, 1, 1), (1_000, 8, 1), (1_000, 1, 2)]
    {
        let rate = pairs(users, limits, threads);
        println!("{users:>9} {limits:>6} {threads:>7} {rate:>12.0} {:>10.2}", 1e6 / rate);
    }
}
