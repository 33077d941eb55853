//! Measures counting in a real Redis on this machine, over TCP.

use crate::{CASES, charges, holds, percentiles, user};
use e2e::redis::Redis;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::redis::RedisLedger;
use limitador_adapter::ledger::{Charge, Ledger};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const RUN: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 16;
/// The number of charges in each commit that fills the ledger before the measurement.
const FILL: usize = 250;

/// The section's second table.
pub async fn table() -> String {
    let mut table = format!(
        "With Redis 7 on the same machine, and {AT_ONCE} concurrent pairs over one connection. The bytes per counter do not include the records of settled requests.\n\n\
        | limits | counters | pairs/s | p50 us | p99 us | bytes per counter |\n|---|---|---|---|---|---|\n"
    );
    for (users, limits) in CASES {
        let (rate, (p50, p99), bytes) = measure((users / limits).max(1), limits).await;
        let bytes = if users > 100 { format!("{bytes:.0}") } else { "-".to_owned() };
        writeln!(table, "| {limits} | {users} | {rate:.0} | {p50:.0} | {p99:.0} | {bytes} |")
            .expect("a text grows");
    }
    table
}

async fn measure(users: usize, limits: usize) -> (f64, (f64, f64), f64) {
    let redis = Redis::start();
    let place = redis.url(0).parse().expect("its address is a place");
    let ledger = Arc::new(
        RedisLedger::new(place, Some(10_000_000_usize.into())).expect("it is one that can be reached"),
    );
    let empty = redis.info("used_memory");
    fill(&ledger, users, limits).await;
    let bytes = (redis.info("used_memory") - empty) as f64 / (users * limits) as f64;
    let (start, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (ledger, next) = (Arc::clone(&ledger), Arc::clone(&next));
        tasks.spawn(async move {
            let mut taken = Vec::new();
            while start.elapsed() < RUN {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let begin = Instant::now();
                pair(&*ledger, user(number, users), limits, number).await;
                taken.push(begin.elapsed());
            }
            taken
        });
    }
    let taken = tasks.join_all().await.concat();
    (taken.len() as f64 / start.elapsed().as_secs_f64(), percentiles(taken), bytes)
}

async fn pair(ledger: &dyn Ledger, user: usize, limits: usize, number: usize) {
    let holds = holds(user, limits);
    let (id, charges) = (format!("gateway-1a2b3c4d-{number:x}"), charges(&holds, 100));
    let outcome = ledger.reserve(&id, holds, Moment::now()).await.expect("Redis answers");
    assert!(outcome.admitted);
    ledger.commit(&id, charges, Moment::now()).await.expect("Redis answers");
}

/// Every user has earlier usage.
async fn fill(ledger: &RedisLedger, users: usize, limits: usize) {
    let all = (0..users).flat_map(|user| charges(&holds(user, limits), 1));
    let mut batch: Vec<Charge> = Vec::with_capacity(FILL);
    for charge in all {
        batch.push(charge);
        if batch.len() == FILL {
            ledger.commit("", std::mem::take(&mut batch), Moment::now()).await.expect("Redis answers");
        }
    }
    ledger.commit("", batch, Moment::now()).await.expect("Redis answers");
}
