//! Measures the ledger in a file on this machine's disk, and the same calls in memory.

use crate::{CASES, charges, cpu, holds, percentiles, user};
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::sqlite::SqliteLedger;
use limitador_adapter::ledger::{Charge, Ledger};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const RUN: Duration = Duration::from_secs(3);
const AT_ONCE: usize = 256;
const CAPACITY: usize = 10_000_000;
/// The number of charges in each commit that fills the ledger before the measurement.
const FILL: usize = 250;
/// The counters of the restart.
const RESTARTED: usize = 100_000;

/// What was measured.
struct Measured {
    pairs: f64,
    /// Per second of CPU time of the whole process, with the thread that writes.
    pairs_per_cpu: f64,
    reserve: (f64, f64),
    commit: (f64, f64),
}

/// The section's table of a file.
pub async fn table() -> String {
    let mut table = format!(
        "In a file on a disk, and in memory with the same callers: {AT_ONCE} concurrent pairs, each of which waits for its charge to be durable. \"Per core's second\" is per second of CPU time of all threads. Latencies are in microseconds.\n\n\
        | storage | limits | counters | pairs/s | pairs per core's second | reserve p50 | reserve p99 | commit p50 | commit p99 | bytes per counter |\n|---|---|---|---|---|---|---|---|---|---|\n"
    );
    for (users, limits) in CASES {
        let users_each = (users / limits).max(1);
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("counters.db");
        let file: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&path, CAPACITY).expect("it opens"));
        let memory: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(CAPACITY, Moment::now()));
        for (name, ledger) in [("memory", memory), ("file", file)] {
            fill(&*ledger, users_each, limits).await;
            let bytes = match name {
                "file" if users > 100 => format!("{:.0}", size(&path) / (users_each * limits) as f64),
                _ => "-".to_owned(),
            };
            let Measured { pairs, pairs_per_cpu, reserve, commit } =
                measure(&ledger, users_each, limits).await;
            writeln!(
                table,
                "| {name} | {limits} | {users} | {pairs:.0} | {pairs_per_cpu:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {bytes} |",
                reserve.0, reserve.1, commit.0, commit.1
            )
            .expect("a text grows");
        }
    }
    table + &restart().await
}

/// Returns how long a restart takes.
async fn restart() -> String {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("counters.db");
    let open = || SqliteLedger::open(&path, CAPACITY).expect("it opens");
    let ledger = open();
    fill(&ledger, RESTARTED, 1).await;
    drop(ledger);
    let start = Instant::now();
    drop(open());
    format!("\nA file with {RESTARTED} counters is read in {:.0} ms.\n", start.elapsed().as_secs_f64() * 1e3)
}

fn size(path: &Path) -> f64 {
    std::fs::metadata(path).expect("it is there").len() as f64
}

async fn measure(ledger: &Arc<dyn Ledger>, users: usize, limits: usize) -> Measured {
    let (start, before, next) = (Instant::now(), cpu(), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (ledger, next) = (Arc::clone(ledger), Arc::clone(&next));
        tasks.spawn(async move {
            let mut taken = Vec::new();
            while start.elapsed() < RUN {
                let number = next.fetch_add(1, Ordering::Relaxed);
                taken.push(pair(&*ledger, user(number, users), limits, number).await);
                tokio::task::yield_now().await;
            }
            taken
        });
    }
    let taken = tasks.join_all().await.concat();
    let pairs = taken.len() as f64;
    let (reserves, commits) = taken.into_iter().unzip();
    Measured {
        pairs: pairs / start.elapsed().as_secs_f64(),
        pairs_per_cpu: pairs / (cpu() - before).as_secs_f64(),
        reserve: percentiles(reserves),
        commit: percentiles(commits),
    }
}

/// Returns how long the reserve took, and how long the commit until it was durable.
async fn pair(ledger: &dyn Ledger, user: usize, limits: usize, number: usize) -> (Duration, Duration) {
    let holds = holds(user, limits);
    let (id, charges) = (format!("gateway-1a2b3c4d-{number:x}"), charges(&holds, 100));
    let begin = Instant::now();
    let outcome = ledger.reserve(&id, holds, Moment::now()).await.expect("it answers");
    assert!(outcome.admitted);
    let reserved = begin.elapsed();
    ledger.commit(&id, charges, Moment::now()).await.expect("it answers");
    ledger.durable().await.expect("it can be written");
    (reserved, begin.elapsed() - reserved)
}

/// Every user has earlier usage.
async fn fill(ledger: &dyn Ledger, users: usize, limits: usize) {
    let all = (0..users).flat_map(|user| charges(&holds(user, limits), 1));
    let mut batch: Vec<Charge> = Vec::with_capacity(FILL);
    for charge in all {
        batch.push(charge);
        if batch.len() == FILL {
            ledger.commit("", std::mem::take(&mut batch), Moment::now()).await.expect("it answers");
        }
    }
    ledger.commit("", batch, Moment::now()).await.expect("it answers");
    ledger.durable().await.expect("it can be written");
}
