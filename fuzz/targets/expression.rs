//! Any text as a CEL expression: refused with a reason, or evaluated to a value or an error, in bounded time.
#![no_main]

use expression::cel::{Expression, Phase, Use};
use expression::facts::Facts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    for phase in [Phase::Request, Phase::Response] {
        for purpose in [Use::Predicate, Use::Counter, Use::Amount, Use::Maximum, Use::Life, Use::Text] {
            match Expression::compile(source, phase, purpose) {
                Ok(expression) => evaluate(&expression, purpose),
                Err(message) => assert!(!message.is_empty()),
            }
        }
    }
});

fn evaluate(expression: &Expression, purpose: Use) {
    for facts in [fuzz::facts(), Facts::default()] {
        let error = match purpose {
            Use::Predicate => expression.predicate(&facts).err(),
            Use::Counter => expression.counter(&facts).err(),
            Use::Amount | Use::Cost => expression.amount(&facts).err(),
            Use::Maximum => expression.maximum(&facts).err(),
            Use::Life => expression.life(&facts).err(),
            Use::Text => expression.words(&facts).err(),
        };
        assert!(error.is_none_or(|error| !error.to_string().is_empty()));
    }
}
