//! Finds the parts of an expression that do not depend on the request. If such a part fails, it fails for
//! every request.

use super::rewrite::{BUDGET, PATTERN};
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{EntryExpr, Expr};

/// Returns the largest constant parts of a rewritten tree: those that use no fact and no variable. Plain
/// literals are omitted.
pub(super) fn parts(tree: &IdedExpr) -> Vec<&IdedExpr> {
    let mut parts = Vec::new();
    gather(tree, &mut parts);
    parts
}

fn gather<'e>(expr: &'e IdedExpr, parts: &mut Vec<&'e IdedExpr>) {
    match &expr.expr {
        Expr::Literal(_) | Expr::Ident(_) => {}
        _ if is_constant(expr) => parts.push(expr),
        _ => children(expr).into_iter().for_each(|child| gather(child, parts)),
    }
}

/// Macros do not count as constant: they are evaluated only as part of the whole expression.
fn is_constant(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Literal(_) => true,
        Expr::Ident(name) => name == BUDGET || name.starts_with(PATTERN) || name == "optional",
        Expr::Call(_) | Expr::List(_) | Expr::Map(_) | Expr::Select(_) => {
            children(expr).into_iter().all(is_constant)
        }
        Expr::Comprehension(_) | Expr::Struct(_) | Expr::Unspecified => false,
    }
}

fn children(expr: &IdedExpr) -> Vec<&IdedExpr> {
    match &expr.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => {
            let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some([&entry.key, &entry.value]),
                EntryExpr::StructField(_) => None,
            });
            entries.flatten().collect()
        }
        Expr::Comprehension(loops) => vec![&loops.iter_range, &loops.loop_step],
        Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) | Expr::Unspecified => Vec::new(),
    }
}
