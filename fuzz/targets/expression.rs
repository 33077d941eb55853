//! Compiles arbitrary text as a CEL expression. It is rejected with a reason, or it evaluates to a value or
//! an error in bounded time.
#![no_main]

use expression::cel::{Expression, Phase, ResultType};
use expression::facts::Facts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    for phase in [Phase::Request, Phase::Response] {
        for purpose in [
            ResultType::Predicate,
            ResultType::Counter,
            ResultType::Amount,
            ResultType::Maximum,
            ResultType::Life,
            ResultType::Text,
        ] {
            match Expression::compile(source, phase, purpose) {
                Ok(expression) => evaluate(&expression, purpose),
                Err(message) => assert!(!message.is_empty()),
            }
        }
    }
});

fn evaluate(expression: &Expression, purpose: ResultType) {
    for facts in [fuzz::facts(), Facts::default()] {
        let error = match purpose {
            ResultType::Predicate => expression.predicate(&facts).err(),
            ResultType::Counter => expression.counter(&facts).err(),
            ResultType::Amount | ResultType::Cost | ResultType::Tokens => expression.amount(&facts).err(),
            ResultType::Maximum => expression.maximum(&facts).err(),
            ResultType::Life => expression.life(&facts).err(),
            ResultType::Text => expression.words(&facts).err(),
        };
        assert!(error.is_none_or(|error| !error.to_string().is_empty()));
    }
}
