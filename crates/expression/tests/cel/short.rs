//! Short forms give the same results as the interpreter.

use crate::{compile, facts};
use expression::cel::ResultType;
use expression::facts::Facts;

const FACTS: [&str; 18] = [
    "request.path",
    "request.url_path",
    "request.host",
    "request.size",
    "request.time",
    "request.useragent",
    "request.referer",
    "request.headers['x-tenant']",
    "request.headers['x-absent']",
    "source.remote_address",
    "connection.mtls",
    "auth.identity.userid",
    "auth.identity.number",
    "auth.identity.nothing",
    "auth.identity.groups",
    "auth.identity.absent",
    "auth.identity.userid.deeper",
    "metadata.filter_metadata.space.key",
];

/// Returns an expression with the same value, but too long for a short form.
fn longer(source: &str) -> String {
    format!("true ? ({source}) : ({source})")
}

#[test]
fn what_is_compared_with_a_text_is_what_the_interpreter_compares() {
    let texts =
        ["", "alice", "blue", "/v1/chat/completions?a=b&c=d?", "/v1", "llm.example.com", "7", "2001:db8::7"];
    for facts in [facts(), Facts::default()] {
        for (fact, text) in FACTS.iter().flat_map(|fact| texts.map(|text| (fact, text))) {
            let sources = [
                format!("{fact} == '{text}'"),
                format!("'{text}' == {fact}"),
                format!("{fact} != '{text}'"),
                format!("{fact}.startsWith('{text}')"),
            ];
            for source in sources {
                let (Ok(short), Ok(long)) = (
                    compile(&source, ResultType::Predicate),
                    compile(&longer(&source), ResultType::Predicate),
                ) else {
                    continue;
                };
                assert_eq!(short.predicate(&facts), long.predicate(&facts), "{source}");
            }
        }
    }
}

#[test]
fn a_fact_alone_is_the_counter_that_the_interpreter_finds() {
    for facts in [facts(), Facts::default()] {
        for fact in FACTS {
            let (Ok(short), Ok(long)) =
                (compile(fact, ResultType::Counter), compile(&longer(fact), ResultType::Counter))
            else {
                continue;
            };
            assert_eq!(short.counter(&facts), long.counter(&facts), "{fact}");
        }
    }
}
