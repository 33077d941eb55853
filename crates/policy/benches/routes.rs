//! Measures the lookup of a request's route among many, in nanoseconds. Reports the best of several rounds.
//! Run `cargo bench -p policy --bench routes`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use expression::facts::Facts;
use policy::routes::Routes;
use protocol::wire::weir::v1::{Field, Match, Placement, Rule, field, r#match::Path};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 300;
const TIMES: u32 = 50;

/// Builds this many routes, each with a policy. The first one has the lowest rank.
fn routes(count: u32, found: impl Fn(u32) -> Match) -> Routes {
    let rule = |place| Rule { matches: vec![found(place)], policies: vec![place], ..Rule::default() };
    let rules = (0..count).rev().map(rule).collect();
    Routes::compile(&Placement { rules, ..Placement::default() }, count as usize).unwrap()
}

fn regex(path: String) -> Match {
    Match { path: Some(Path::Regex(path)), ..Match::default() }
}

fn prefix(path: String) -> Match {
    Match { path: Some(Path::Prefix(path)), ..Match::default() }
}

fn with_header(found: Match, value: String) -> Match {
    let value = Some(field::Value::Exact(value));
    Match { headers: vec![Field { name: "x-model".into(), value }], ..found }
}

fn measure(name: &str, found: impl Fn(u32) -> Match) {
    let cost = |count: u32| {
        let routes = routes(count, &found);
        let mut facts = Facts::default();
        for (name, value) in [
            (":method", "POST"),
            (":authority", "llm.example"),
            (":path", "/team-0/v1/chat/completions"),
            ("x-model", "model-0"),
        ] {
            facts.header(name, value.as_bytes());
        }
        assert_eq!(routes.find(&facts), [0]);
        let round = |_| {
            let start = Instant::now();
            for _ in 0..TIMES {
                black_box(routes.find(black_box(&facts)));
            }
            start.elapsed().as_nanos() / u128::from(TIMES)
        };
        (0..ROUNDS).map(round).min().unwrap_or_default()
    };
    println!("{:>8} ns, {:>8} ns among five hundred  {name}", cost(1), cost(500));
}

fn main() {
    measure("a prefix", |place| prefix(format!("/team-{place}/v1/chat")));
    measure("a regular expression with a literal beginning", |place| {
        regex(format!("/team-{place}/v[0-9]+/.*"))
    });
    measure("a regular expression with a literal beginning without a slash", |place| {
        regex(format!("/team-{place}[a-z]*/v[0-9]+/.*"))
    });
    measure("a regular expression without a literal beginning", |place| {
        regex(format!("/[a-z]+-{place}/v[0-9]+/.*"))
    });
    measure("a header", |place| with_header(prefix("/team-0/v1".into()), format!("model-{place}")));
}
