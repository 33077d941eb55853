//! Counters take no more memory than is accounted for them. The test needs a separate process, because it
//! measures the memory of the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::shares::Capacity;
use limitador_adapter::ledger::{Charge, Key};
use policy::model::{Unit, Window};
use std::sync::Arc;
use std::time::Duration;

const COUNTERS: u64 = 300_000;

/// Returns the resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Charges counters with this window several times, a minute apart. Returns the ledger so that it is not
/// freed. Otherwise the next measurement would reuse its memory.
fn takes_no_more_than_counted(window: &Window, counters: u64, times: u64) -> MemoryLedger {
    let ledger = MemoryLedger::new(Capacity::Bytes(1 << 40), Moment::now());
    let begun = Moment::now();
    let limit: Arc<str> = "default/llm-token-limits/free".into();
    let before = resident();
    for (user, minute) in (0..counters).flat_map(|user| (0..times).map(move |minute| (user, minute))) {
        let counters = Arc::from([("auth.identity.userid".to_owned(), format!("user-{user:08}"))]);
        let (limit, window) = (Arc::clone(&limit), window.clone());
        let key = Arc::new(Key { limit, unit: Unit::Tokens, window, counters });
        // The commit has no id, so only the counter is remembered.
        let now = begun + Duration::from_secs(60 * minute);
        ledger.commit("", &[Charge { key, amount: 7, warn_at: None, draw: None }], now).unwrap();
    }
    let (taken, counted) = (resident() - before, ledger.size().bytes.unwrap().used);
    println!("{window}: {} bytes for each counter, counted as {}", taken / counters, counted / counters);
    assert!(taken <= counted, "{taken} bytes, counted as {counted}");
    assert!(counted <= 2 * taken, "{taken} bytes, counted as {counted}");
    ledger
}

/// The cases run one after the other, because they measure the memory of the whole process.
#[test]
fn counters_take_no_more_memory_than_they_are_counted_for() {
    const HOUR: Duration = Duration::from_secs(3600);
    let _fixed = takes_no_more_than_counted(&Window::Fixed(HOUR), COUNTERS, 1);
    let _sliding = takes_no_more_than_counted(&Window::Sliding(HOUR), COUNTERS / 10, 60);
}
