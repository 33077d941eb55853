//! The types that can be known before any request: enough to refuse a text where a bool must stand.

use super::Use;
use super::signatures;
use crate::facts;
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{Expr, LiteralValue, operators};

/// What is known of a value's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Nothing.
    Any,
    Bool,
    Number,
    Text,
    List,
    Map,
    Null,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Any => "of any type",
            Self::Bool => "a bool",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Null => "null",
        }
    }
}

/// Whether an expression can have a value of the type its use needs.
pub(super) fn fits(expr: &IdedExpr, purpose: Use) -> Result<(), String> {
    let found = of(expr);
    let (needed, fits) = match purpose {
        Use::Predicate => ("a predicate must be a bool", found == Type::Bool),
        Use::Counter => {
            let fits = matches!(found, Type::Text | Type::Number | Type::Bool);
            ("a counter must be a string, number or bool", fits)
        }
        Use::Amount => ("an amount must be a number", found == Type::Number),
        Use::Cost => ("a cost must be a number", found == Type::Number),
        Use::Maximum => {
            let fits = matches!(found, Type::Number | Type::Text | Type::Null);
            ("a maximum must be a number, or null for none", fits)
        }
        Use::Life => ("a life must be a duration, or a number of seconds", found == Type::Number),
        Use::Text => ("this must be a string", found == Type::Text),
    };
    if fits || found == Type::Any { Ok(()) } else { Err(format!("{needed}, and this is {}", found.name())) }
}

/// The type of an expression. Only one that is checked: what it names exists.
pub(super) fn of(expr: &IdedExpr) -> Type {
    match &expr.expr {
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(_) => Type::Bool,
            LiteralValue::String(_) => Type::Text,
            LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Type::Number,
            LiteralValue::Null => Type::Null,
            LiteralValue::Bytes(_) => Type::Any,
        },
        Expr::List(_) => Type::List,
        Expr::Map(_) => Type::Map,
        Expr::Select(select) if select.test => Type::Bool,
        Expr::Select(select) => attribute(&select.operand, &select.field),
        // What a macro gives is of the type it starts with, but for `exists_one`, which counts.
        Expr::Comprehension(loops) => match of(&loops.result) {
            Type::Any => of(&loops.accu_init),
            known => known,
        },
        Expr::Call(call) => called(&call.func_name, call.target.is_some(), &call.args),
        _ => Type::Any,
    }
}

fn attribute(operand: &IdedExpr, name: &str) -> Type {
    let kind = match &operand.expr {
        Expr::Ident(root) => facts::find(root, name),
        Expr::Select(estimate) if !estimate.test && estimate.field == "estimate" => {
            match &estimate.operand.expr {
                Expr::Ident(root) if root == "llm" => facts::find("llm.estimate", name),
                _ => None,
            }
        }
        Expr::Select(headers) if !headers.test && headers.field == "headers" => match &headers.operand.expr {
            Expr::Ident(root) if root == "request" || root == "response" => return Type::Text,
            _ => None,
        },
        _ => None,
    };
    match kind.map(|attribute| attribute.kind) {
        Some(facts::Kind::Text) => Type::Text,
        Some(facts::Kind::Number) => Type::Number,
        Some(facts::Kind::Bool) => Type::Bool,
        Some(facts::Kind::Time) | None => Type::Any,
    }
}

fn called(name: &str, member: bool, args: &[IdedExpr]) -> Type {
    match (name, args) {
        (
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::IN
            | operators::NOT_STRICTLY_FALSE,
            _,
        ) => Type::Bool,
        (operators::MULTIPLY | operators::DIVIDE | operators::MODULO, _) => Type::Number,
        (operators::ADD, [left, right]) => match (of(left), of(right)) {
            (known @ (Type::Number | Type::Text | Type::List), _) => known,
            (_, known @ (Type::Number | Type::Text | Type::List)) => known,
            _ => Type::Any,
        },
        (operators::CONDITIONAL, [_, yes, no]) => match (of(yes), of(no)) {
            (yes, no) if yes == no => yes,
            _ => Type::Any,
        },
        _ => match signatures::find(name, member, args.len()) {
            Ok(function) => function.gives,
            Err(_) => Type::Any,
        },
    }
}
