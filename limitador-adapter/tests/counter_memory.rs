//! Counters take no more memory than they are counted for. A process of its own, since it looks at the memory of all of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::shares::Capacity;
use limitador_adapter::ledger::{Charge, Key};
use policy::model::{Unit, Window};
use std::sync::Arc;
use std::time::Duration;

const COUNTERS: u64 = 300_000;

/// In bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn counters_take_no_more_memory_than_they_are_counted_for() {
    let ledger = MemoryLedger::new(Capacity::Bytes(1 << 40), Moment::now());
    let limit: Arc<str> = "default/llm-token-limits/free".into();
    let before = resident();
    for user in 0..COUNTERS {
        let counters = Arc::from([("auth.identity.userid".to_owned(), format!("user-{user:08}"))]);
        let window = Window::Fixed(Duration::from_secs(3600));
        let key = Arc::new(Key { limit: Arc::clone(&limit), unit: Unit::Tokens, window, counters });
        // Without an id, so that nothing but the counter is remembered.
        ledger.commit("", &[Charge { key, amount: 7 }], Moment::now()).unwrap();
    }
    let (taken, counted) = (resident() - before, ledger.size().bytes.unwrap().used);
    println!("{} bytes for each counter, counted as {}", taken / COUNTERS, counted / COUNTERS);
    assert!(taken <= counted, "{taken} bytes, counted as {counted}");
    assert!(counted <= 2 * taken, "{taken} bytes, counted as {counted}");
}
