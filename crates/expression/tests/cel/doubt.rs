//! What expressions may amount to if their tests fail, and predicates that are false for certain.

use crate::{compile, facts};
use expression::cel::{LimitValue, ResultType};
use expression::facts::Facts;
use llm::request::{self, Extent};

/// The facts of a request whose model is not a string.
fn in_doubt() -> Facts {
    let mut facts = facts();
    let text = br#"{"model":["dear"],"messages":[]}"#;
    facts.body(request::read("/v1/chat/completions", "application/json", text, Extent::Whole), text, &[]);
    facts
}

#[test]
fn if_tests_fail_the_largest_amount_is_known() {
    for (source, largest) in [
        ("llm.model == 'dear' ? 10 : 1", Some(10)),
        ("llm.model == 'cheap' ? 1 : 10", Some(10)),
        ("llm.model != 'cheap' ? 10 : 1", Some(10)),
        ("100 / (llm.model == 'dear' ? 2 : 50)", Some(50)),
        ("llm.model == 'a' ? 1 : llm.model == 'b' ? 10 : 2", Some(10)),
        ("llm.model != 'a' && llm.model != 'b' ? 1 : llm.model != 'b' ? 10 : 2", Some(10)),
        ("llm.model in ['a', 'b'] && auth.identity.plan == 'gold' ? 10 : 1", Some(10)),
        ("llm.model in ['a', 'b'] && auth.identity.plan == 'free' ? 10 : 1", Some(1)),
        ("int(auth.identity.plan) > 3 ? 1 : auth.identity.number", Some(7)),
        ("llm.model == 'dear' ? int(llm.model) : 5", Some(5)),
        ("int(auth.identity.plan)", None),
        ("size(llm.model)", None),
        ("auth.identity.nobody", None),
        ("auth.identity.number", Some(7)),
    ] {
        let expression = compile(source, ResultType::Amount).unwrap();
        assert_eq!(expression.largest_amount(&in_doubt()), largest, "{source}");
    }
}

#[test]
fn if_tests_fail_the_possible_maxima_are_known() {
    let possible = |source: &str| {
        let mut all = Vec::new();
        for value in compile(source, ResultType::Maximum).unwrap().possible_maxima(&in_doubt()) {
            if !all.contains(&value) {
                all.push(value);
            }
        }
        all
    };
    let whole = LimitValue::Whole;
    assert_eq!(possible("llm.model == 'dear' ? 5 : 50"), [whole(5), whole(50)]);
    assert_eq!(possible("llm.model == 'dear' ? 5 : null"), [whole(5), LimitValue::Nothing]);
    assert_eq!(possible("llm.model == 'dear' ? 5 : auth.identity.nobody"), [whole(5)]);
    assert_eq!(possible("auth.identity.plan"), []);
    let many = "llm.model == 'a' ? 1 : llm.model == 'b' ? 2 : llm.model == 'c' ? 3 : 4";
    assert_eq!(possible(many), [whole(1), whole(4), whole(2), whole(3)]);
}

/// Otherwise, long lists of a client would multiply the work.
#[test]
fn all_assumptions_together_do_the_work_of_one_evaluation() {
    let mut facts = facts();
    facts.header("x-long", "a,".repeat(20_000).as_bytes());
    let long = "request.headers['x-long'].split(',').exists(item, item == 'b')";
    let choice = |amount: usize| format!("{long} ? {amount} : ");
    let source = format!("{}0", (1..9).map(choice).collect::<String>());
    let expression = compile(&source, ResultType::Amount).unwrap();
    assert!(expression.amount(&facts).is_err());
    assert_eq!(expression.largest_amount(&facts), Some(8));
}

#[test]
fn a_predicate_is_surely_false_only_if_all_of_it_is_known() {
    let mut facts = in_doubt();
    facts.header("x-number", b"abc");
    for (source, expected) in [
        ("auth.identity.plan == 'free'", true),
        ("auth.identity.plan == 'gold'", false),
        ("auth.identity.nobody == 'a'", false),
        ("has(auth.identity.nobody)", true),
        ("auth.identity.plan == 'free' && auth.identity.nobody == 'a'", true),
        ("auth.identity.plan == 'free' && llm.model == 'a'", true),
        ("auth.identity.nobody == 'a' && int(request.headers['x-number']) > 5", false),
        ("int(request.headers['x-number']) > 5 && auth.identity.nobody == 'a'", false),
        ("llm.model == 'a'", false),
    ] {
        let expression = compile(source, ResultType::Predicate).unwrap();
        assert_eq!(expression.is_surely_false(&facts), expected, "{source}");
    }
}

#[test]
fn whether_there_is_an_unknown_value_is_unknown() {
    let (known, unknown) = (facts(), in_doubt());
    for source in [
        "has(llm.model)",
        "!has(llm.model)",
        "has(llm.model) && llm.model == 'dear'",
        "has(llm.model) ? llm.model == 'dear' : false",
        "llm.?model.orValue('') == 'dear'",
        "llm[?'model'].hasValue()",
        "llm.?model.hasValue()",
    ] {
        let expression = compile(source, ResultType::Predicate).unwrap();
        assert!(expression.predicate(&unknown).is_err(), "{source}");
    }
    for source in ["has(llm.user)", "llm.?user.hasValue()", "has(llm.maxOutput) && llm.maxOutput > 5"] {
        let expression = compile(source, ResultType::Predicate).unwrap();
        assert_eq!(expression.predicate(&unknown), Ok(false), "{source}");
    }
    let expression = compile("has(request.host) && has(request.size)", ResultType::Predicate).unwrap();
    assert_eq!(expression.predicate(&known), Ok(true));
}
