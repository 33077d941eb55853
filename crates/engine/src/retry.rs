//! Retries a call that the adapter did not answer: if one of several replicas has just died, another one
//! takes the call. A call that ends with a status of the connection is repeated once. The reservation's id
//! makes retries safe.

use protocol::call::CallFailure;
use std::time::Duration;

/// The number of retries. Behind one address, several attempts in a row may reach a dead replica.
const AGAIN: u8 = 7;

/// A call in progress.
#[derive(Debug)]
pub struct Retry {
    message: Vec<u8>,
    /// The deadline, in milliseconds.
    end: u64,
    left: u8,
    /// Whether a status of the connection has ended the call before.
    is_repeated: bool,
}

impl Retry {
    /// Creates a call with a total timeout of `patience` milliseconds.
    pub fn new(message: Vec<u8>, now: u64, patience: u64) -> Self {
        Self { message, end: now.saturating_add(patience.max(1)), left: AGAIN, is_repeated: false }
    }

    /// The message to send.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Returns the remaining time.
    pub fn patience(&self, now: u64) -> Duration {
        Duration::from_millis(self.end.saturating_sub(now).max(1))
    }

    /// Returns the next attempt, or the final failure. Envoy reports a timeout as an unavailable adapter.
    pub fn failed(mut self, failure: CallFailure, now: u64) -> Result<Self, CallFailure> {
        match failure {
            CallFailure::Unavailable if now >= self.end => Err(CallFailure::Timeout),
            CallFailure::Unavailable if self.left > 0 => {
                self.left = self.left.saturating_sub(1);
                Ok(self)
            }
            failure if failure.may_be_of_connection() && !self.is_repeated && now < self.end => {
                self.is_repeated = true;
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
    }

    #[test]
    fn a_call_that_the_connection_ended_is_repeated_once_if_there_is_time() {
        for status in [1, 2, 8, 10, 13, 15].map(CallFailure::Status) {
            let again = Retry::new(vec![1], 0, 200).failed(status, 150).unwrap();
            assert_eq!((again.message(), again.patience(150).as_millis()), (&[1][..], 50));
            assert_eq!(again.failed(status, 160).unwrap_err(), status);
            assert_eq!(Retry::new(vec![], 0, 200).failed(status, 200).unwrap_err(), status);
            // The other replicas are tried after that, too.
            let again = Retry::new(vec![], 0, 200).failed(status, 1).unwrap();
            assert!(again.failed(CallFailure::Unavailable, 2).is_ok());
        }
        for status in [3, 5, 7, 9, 11, 12, 16].map(CallFailure::Status) {
            assert_eq!(Retry::new(vec![], 0, 200).failed(status, 1).unwrap_err(), status);
        }
    }
}
