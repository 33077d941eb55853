//! Infers types when an expression is compiled. They suffice to reject expressions that can never work, such
//! as a header that is compared with a number. Values of types that are known only at run time (claims, parts
//! of the body) may have any type.

use super::{FactPath, ResultType, names, signatures};
use crate::facts::{self, AttributeType};
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use std::ops::BitOr;

/// A set of types that a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u16);

pub(super) const BOOL: Types = Types(1);
pub(super) const NUMBER: Types = Types(1 << 1);
pub(super) const TEXT: Types = Types(1 << 2);
pub(super) const BYTES: Types = Types(1 << 3);
pub(super) const LIST: Types = Types(1 << 4);
pub(super) const MAP: Types = Types(1 << 5);
pub(super) const NULL: Types = Types(1 << 6);
pub(super) const TIME: Types = Types(1 << 7);
pub(super) const DURATION: Types = Types(1 << 8);
pub(super) const OPTIONAL: Types = Types(1 << 9);
pub(super) const TYPE: Types = Types(1 << 10);
pub(super) const ANY: Types = Types((1 << 11) - 1);
/// The types that a conversion accepts.
pub(super) const SCALAR: Types = Types::any_of(&[BOOL, NUMBER, TEXT, BYTES, TIME, DURATION]);

const NAMES: [(Types, &str); 11] = [
    (BOOL, "a bool"),
    (NUMBER, "a number"),
    (TEXT, "a string"),
    (BYTES, "bytes"),
    (LIST, "a list"),
    (MAP, "a map"),
    (NULL, "null"),
    (TIME, "a timestamp"),
    (DURATION, "a duration"),
    (OPTIONAL, "an optional"),
    (TYPE, "a type"),
];

impl Types {
    pub(super) const fn any_of(types: &[Self]) -> Self {
        match types {
            [first, rest @ ..] => Self(first.0 | Self::any_of(rest).0),
            [] => Self(0),
        }
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether two sets have a type in common.
    pub(super) fn meets(self, other: Self) -> bool {
        !self.and(other).is_none()
    }

    /// The notation for an argument in the reference: `STRING`, `NUMBER|STRING`.
    pub(super) fn placeholder(self) -> String {
        if self == ANY {
            return "VALUE".to_owned();
        }
        let bare = |name: &str| name.rsplit(' ').next().unwrap_or(name).to_ascii_uppercase();
        let named = NAMES.iter().filter(|(one, _)| self.meets(*one)).map(|(_, name)| bare(name));
        named.collect::<Vec<_>>().join("|")
    }

    pub(super) fn name(self) -> String {
        if self == ANY {
            return "any value".to_owned();
        }
        let named = NAMES.iter().filter(|(one, _)| self.meets(*one)).map(|(_, name)| *name);
        named.collect::<Vec<_>>().join(" or ")
    }
}

impl BitOr for Types {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Checks whether an expression can have a type that its purpose requires.
pub(super) fn fits(expr: &IdedExpr, purpose: ResultType) -> Result<(), String> {
    // Each branch of a conditional must have such a type.
    if let Expr::Call(CallExpr { func_name, args, .. }) = &expr.expr
        && func_name == operators::CONDITIONAL
        && let [_, yes, no] = args.as_slice()
    {
        return fits(yes, purpose).and_then(|()| fits(no, purpose));
    }
    let found = Checker::default().of(expr);
    let (needed, types) = match purpose {
        ResultType::Predicate => ("a predicate must be a bool", BOOL),
        ResultType::Counter => (
            "a counter must be a string, number or bool, or a list of them",
            TEXT | NUMBER | BOOL | LIST | NULL,
        ),
        ResultType::Amount => ("an amount must be a number", NUMBER),
        ResultType::Cost => ("a cost must be a number", NUMBER),
        ResultType::Tokens => ("a count of tokens must be a number", NUMBER),
        ResultType::Maximum => ("a maximum must be a number, or null for none", NUMBER | TEXT | NULL),
        ResultType::Life => ("a lifetime must be a duration, or a number of seconds", NUMBER | DURATION),
        ResultType::Text => ("this must be a string", TEXT),
    };
    // A counter that is always null would put all requests into one bucket.
    let fits = found.meets(types) && !(purpose == ResultType::Counter && found == NULL);
    if fits { Ok(()) } else { Err(format!("{needed}, but this is {}", found.name())) }
}

/// Returns all type errors in a checked expression.
pub(super) fn mistakes(expr: &IdedExpr) -> Vec<String> {
    let mut checker = Checker::default();
    checker.of(expr);
    checker.mistakes.dedup();
    checker.mistakes
}

/// Infers the types in an expression with names that are already checked.
#[derive(Default)]
struct Checker<'e> {
    /// The variables of the surrounding macros.
    scope: Vec<(&'e str, Types)>,
    mistakes: Vec<String>,
}

impl<'e> Checker<'e> {
    /// Returns the types of an expression.
    fn of(&mut self, expr: &'e IdedExpr) -> Types {
        match &expr.expr {
            Expr::Literal(literal) => of_literal(literal),
            Expr::List(list) => {
                for element in &list.elements {
                    self.of(element);
                }
                LIST
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.of(&entry.key);
                        self.of(&entry.value);
                    }
                }
                MAP
            }
            Expr::Ident(name) => match self.scope.iter().rev().find(|(known, _)| known == name) {
                Some((_, types)) => *types,
                None if names::is_root(name) => MAP,
                // The name of a type.
                None => TYPE,
            },
            Expr::Select(select) if select.test => {
                self.of(&select.operand);
                BOOL
            }
            Expr::Select(select) => match self.path(expr) {
                Some(path) => facts::types(&path).map_or(ANY, of_fact),
                None => {
                    let operand = self.of(&select.operand);
                    self.has_parts(operand, MAP | OPTIONAL);
                    ANY
                }
            },
            Expr::Call(call) => self.call(expr, call),
            Expr::Comprehension(loops) => self.comprehension(loops),
            Expr::Unspecified | Expr::Struct(_) => ANY,
        }
    }

    fn comprehension(&mut self, loops: &'e ComprehensionExpr) -> Types {
        let range = self.of(&loops.iter_range);
        if !range.meets(LIST | MAP) {
            self.mistakes.push(format!("a macro needs a list or a map, but this is {}", range.name()));
        }
        let element = self.element(&loops.iter_range);
        let accumulator = self.of(&loops.accu_init);
        let before = self.scope.len();
        self.scope.push((&loops.iter_var, element));
        self.scope.extend(loops.iter_var2.as_deref().map(|name| (name, ANY)));
        self.scope.push((&loops.accu_var, accumulator));
        self.of(&loops.loop_cond);
        self.of(&loops.loop_step);
        let result = self.of(&loops.result);
        self.scope.truncate(before);
        result
    }

    /// Returns the types of a macro's variable.
    fn element(&mut self, range: &'e IdedExpr) -> Types {
        match &range.expr {
            Expr::List(list) if !list.elements.is_empty() && list.optional_indices.is_empty() => {
                let before = self.mistakes.len();
                let types = list.elements.iter().map(|element| self.of(element)).fold(Types(0), BitOr::bitor);
                self.mistakes.truncate(before);
                types
            }
            Expr::Call(call) if call.func_name == "split" => TEXT,
            _ => match self.path(range).as_deref() {
                Some([request, headers]) if request == "request" && headers == "headers" => TEXT,
                _ => ANY,
            },
        }
    }

    /// Returns the fact, if the expression consists only of its name.
    fn path(&self, expr: &IdedExpr) -> Option<FactPath> {
        let path = super::rewrite::fact(expr)?;
        let root = path.first()?;
        (!self.scope.iter().any(|(name, _)| name == root)).then_some(path)
    }

    fn call(&mut self, expr: &'e IdedExpr, call: &'e CallExpr) -> Types {
        if let Some(path) = self.path(expr) {
            return facts::types(&path).map_or(ANY, of_fact);
        }
        let name = call.func_name.as_str();
        let is_namespace =
            |target: &IdedExpr| matches!(&target.expr, Expr::Ident(name) if name == "optional");
        if let Some(target) = call.target.as_deref() {
            let first = (!is_namespace(target)).then_some(target);
            let operands = first.into_iter().chain(&call.args).map(|operand| self.of(operand));
            let operands: Vec<Types> = operands.collect();
            return match first {
                Some(_) => self.function(name, true, &operands, call),
                None => self.function(&format!("optional.{name}"), false, &operands, call),
            };
        }
        let operands: Vec<Types> = call.args.iter().map(|operand| self.of(operand)).collect();
        match (name, operands.as_slice(), call.args.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, _, _) => {
                operands.iter().for_each(|operand| self.is_condition(name, *operand));
                BOOL
            }
            (operators::LOGICAL_NOT, _, _) => {
                operands.iter().for_each(|operand| self.is_condition(name, *operand));
                BOOL
            }
            (operators::NOT_STRICTLY_FALSE, _, _) => BOOL,
            (operators::CONDITIONAL, [chosen, yes, no], _) => {
                self.is_condition(name, *chosen);
                *yes | *no
            }
            (operators::EQUALS | operators::NOT_EQUALS, [left, right], _) => {
                if !left.meets(*right) {
                    self.compared(name, *left, *right, "is never equal to");
                }
                BOOL
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [left, right],
                _,
            ) => {
                if !left.and(*right).meets(NUMBER | TEXT | BOOL | BYTES | TIME | DURATION) {
                    self.compared(name, *left, *right, "cannot be ordered against");
                }
                BOOL
            }
            (operators::IN, [left, right], [_, list]) => {
                self.is_in(*left, *right, list);
                BOOL
            }
            (operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT, [operand, _], [base, _]) => {
                self.has_parts(*operand, MAP | LIST | OPTIONAL);
                match (name, self.path(base).as_deref()) {
                    (operators::INDEX, Some([_, headers])) if headers == "headers" => TEXT,
                    (operators::INDEX, _) => ANY,
                    _ => OPTIONAL,
                }
            }
            (operators::NEGATE, [operand], _) => self.computed(name, &[(*operand, NUMBER | DURATION)]),
            (operators::MULTIPLY | operators::DIVIDE | operators::MODULO, [left, right], _) => {
                self.computed(name, &[(*left, NUMBER), (*right, NUMBER)]);
                NUMBER
            }
            (operators::ADD, [left, right], _) => self.sum(*left, *right),
            (operators::SUBSTRACT, [left, right], _) => self.difference(*left, *right),
            _ => self.function(name, false, &operands, call),
        }
    }

    fn sum(&mut self, left: Types, right: Types) -> Types {
        let same = left.and(right).and(NUMBER | TEXT | LIST | BYTES | DURATION);
        let times = left.meets(TIME) && right.meets(DURATION) || left.meets(DURATION) && right.meets(TIME);
        self.known(if times { same | TIME } else { same }, operators::ADD, left, right, "cannot be added to")
    }

    fn difference(&mut self, left: Types, right: Types) -> Types {
        let same = left.and(right).and(NUMBER | DURATION);
        let later = if left.meets(TIME) && right.meets(DURATION) { TIME } else { Types(0) };
        let between = if left.meets(TIME) && right.meets(TIME) { DURATION } else { Types(0) };
        self.known(same | later | between, operators::SUBSTRACT, left, right, "cannot be reduced by")
    }

    /// Returns the types of a result. Records an error if there are none.
    fn known(&mut self, types: Types, operator: &str, left: Types, right: Types, what: &str) -> Types {
        if !types.is_none() {
            return types;
        }
        self.compared(operator, left, right, what);
        ANY
    }

    fn function(&mut self, name: &str, member: bool, operands: &[Types], call: &CallExpr) -> Types {
        let found = signatures::find(name, member, call.args.len());
        let Ok(function) = found else { return ANY };
        for (operand, wanted) in operands.iter().zip(function.takes) {
            if !operand.meets(*wanted) {
                self.mistakes.push(format!(
                    "`{name}` needs {}, but this is {}",
                    wanted.name(),
                    operand.name()
                ));
            }
        }
        if signatures::takes_zone(name)
            && let Some(Expr::Literal(LiteralValue::String(zone))) = call.args.first().map(|zone| &zone.expr)
            && !super::time::is_zone(zone.inner())
        {
            self.mistakes.push(format!(
                "`{name}` knows `UTC` and offsets such as `+02:00`, but no time zone named `{}`",
                zone.inner()
            ));
        }
        function.gives
    }

    fn is_condition(&mut self, operator: &str, operand: Types) {
        if !operand.meets(BOOL) {
            let told = format!("`{}` needs a bool, but this is {}", plain(operator), operand.name());
            self.mistakes.push(told);
        }
    }

    fn computed(&mut self, operator: &str, operands: &[(Types, Types)]) -> Types {
        for (operand, wanted) in operands {
            if !operand.meets(*wanted) {
                self.mistakes.push(format!("`{}` cannot be used on {}", plain(operator), operand.name()));
            }
        }
        let types = operands.first().map_or(ANY, |(operand, wanted)| operand.and(*wanted));
        if types.is_none() { ANY } else { types }
    }

    fn compared(&mut self, operator: &str, left: Types, right: Types, what: &str) {
        let told = format!("`{}`: {} {what} {}", plain(operator), left.name(), right.name());
        self.mistakes.push(told);
    }

    fn has_parts(&mut self, operand: Types, wanted: Types) {
        if !operand.meets(wanted) {
            self.mistakes.push(format!("{} has no parts", operand.name()));
        }
    }

    fn is_in(&mut self, left: Types, right: Types, list: &'e IdedExpr) {
        if !right.meets(LIST | MAP) {
            self.compared(operators::IN, left, right, "is never in");
        } else if let Expr::List(list) = &list.expr {
            for element in &list.elements {
                let before = self.mistakes.len();
                let element = self.of(element);
                self.mistakes.truncate(before);
                if !left.meets(element) {
                    self.compared(operators::IN, left, element, "is never equal to");
                }
            }
        } else if right == MAP && self.path(list).is_some() && !left.meets(TEXT) {
            self.compared(operators::IN, left, TEXT, "is not a key such as");
        }
    }
}

/// Returns the operator as it is written in an expression.
fn plain(operator: &str) -> &str {
    match operator {
        operators::CONDITIONAL => "?",
        other => other.trim_matches(['_', '@']).trim_end_matches('_'),
    }
}

fn of_literal(literal: &LiteralValue) -> Types {
    match literal {
        LiteralValue::Boolean(_) => BOOL,
        LiteralValue::String(_) => TEXT,
        LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => NUMBER,
        LiteralValue::Null => NULL,
        LiteralValue::Bytes(_) => BYTES,
    }
}

fn of_fact(kind: facts::FactType) -> Types {
    match kind {
        facts::FactType::Map => MAP,
        facts::FactType::Of(AttributeType::Text) => TEXT,
        facts::FactType::Of(AttributeType::Number) => NUMBER,
        facts::FactType::Of(AttributeType::Bool) => BOOL,
        facts::FactType::Of(AttributeType::Time) => TIME,
    }
}
