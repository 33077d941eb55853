//! Recognises predicates that consist of comparisons of single facts: `request.path == "/v1/chat"`,
//! `request.path.startsWith("/team-7/")`, `auth.identity.plan in ["free", "gold"]`, and such comparisons
//! joined with `||`. With them, the policies of a request can be found without evaluating all policies.

use super::lookup::Lookup;
use super::rewrite::Variables;
use super::{Expression, FactPath};
use crate::facts::{self, Facts};
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel_interpreter::common::types::CelString;

/// Tests of which at least one must pass for the predicate to be true. A test of an absent fact does not
/// pass.
#[derive(Debug)]
pub struct Guard {
    pub tests: Vec<Test>,
}

/// A comparison of one fact that is a string.
#[derive(Debug)]
pub struct Test {
    pub fact: FactPath,
    pub text: String,
    /// Whether the fact only has to begin with the text.
    pub prefix: bool,
}

/// A fact that can be read without evaluating an expression.
#[derive(Debug)]
pub struct Probe(Lookup);

/// The value of the fact in a request.
#[derive(Debug)]
pub enum GuardReading {
    Text(String),
    Absent,
    /// The fact has another type, or cannot be read. The expression itself has to be evaluated.
    Other,
}

impl Expression {
    /// Returns guards that must all pass for the predicate to be true. There are several if comparisons are
    /// joined with `&&`.
    pub fn guards(&self) -> Vec<Guard> {
        let mut guards = Vec::new();
        let compiled = &*self.compiled;
        gather(&compiled.tree, &compiled.variables, &mut guards);
        guards
    }
}

impl Probe {
    pub fn new(fact: &FactPath) -> Option<Self> {
        Lookup::new(fact.clone()).map(Self)
    }

    pub fn read(&self, facts: &Facts) -> GuardReading {
        match self.0.find(facts) {
            Some(value) => match value.as_ref().downcast_ref::<CelString<'_>>() {
                Some(text) => GuardReading::Text(text.inner().to_owned()),
                None => GuardReading::Other,
            },
            None if self.0.is_absent(facts) => GuardReading::Absent,
            None => GuardReading::Other,
        }
    }
}

/// `false && x` and `x && false` are false for any x.
fn gather(expr: &IdedExpr, variables: &Variables, guards: &mut Vec<Guard>) {
    if let Some((left, right)) = operands(expr, operators::LOGICAL_AND) {
        gather(left, variables, guards);
        gather(right, variables, guards);
        return;
    }
    let mut tests = Vec::new();
    if either(expr, variables, &mut tests).is_some() {
        guards.push(Guard { tests });
    }
}

fn either(expr: &IdedExpr, variables: &Variables, tests: &mut Vec<Test>) -> Option<()> {
    if let Some((left, right)) = operands(expr, operators::LOGICAL_OR) {
        either(left, variables, tests)?;
        return either(right, variables, tests);
    }
    let Expr::Call(call) = &expr.expr else { return None };
    let (fact, texts, prefix) = asked(call)?;
    let Expr::Ident(name) = &fact.expr else { return None };
    let fact = variables.fact(name)?.path().clone();
    if facts::is_of_body(&fact) {
        return None;
    }
    for text in texts {
        let Expr::Literal(LiteralValue::String(text)) = &text.expr else { return None };
        tests.push(Test { fact: fact.clone(), text: text.inner().to_owned(), prefix });
    }
    Some(())
}

/// Returns the compared fact, the texts, and whether a prefix suffices.
fn asked(call: &CallExpr) -> Option<(&IdedExpr, &[IdedExpr], bool)> {
    match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
        (operators::EQUALS, None, [left, right]) => Some(match &left.expr {
            Expr::Literal(_) => (right, std::slice::from_ref(left), false),
            _ => (left, std::slice::from_ref(right), false),
        }),
        (operators::IN, None, [left, IdedExpr { expr: Expr::List(list), .. }]) => {
            Some((left, &list.elements, false))
        }
        ("startsWith", Some(target), prefix) => Some((target, prefix, true)),
        _ => None,
    }
}

fn operands<'e>(expr: &'e IdedExpr, operator: &str) -> Option<(&'e IdedExpr, &'e IdedExpr)> {
    match &expr.expr {
        Expr::Call(call) if call.func_name == operator => match call.args.as_slice() {
            [left, right] => Some((left, right)),
            _ => None,
        },
        _ => None,
    }
}
