//! Operators' changes of counters, for Kubernetes events.

use tokio::sync::mpsc;

/// Sends operators' changes of counters to the writer of Kubernetes events.
#[derive(Clone, Default)]
pub struct AuditTrail(Option<mpsc::Sender<AuditRecord>>);

/// A change that an operator has made to the counters of a policy.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    /// "NAMESPACE/NAME".
    pub policy: String,
    /// The reason of the event.
    pub reason: &'static str,
    /// Contains no counter values.
    pub note: String,
}

impl AuditTrail {
    /// Creates a trail and the receiver of its records. If the receiver is too slow, further records are only
    /// logged.
    pub fn new() -> (Self, mpsc::Receiver<AuditRecord>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(Some(sender)), receiver)
    }

    /// Records a change.
    pub fn record(&self, policy: &str, reason: &'static str, note: &str) {
        let record = AuditRecord { policy: policy.to_owned(), reason, note: note.to_owned() };
        if let Some(trail) = &self.0
            && let Err(error) = trail.try_send(record)
        {
            tracing::warn!(policy, reason, %error, "no event is written for this change");
        }
    }
}
