//! Amounts are rounded up, never negative, and saturate.

use crate::{compile, facts};
use expression::cel::ResultType;

#[test]
fn an_amount_is_rounded_up_and_saturates() {
    let facts = facts();
    let table = [
        ("1", 1),
        ("0", 0),
        ("-1", 0),
        ("1u", 1),
        ("1.000001", 2),
        ("-0.5", 0),
        ("1.0 / 0.0", u64::MAX),
        ("-1.0 / 0.0", 0),
        ("1e300", u64::MAX),
        ("auth.identity.large", u64::MAX),
        ("9223372036854775807", i64::MAX as u64),
        ("llm.estimate.input * 0.1", 10),
        ("llm.estimate.total / 1000.0", 2),
        ("auth.identity.admin ? llm.estimate.total : 5", 1124),
    ];
    for (source, expected) in table {
        assert_eq!(compile(source, ResultType::Amount).unwrap().amount(&facts), Ok(expected), "{source}");
    }
}

#[test]
fn an_amount_that_is_no_number_has_failed() {
    let error = compile("auth.identity.userid", ResultType::Amount).unwrap().amount(&facts()).unwrap_err();
    assert_eq!(error.to_string(), "the value is of type string, and must be a number");
    // A client must not be able to avoid a charge with NaN.
    let error = compile("0.0 / 0.0", ResultType::Amount).unwrap().amount(&facts()).unwrap_err();
    assert_eq!(error.to_string(), "the value is not a number");
}
