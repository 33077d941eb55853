//! Reads arbitrary JSON as a policy. The result is a list of errors with their paths, or a plan that handles
//! requests.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use policy::model::Policy;
use policy::plan::Plan;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(document) = serde_json::from_slice(bytes) else { return Corpus::Reject };
    match Policy::read(&document) {
        Ok(policy) => {
            for hold in Plan::new(vec![policy]).judge(&mut fuzz::facts(), false).holds {
                assert!(hold.amount >= 1);
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.message.is_empty()));
        }
    }
    Corpus::Keep
});
