//! Tracks which gateways' plans filters follow here.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The time after which a filter that has not polled counts as gone. A live filter polls again as soon as its
/// last poll is answered.
const GONE: Duration = Duration::from_secs(45);

/// The gateways that filters poll for, and when they last did.
pub struct Filters {
    asked: Mutex<HashMap<String, Instant>>,
    changes: watch::Sender<()>,
}

impl Default for Filters {
    fn default() -> Self {
        Self { asked: Mutex::default(), changes: watch::channel(()).0 }
    }
}

impl Filters {
    /// Records that a filter polls for the plan of this gateway, "NAMESPACE/NAME" or "*".
    pub fn ask(&self, gateway: &str, headers_alone: bool) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let names = std::iter::once(gateway.to_owned()).chain(headers_alone.then(|| without_bodies(gateway)));
        let news = names.filter(|name| asked.insert(name.clone(), Instant::now()).is_none()).count();
        drop(asked);
        if news > 0 {
            self.changes.send_replace(());
        }
    }

    /// Notifies when a filter polls for another gateway.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Returns the gateways that filters follow. Gateways with a filter that does not read bodies are marked
    /// with [`without_bodies`].
    pub fn following(&self) -> BTreeSet<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, last| last.elapsed() < GONE);
        asked.keys().cloned().collect()
    }
}

/// Marks a gateway with a filter that does not read request bodies.
pub fn without_bodies(gateway: &str) -> String {
    format!("{gateway}:headers")
}
