//! Measures by how much a limit is overshot when many clients use it at once.

use crate::{charges, holds};
use e2e::redis::Redis;
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::redis::RedisLedger;
use limitador_adapter::ledger::{Hold, Ledger};
use std::fmt::Write;
use std::sync::Arc;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const LIMIT: u64 = 100_000;
const ESTIMATE: u64 = 100;
const AT_ONCE: [usize; 4] = [1, 16, 64, 256];

/// The section's last table.
pub async fn table() -> String {
    let mut table = format!(
        "This table shows how far charges exceed a limit of {LIMIT} tokens, in percent of the limit, with 1 to 256 requests in flight at all times. Each request holds {ESTIMATE} tokens, and uses {ESTIMATE} (the estimate is exact) or {} (the estimate is a third of the usage). The excess remains until the window ends.\n\n\
        | estimate | storage | 1 | 16 | 64 | 256 |\n|---|---|---|---|---|---|\n",
        3 * ESTIMATE
    );
    for (name, used) in [("exact", ESTIMATE), ("a third", 3 * ESTIMATE)] {
        let redis = Redis::start();
        for adapters in [0, 1, 2] {
            let storage = ["memory", "Redis", "Redis, two adapters"][adapters];
            write!(table, "| {name} | {storage} |").expect("a text grows");
            for at_once in AT_ONCE {
                redis.command(&["FLUSHALL"]);
                let ledgers = match adapters {
                    0 => vec![Arc::new(MemoryLedger::new(100_usize, Moment::now())) as Arc<dyn Ledger>],
                    many => (0..many).map(|_| in_redis(&redis)).collect(),
                };
                let beyond = overshoot(&ledgers, at_once, used).await;
                write!(table, " {beyond:.1} % |").expect("a text grows");
            }
            table.push('\n');
        }
    }
    table
}

fn in_redis(redis: &Redis) -> Arc<dyn Ledger> {
    let place = redis.url(0).parse().expect("its address is a place");
    Arc::new(RedisLedger::new(place, Some(100_usize.into())).expect("it is one that can be reached"))
}

/// All clients send requests concurrently until all are refused.
async fn overshoot(ledgers: &[Arc<dyn Ledger>], at_once: usize, used: u64) -> f64 {
    let barrier = Arc::new(Barrier::new(at_once));
    let mut tasks = JoinSet::new();
    for task in 0..at_once {
        let (reserving, barrier) = (Arc::clone(&ledgers[task % ledgers.len()]), Arc::clone(&barrier));
        // If there is a second adapter, commits go to it.
        let committing = Arc::clone(&ledgers[(task + 1) % ledgers.len()]);
        tasks.spawn(async move {
            let rounds = usize::try_from(LIMIT / ESTIMATE).unwrap_or_default().div_ceil(at_once) + 1;
            for round in 0..rounds {
                barrier.wait().await;
                let id = format!("{task}-{round}");
                let hold = |hold| Hold { amount: ESTIMATE, max: LIMIT, ..hold };
                let holds: Vec<_> = holds(0, 1).into_iter().map(hold).collect();
                let charges = charges(&holds, used);
                let outcome = reserving.reserve(&id, holds, Moment::now()).await.expect("an answer");
                // All admitted requests are running now.
                barrier.wait().await;
                if outcome.admitted {
                    committing.commit(&id, charges, Moment::now()).await.expect("an answer");
                }
            }
        });
    }
    tasks.join_all().await;
    let readings = ledgers[0].readings(Moment::now()).await.expect("an answer");
    let charged: u64 = readings.iter().map(|reading| reading.used + reading.held).sum();
    charged.saturating_sub(LIMIT) as f64 * 100.0 / LIMIT as f64
}
