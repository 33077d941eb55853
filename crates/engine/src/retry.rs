//! A call of the adapter that is made again where it cannot have been answered: one replica of several has just died, and
//! another takes it. A reservation's id makes that harmless.

use protocol::call::CallFailure;
use std::time::Duration;

/// How often it is made again. Of two replicas behind one address, the dead one may be met several times in a row.
const AGAIN: u8 = 7;

/// A call under way.
#[derive(Debug)]
pub struct Retry {
    message: Vec<u8>,
    /// In milliseconds.
    end: u64,
    left: u8,
}

impl Retry {
    /// Of a call that may take so many milliseconds in all.
    pub fn new(message: Vec<u8>, now: u64, patience: u64) -> Self {
        Self { message, end: now.saturating_add(patience.max(1)), left: AGAIN }
    }

    /// What is sent.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// How long it may still take.
    pub fn patience(&self, now: u64) -> Duration {
        Duration::from_millis(self.end.saturating_sub(now).max(1))
    }

    /// The next attempt, or how the call has failed. Of one that took too long, Envoy says that the adapter is unavailable.
    pub fn failed(mut self, failure: CallFailure, now: u64) -> Result<Self, CallFailure> {
        match failure {
            CallFailure::Unavailable if now >= self.end => Err(CallFailure::Timeout),
            CallFailure::Unavailable if self.left > 0 => {
                self.left = self.left.saturating_sub(1);
                Ok(self)
            }
            failure => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_that_is_not_there_is_asked_again_for_as_long_as_the_call_may_take() {
        let mut retry = Retry::new(vec![1], 1_000, 200);
        for _ in 0..AGAIN {
            retry = retry.failed(CallFailure::Unavailable, 1_050).unwrap();
            assert_eq!((retry.message(), retry.patience(1_050).as_millis()), (&[1][..], 150));
        }
        assert_eq!(retry.failed(CallFailure::Unavailable, 1_050).unwrap_err(), CallFailure::Unavailable);
        let late = Retry::new(vec![], 1_000, 200).failed(CallFailure::Unavailable, 1_200);
        assert_eq!(late.unwrap_err(), CallFailure::Timeout);
        let answered = Retry::new(vec![], 0, 200).failed(CallFailure::Status(13), 1);
        assert_eq!(answered.unwrap_err(), CallFailure::Status(13));
    }
}
