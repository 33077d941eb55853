//! Measures expressions in nanoseconds. Reports the best of several rounds. Run `cargo bench -p expression
//! --bench cel`.

#[path = "../../llm/benches/timer/mod.rs"]
mod timer;

use expression::cel::{CounterValue, EvaluationError, Expression, Phase, ResultType};
use expression::facts::Facts;
use serde_json::{Value, json};

const PATH: &str = r#"request.path == "/v1/chat/completions""#;
const USER: &str = "auth.identity.userid";

fn in_group(group: &str) -> String {
    format!(
        r#"request.auth.identity.metadata.annotations["kuadrant.io/groups"].split(",").exists(g, g == "{group}")"#
    )
}

fn identity() -> Value {
    json!({"identity": {
        "userid": "alice", "iss": "https://idp.example.com", "exp": 1_800_000_000, "aud": ["llm"], "email": "a@example.com",
        "metadata": {"annotations": {"kuadrant.io/groups": "free,beta", "secret.kuadrant.io/user-id": "alice"}},
    }})
}

fn facts(identity: Value) -> Facts {
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header("content-length", b"560");
    facts.auth(identity);
    facts.estimate(140, 1024);
    facts
}

fn measure<T>(name: &str, what: impl FnMut() -> T) {
    println!("{:>8.0} ns  {name}", timer::best(200, what));
}

/// One limit as in Kuadrant's announcement: two predicates and a counter.
struct Limit {
    when: [Expression; 2],
    counter: Expression,
}

impl Limit {
    fn new(group: &str) -> Result<Self, String> {
        Ok(Self {
            when: [
                Expression::compile(PATH, Phase::Request, ResultType::Predicate)?,
                Expression::compile(&in_group(group), Phase::Request, ResultType::Predicate)?,
            ],
            counter: Expression::compile(USER, Phase::Request, ResultType::Counter)?,
        })
    }

    fn bucket(&self, facts: &Facts) -> Result<Option<CounterValue>, EvaluationError> {
        for predicate in &self.when {
            if !predicate.predicate(facts)? {
                return Ok(None);
            }
        }
        self.counter.counter(facts).map(Some)
    }
}

fn main() -> Result<(), String> {
    let sample = facts(identity());
    for source in
        [PATH, &in_group("free"), &in_group("gold"), USER, "request.method.startsWith('P')", "1 + 1 == 2"]
    {
        let purpose = if source == USER { ResultType::Counter } else { ResultType::Predicate };
        let expression = Expression::compile(source, Phase::Request, purpose)?;
        match purpose {
            ResultType::Counter => measure(source, || expression.counter(&sample)),
            _ => measure(source, || expression.predicate(&sample)),
        }
    }
    let one = Limit::new("free")?;
    measure("one limit of the announcement", || one.bucket(&sample));
    let eight = (0..8).map(|_| Limit::new("free")).collect::<Result<Vec<_>, _>>()?;
    measure("eight such limits", || {
        eight.iter().map(|limit| limit.bucket(&sample).is_ok()).filter(|ok| *ok).count()
    });
    measure("building the facts, the identity's JSON not counted", || facts(Value::Null));
    measure("compiling the longest of these expressions", || {
        Expression::compile(&in_group("free"), Phase::Request, ResultType::Predicate).is_ok()
    });
    Ok(())
}
