//! The storages that every test of a ledger goes through.

use limitador_adapter::ledger::Ledger;
use limitador_adapter::memory::MemoryLedger;
use limitador_adapter::moment::Moment;
use std::sync::Arc;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    Memory,
}

impl Storage {
    /// An empty ledger for so many counters, at a time that it takes for now.
    pub async fn ledger(self, at_most: usize) -> (Arc<dyn Ledger>, Moment) {
        let now = Moment::now();
        match self {
            Self::Memory => (Arc::new(MemoryLedger::new(at_most, now)), now),
        }
    }

    /// The most that it can count to.
    pub fn most(self) -> u64 {
        match self {
            Self::Memory => u64::MAX,
        }
    }
}

/// Makes each of these functions a test for each storage.
macro_rules! on_every_storage {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::storages::Storage::Memory).await;
            })*
        }
    };
}
pub(crate) use on_every_storage;
