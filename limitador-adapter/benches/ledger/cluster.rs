//! Measures counting in a Redis Cluster on this machine with one, two and three masters, over TCP.
//!
//! The masters, the adapter and the callers share the machine's cores. So the CPU time per pair shows what a
//! cluster can do, not the pairs per second.

use crate::{charges, cpu, holds, user};
use e2e::redis::Redis;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::redis::RedisLedger;
use limitador_adapter::ledger::{Hold, Key, Ledger};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const RUN: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 64;
const USERS: usize = 1_000;
const CAPACITY: usize = 10_000_000;

/// The limits of a request.
#[derive(Clone, Copy)]
enum Case {
    /// One limit of a user.
    One,
    /// Eight limits of a user, which are in one shard.
    Eight,
    /// One limit of a user and one of a team, which are mostly in two shards.
    Apart,
}

/// The section's table of clusters.
pub async fn table() -> String {
    let mut table = format!(
        "In a Redis Cluster on the same machine, with {USERS} users and {AT_ONCE} concurrent pairs. All processes share the machine's cores, so the CPU time per pair is what matters: the sum over all masters, and of the master with the most. The latter limits the cluster: a master is one core, so the last column is the pairs per second at which it has no time left.\n\n\
        | limits | masters | pairs/s | CPU of the adapter, us per pair | CPU of all masters, us per pair | CPU of the busiest master, us per pair | pairs/s if that master has a core |\n|---|---|---|---|---|---|---|\n"
    );
    for (name, case) in
        [("1", Case::One), ("8 of one user", Case::Eight), ("1 of a user and 1 of a team", Case::Apart)]
    {
        for masters in 1..=3 {
            let Measured { pairs, adapter, all, busiest } = measure(masters, case).await;
            writeln!(
                table,
                "| {name} | {masters} | {pairs:.0} | {adapter:.0} | {all:.0} | {busiest:.0} | {:.0} |",
                1e6 / busiest
            )
            .expect("a text grows");
        }
    }
    table
}

/// Pairs per second, and the CPU time of the processes in microseconds per pair.
struct Measured {
    pairs: f64,
    adapter: f64,
    all: f64,
    busiest: f64,
}

async fn measure(masters: u16, case: Case) -> Measured {
    let nodes = Redis::cluster(masters);
    let place = format!("redis+cluster://127.0.0.1:{}", nodes[0].port()).parse().expect("it is a URL");
    let ledger = RedisLedger::new(place, Some(CAPACITY.into())).expect("its URL is usable").into_ledger();
    // Every node receives the scripts, and every user has a bucket.
    for number in 0..USERS {
        pair(&*ledger, case, number, &format!("before-{number:x}")).await;
    }
    let servers = || nodes.iter().map(Redis::cpu).collect::<Vec<_>>();
    let (start, before, of_servers) = (Instant::now(), cpu(), servers());
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (ledger, next) = (Arc::clone(&ledger), Arc::clone(&next));
        tasks.spawn(async move {
            while start.elapsed() < RUN {
                let number = next.fetch_add(1, Ordering::Relaxed);
                pair(&*ledger, case, user(number, USERS), &format!("gateway-1a2b3c4d-{number:x}")).await;
            }
        });
    }
    tasks.join_all().await;
    let (pairs, elapsed) = (next.load(Ordering::Relaxed) as f64, start.elapsed().as_secs_f64());
    let per_pair = |time: Duration| time.as_secs_f64() * 1e6 / pairs;
    let used: Vec<_> =
        servers().iter().zip(of_servers).map(|(after, before)| per_pair(*after - before)).collect();
    Measured {
        pairs: pairs / elapsed,
        adapter: per_pair(cpu() - before),
        all: used.iter().sum(),
        busiest: used.iter().copied().fold(0.0, f64::max),
    }
}

fn holds_of(case: Case, user: usize) -> Vec<Hold> {
    match case {
        Case::One => holds(user, 1),
        Case::Eight => holds(user, 8),
        Case::Apart => {
            let mut holds = holds(user, 2);
            if let Some(hold) = holds.last_mut() {
                let team = Arc::from([("auth.identity.team".to_owned(), format!("team-{:02}", user % 100))]);
                hold.key = Arc::new(Key { counters: team, ..(*hold.key).clone() });
            }
            holds
        }
    }
}

async fn pair(ledger: &dyn Ledger, case: Case, user: usize, id: &str) {
    let holds = holds_of(case, user);
    let charges = charges(&holds, 100);
    let outcome = ledger.reserve(id, holds, Moment::now()).await.expect("Redis answers");
    assert!(outcome.admitted);
    ledger.commit(id, charges, Moment::now()).await.expect("Redis answers");
}
