//! Which facts an expression compares exactly, in a way that a client would evade by another spelling: `fact == text` or
//! `fact in [..]`. Where it is negated, another spelling gains nothing.

use super::FactPath;
use super::rewrite::fact;
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};

/// What is compared, and with what as far as that is written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactComparison {
    /// The fact.
    pub fact: FactPath,
    /// The texts; none if they are not written out.
    pub texts: Vec<String>,
}

/// Of a checked tree that is not changed yet.
pub(super) fn comparisons(tree: &IdedExpr) -> Vec<ExactComparison> {
    let mut found = Vec::new();
    visit(tree, true, &mut found);
    found
}

/// `holds`: what is asked must hold for the whole to hold; else it must not.
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
