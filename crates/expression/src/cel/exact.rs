//! Finds the facts that an expression compares exactly, so that a client could evade it with a different
//! spelling: `fact == text` or `fact in [..]`. A negated comparison cannot be evaded in this way.

use super::FactPath;
use super::rewrite::fact;
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};

/// An exact comparison of a fact with one or more texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactComparison {
    /// The fact.
    pub fact: FactPath,
    /// The texts that the fact is compared with. Empty if they are not literals.
    pub texts: Vec<String>,
}

/// Returns the exact comparisons in a tree that is checked but not rewritten yet.
pub(super) fn comparisons(tree: &IdedExpr) -> Vec<ExactComparison> {
    let mut found = Vec::new();
    visit(tree, true, &mut found);
    found
}

/// `holds` is the value that the expression must have for the whole to be true.
fn visit(expr: &IdedExpr, holds: bool, found: &mut Vec<ExactComparison>) {
    match &expr.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
        Expr::Select(select) => visit(&select.operand, holds, found),
        Expr::Call(call) => of_call(call, holds, found),
        Expr::List(list) => list.elements.iter().for_each(|element| visit(element, holds, found)),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    visit(&entry.key, holds, found);
                    visit(&entry.value, holds, found);
                }
            }
        }
        Expr::Comprehension(loops) => {
            for inside in
                [&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result]
            {
                visit(inside, holds, found);
            }
        }
    }
}

fn of_call(call: &CallExpr, holds: bool, found: &mut Vec<ExactComparison>) {
    let compares = match call.func_name.as_str() {
        operators::EQUALS | operators::IN => holds,
        operators::NOT_EQUALS => !holds,
        _ => false,
    };
    if compares && let [left, right] = call.args.as_slice() {
        for (side, other) in [(left, right), (right, left)] {
            found.extend(fact(side).map(|fact| ExactComparison { fact, texts: texts(other) }));
        }
    }
    let holds = holds != (call.func_name == operators::LOGICAL_NOT);
    let operands = call.target.as_deref().into_iter().chain(&call.args);
    operands.for_each(|operand| visit(operand, holds, found));
}

fn texts(expr: &IdedExpr) -> Vec<String> {
    match &expr.expr {
        Expr::Literal(LiteralValue::String(text)) => vec![text.inner().to_owned()],
        Expr::List(list) => list.elements.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}
