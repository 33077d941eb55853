//! The results of comparisons with absent values, and of expressions that contain such comparisons.

use crate::{compile, facts, predicate, text};
use expression::cel::ResultType;
use expression::facts::Facts;
use llm::request::{self, Extent};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Comparisons with a value that no request has, and their results.
const ABSENT: [(&str, bool); 44] = [
    ("auth.identity.role == 'admin'", false),
    ("auth.identity.role != 'admin'", true),
    ("!(auth.identity.role == 'admin')", true),
    ("!(auth.identity.role != 'admin')", false),
    ("auth.identity.role in ['admin']", false),
    ("!(auth.identity.role in ['admin'])", true),
    ("'admin' in auth.identity.roles", false),
    ("auth.identity.level > 3", false),
    ("auth.identity.level <= 3", false),
    ("!(auth.identity.level > 3)", true),
    ("has(auth.identity.role)", false),
    ("!has(auth.identity.role)", true),
    ("has(auth.identity.deep.role)", false),
    ("!has(auth.identity.deep.role.first)", true),
    ("auth.identity.roles.exists(r, r == 'admin')", false),
    ("!auth.identity.roles.exists(r, r == 'admin')", true),
    ("auth.identity.roles.all(r, r == 'admin')", true),
    ("!auth.identity.roles.all(r, r == 'admin')", false),
    ("auth.identity.roles.exists_one(r, r == 'admin')", false),
    ("auth.identity.roles.filter(r, r == 'admin').size() > 0", false),
    ("auth.identity.roles.map(r, r).exists(r, true)", false),
    ("auth.identity.roles[0] == 'admin'", false),
    ("size(auth.identity.roles) > 3", false),
    ("!(size(auth.identity.roles) > 3)", true),
    ("size(auth.identity.roles) != 3", true),
    ("request.headers['x-h'].split(',').exists(h, h == 'a')", false),
    ("request.headers['x-h'].lowerAscii() == 'a'", false),
    ("request.headers['x-h'].lowerAscii() != 'a'", true),
    ("!request.headers['x-h'].startsWith('a')", true),
    ("!request.headers['x-h'].endsWith('a') && !request.headers['x-h'].contains('a')", true),
    ("!request.headers['x-h'].matches('a')", true),
    ("int(request.headers['x-h']) > 3", false),
    ("type(auth.identity.role) == string", false),
    ("auth.identity.operator", false),
    ("!auth.identity.operator", true),
    ("auth.identity.operator == false", false),
    ("auth.identity.role == 'a' || true", true),
    ("auth.identity.role == 'a' || auth.identity.role != 'b'", true),
    ("auth.identity.role != 'a' && auth.identity.userid != 'bob'", true),
    ("auth.identity.role == 'a' ? false : true", true),
    ("auth.identity.role != 'a' ? auth.identity.role != 'b' : false", true),
    ("(auth.identity.role == 'a' ? 1 : 2) == 2", true),
    ("auth.identity.?role.orValue('none') == 'none'", true),
    ("auth.identity.deep.?role.orValue('none') == 'none'", true),
];

/// Requests that lack the value in various ways.
fn without() -> Vec<Facts> {
    let identity = |identity: Value| {
        let mut facts = Facts::default();
        facts.auth(json!({ "identity": identity }));
        facts
    };
    let nulls = json!({"role": null, "roles": null, "level": null, "operator": null, "deep": null});
    vec![Facts::default(), facts(), identity(json!({})), identity(nulls)]
}

#[test]
fn a_test_of_what_is_absent_is_false_and_negation_negates() {
    for (index, facts) in without().iter().enumerate() {
        for (source, expected) in ABSENT {
            // For `has` and `==`, null is present.
            let is_there =
                index == 3 && (source.contains("has(auth.identity.role)") || source.contains("orValue"));
            if is_there || source.starts_with("type(") && index == 3 {
                continue;
            }
            assert_eq!(predicate(source, facts), expected.to_string(), "{index}: {source}");
        }
    }
}

#[test]
fn an_element_without_the_field_is_tested_by_itself() {
    let mut facts = Facts::default();
    let teams = json!([{"name": "a", "kind": "x"}, {"name": "b"}, {"name": "c", "kind": null}]);
    facts.auth(json!({"identity": {"teams": teams, "none": []}}));
    for (source, expected) in [
        ("auth.identity.teams.exists(t, t.kind == 'x')", true),
        ("auth.identity.teams.exists(t, t.kind == 'y')", false),
        ("auth.identity.teams.exists(t, t.kind != 'x')", true),
        ("auth.identity.teams.all(t, t.kind == 'x')", false),
        ("auth.identity.teams.all(t, t.kind != 'y')", true),
        ("auth.identity.teams.exists_one(t, t.kind != 'x' && t.name == 'b')", true),
        ("auth.identity.teams.filter(t, t.kind == 'x').size() == 1", true),
        ("auth.identity.teams.filter(t, t.kind != 'x').map(t, t.name) == ['b', 'c']", true),
        ("auth.identity.teams.filter(t, t.kind.startsWith('x')).size() == 1", true),
        ("auth.identity.teams.exists(t, has(t.kind) && t.kind == 'x')", true),
        ("auth.identity.teams.all(t, has(t.kind))", false),
        ("auth.identity.teams.exists(t, [t.name, 'z'].exists(n, n != t.kind && n == 'b'))", true),
        ("auth.identity.teams.map(t, t.kind).exists(k, k == 'x')", false),
        ("auth.identity.none.exists(t, true)", false),
        ("auth.identity.none.all(t, false)", true),
        ("auth.identity.none[0] != 'a'", true),
    ] {
        assert_eq!(predicate(source, &facts), expected.to_string(), "{source}");
    }
}

#[test]
fn a_choice_is_made_by_its_test_in_any_expression() {
    let strangers = Facts::default();
    let userless = "auth.identity.plan == 'gold' ? 'vip' : 'all'";
    assert_eq!(text(userless, &strangers), "all");
    assert_eq!(text("auth.identity.plan == 'gold' ? 'vip' : auth.identity.userid", &facts()), "vip");
    let amount =
        compile("has(auth.identity.plan) && auth.identity.plan != 'free' ? 1000 : 10", ResultType::Amount);
    assert_eq!(amount.unwrap().amount(&strangers), Ok(10));
    let error = text("auth.identity.plan != 'gold' ? auth.identity.userid : 'vip'", &strangers);
    assert_eq!(error, "error: auth.identity is absent");
}

#[test]
fn what_fails_is_not_absent_and_what_is_certain_settles_it() {
    let facts = facts();
    let fails = "int(auth.identity.userid) > 1";
    for (source, expected) in [
        (format!("{fails} && auth.identity.email == 'a'"), Some(false)),
        (format!("auth.identity.email == 'a' && {fails}"), Some(false)),
        (format!("auth.identity.email != 'a' || {fails}"), Some(true)),
        (format!("{fails} || !has(auth.identity.email)"), Some(true)),
        (format!("{fails} && auth.identity.email != 'a'"), None),
        (format!("{fails} || auth.identity.email == 'a'"), None),
        (format!("!({fails})"), None),
        ("auth.identity.userid.first == 'a'".to_owned(), None),
        ("auth.identity.userid".to_owned(), None),
        ("auth.identity.groups > 1".to_owned(), None),
    ] {
        let value = compile(&source, ResultType::Predicate).unwrap().predicate(&facts);
        assert_eq!(value.as_ref().ok().copied(), expected, "{source}: {value:?}");
    }
}

/// Returns facts with a body, of which only the beginning may be known.
fn body(path: &str, text: &str, extent: Extent) -> Facts {
    let mut facts = facts();
    let read = request::read(path, "application/json", text.as_bytes(), extent);
    facts.body(read, text.as_bytes(), &["/tier".to_owned(), String::new()]);
    facts
}

#[test]
fn of_a_body_in_doubt_nothing_is_certain() {
    let text = r#"{"model":"mini","user":"u","tier":"a","metadata":{"a":"b"},"messages":"hi"}"#;
    let chat = "/v1/chat/completions";
    let tests = [
        "llm.model == 'mini'",
        "llm.model != 'mini'",
        "llm.user == 'u'",
        "llm.session == 's'",
        "has(llm.user)",
        "!has(llm.session)",
        "llm.stream",
        "llm.metadata.a == 'b'",
        "llm.metadata[request.method] == 'b'",
        "has(llm.metadata.a)",
        "llm.metadata.exists(k, k == 'a')",
        "llm.?model.orValue('none') == 'none'",
        "requestBodyJSON('/tier') == 'a'",
    ];
    let in_doubt = [
        body(chat, text, Extent::Cut(Some(1 << 30))),
        body(chat, &text[..70], Extent::Whole),
        body(chat, "no json", Extent::Whole),
        facts(),
    ];
    for source in tests {
        let expression = compile(source, ResultType::Predicate).unwrap();
        assert!(expression.predicate(&body(chat, text, Extent::Whole)).is_ok(), "{source}");
        for facts in &in_doubt {
            assert!(expression.predicate(facts).is_err(), "{source}");
            assert_eq!(predicate(&format!("({source}) && request.method == 'GET'"), facts), "false");
        }
    }
    let path = body("/model/anthropic.claude/converse", "no json", Extent::Whole);
    assert_eq!(predicate("llm.model == 'anthropic.claude' && llm.operation == 'chat'", &path), "true");
}

/// Many servers accept a string or a number for a boolean, and a string for a number.
#[test]
fn a_value_that_servers_may_convert_fails_a_comparison() {
    let told = |value: &str| {
        body("/v1/chat/completions", &format!(r#"{{"tier":{value},"messages":"hi"}}"#), Extent::Whole)
    };
    let fails = "fails";
    for (source, results) in [
        // The value is true, "true", 1, "5", 5, 5.0, null, [true], {}, or absent.
        (
            "requestBodyJSON('/tier') == true",
            ["true", fails, fails, fails, fails, fails, "false", "false", "false", "false"],
        ),
        (
            "!(false == requestBodyJSON('/tier'))",
            ["true", fails, fails, fails, fails, fails, "true", "true", "true", "true"],
        ),
        (
            "requestBodyJSON('/tier') in [5, 6]",
            [fails, fails, "false", fails, "true", "true", "false", "false", "false", "false"],
        ),
        (
            "requestBodyJSON('').tier == true",
            ["true", fails, fails, fails, fails, fails, "false", "false", "false", "false"],
        ),
        (
            "requestBodyJSON('')['tier'] in [5, 6]",
            [fails, fails, "false", fails, "true", "true", "false", "false", "false", "false"],
        ),
        (
            "requestBodyJSON('/tier') in [5, 'true']",
            ["false", "true", "false", "false", "true", "true", "false", "false", "false", "false"],
        ),
        (
            "5 == requestBodyJSON('/tier')",
            [fails, fails, "false", fails, "true", "true", "false", "false", "false", "false"],
        ),
        (
            "requestBodyJSON('/tier') == 'x'",
            ["false", "false", "false", "false", "false", "false", "false", "false", "false", "false"],
        ),
    ] {
        let values = ["true", "\"true\"", "1", "\"5\"", "5", "5.0", "null", "[true]", "{}"];
        let all = values.iter().map(|value| told(value));
        let all = all.chain([body("/v1/chat/completions", r#"{"messages":"hi"}"#, Extent::Whole)]);
        for (number, facts) in all.enumerate() {
            let result = predicate(source, &facts);
            let result = if ["true", "false"].contains(&&*result) { &result } else { fails };
            assert_eq!(result, results[number], "{source}: {:?}", values.get(number));
        }
    }
}

/// A condition as a tree, and the result that the rules define.
#[derive(Clone, Debug)]
enum Condition {
    /// Tests whether the fact with this index equals the text with that index.
    Is(usize, usize),
    Isnt(usize, usize),
    Has(usize),
    Begins(usize, usize),
    Among(usize, Vec<usize>),
    Exists(usize, usize),
    All(usize, usize),
    Longer(usize, usize),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    If(Box<Condition>, Box<Condition>, Box<Condition>),
    /// The same condition, as the test of a conditional expression that returns strings.
    Chosen(Box<Condition>),
    Filtered(usize, Box<Condition>),
}

const NAMES: [&str; 4] =
    ["auth.identity.a", "auth.identity.deep.b", "request.headers['x-c']", "auth.identity['d']"];
const TEXTS: [&str; 4] = ["", "x", "xy", "y,x"];

type Values = [Option<usize>; 4];

impl Condition {
    fn source(&self) -> String {
        match self {
            Self::Is(fact, text) => format!("{} == '{}'", NAMES[*fact], TEXTS[*text]),
            Self::Isnt(fact, text) => format!("'{}' != {}", TEXTS[*text], NAMES[*fact]),
            Self::Has(fact) => {
                let dotted = NAMES[*fact].replace("['", ".").replace("']", "").replace("x-c", "xc");
                format!("has({dotted})")
            }
            Self::Begins(fact, text) => format!("{}.startsWith('{}')", NAMES[*fact], TEXTS[*text]),
            Self::Among(fact, texts) => {
                let texts: Vec<_> = texts.iter().map(|text| format!("'{}'", TEXTS[*text])).collect();
                format!("{} in [{}]", NAMES[*fact], texts.join(", "))
            }
            Self::Exists(fact, text) => {
                format!("{}.split(',').exists(e, e == '{}')", NAMES[*fact], TEXTS[*text])
            }
            Self::All(fact, text) => format!("{}.split(',').all(e, e != '{}')", NAMES[*fact], TEXTS[*text]),
            Self::Longer(fact, size) => format!("size({}.trim()) > {size}", NAMES[*fact]),
            Self::Not(one) => format!("!({})", one.source()),
            Self::And(one, other) => format!("({}) && ({})", one.source(), other.source()),
            Self::Or(one, other) => format!("({}) || ({})", one.source(), other.source()),
            Self::If(one, yes, no) => {
                format!("({}) ? ({}) : ({})", one.source(), yes.source(), no.source())
            }
            Self::Chosen(one) => format!("(({}) ? 'yes' : 'no') == 'yes'", one.source()),
            Self::Filtered(times, one) => {
                let list = vec!["1"; *times].join(", ");
                format!("[{list}].filter(n, {}).size() > 0", one.source())
            }
        }
    }

    fn holds(&self, values: &Values) -> bool {
        let text = |fact: &usize| values[*fact].map(|text| TEXTS[text]);
        match self {
            Self::Is(fact, other) => text(fact) == Some(TEXTS[*other]),
            Self::Isnt(fact, other) => text(fact) != Some(TEXTS[*other]),
            Self::Has(fact) => text(fact).is_some(),
            Self::Begins(fact, other) => text(fact).is_some_and(|text| text.starts_with(TEXTS[*other])),
            Self::Among(fact, others) => others.iter().any(|other| text(fact) == Some(TEXTS[*other])),
            Self::Exists(fact, other) => {
                text(fact).is_some_and(|text| text.split(',').any(|part| part == TEXTS[*other]))
            }
            Self::All(fact, other) => {
                text(fact).is_none_or(|text| text.split(',').all(|part| part != TEXTS[*other]))
            }
            Self::Longer(fact, size) => text(fact).is_some_and(|text| text.len() > *size),
            Self::Not(one) => !one.holds(values),
            Self::And(one, other) => one.holds(values) && other.holds(values),
            Self::Or(one, other) => one.holds(values) || other.holds(values),
            Self::If(one, yes, no) => {
                if one.holds(values) {
                    yes.holds(values)
                } else {
                    no.holds(values)
                }
            }
            Self::Chosen(one) => one.holds(values),
            Self::Filtered(times, one) => *times > 0 && one.holds(values),
        }
    }
}

fn condition() -> impl Strategy<Value = Condition> {
    let (fact, text) = (0..NAMES.len(), 0..TEXTS.len());
    let pair = || (fact.clone(), text.clone());
    let leaf = prop_oneof![
        pair().prop_map(|(fact, text)| Condition::Is(fact, text)),
        pair().prop_map(|(fact, text)| Condition::Isnt(fact, text)),
        fact.clone().prop_map(Condition::Has),
        pair().prop_map(|(fact, text)| Condition::Begins(fact, text)),
        (fact.clone(), prop::collection::vec(text.clone(), 0..3))
            .prop_map(|(fact, texts)| Condition::Among(fact, texts)),
        pair().prop_map(|(fact, text)| Condition::Exists(fact, text)),
        pair().prop_map(|(fact, text)| Condition::All(fact, text)),
        pair().prop_map(|(fact, size)| Condition::Longer(fact, size)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let inner = inner.prop_map(Box::new);
        prop_oneof![
            inner.clone().prop_map(Condition::Not),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| Condition::And(one, other)),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| Condition::Or(one, other)),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(one, yes, no)| Condition::If(one, yes, no)),
            inner.clone().prop_map(Condition::Chosen),
            (0..3_usize, inner).prop_map(|(times, one)| Condition::Filtered(times, one)),
        ]
    })
}

/// Builds a request with these values. With `nulls`, absent values are null where possible.
fn with(values: &Values, nulls: bool) -> Facts {
    let mut facts = Facts::default();
    let mut identity = json!({});
    let mut set = |fact: usize, pointer: &[&str]| {
        let Some(value) = values[fact].map(|text| json!(TEXTS[text])).or(nulls.then_some(Value::Null)) else {
            return;
        };
        match pointer {
            [one] => identity[*one] = value,
            [one, two] => identity[*one][*two] = value,
            _ => unreachable!(),
        }
    };
    set(0, &["a"]);
    set(1, &["deep", "b"]);
    set(3, &["d"]);
    if values.iter().any(Option::is_some) || nulls {
        facts.auth(json!({ "identity": identity }));
    }
    if let Some(text) = values[2] {
        facts.header("x-c", TEXTS[text].as_bytes());
        facts.header("xc", TEXTS[text].as_bytes());
    }
    facts
}

fn has_has(source: &str) -> bool {
    source.contains("has(")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_rules_hold_however_conditions_are_composed(
        condition in condition(),
        values in prop::array::uniform4(prop::option::of(0..TEXTS.len())),
        nulls in any::<bool>(),
    ) {
        let source = condition.source();
        // A null value is present.
        let facts = with(&values, nulls && !has_has(&source));
        let expected = condition.holds(&values).to_string();
        prop_assert_eq!(predicate(&source, &facts), expected, "{}", source);
    }
}
