//! Defines the results of tests of absent values. A comparison is false, except that `!=` is true. `exists`
//! and `has` are false, and `all` is true. `!`, `&&`, `||` and `? :` combine these results, wherever a test
//! is in an expression.
//!
//! The crate's evaluator turns an absent value into an error that propagates to the root, unless another
//! operand decides the result. So if an evaluation succeeds, its result is correct. If it fails, the
//! evaluation is repeated with a second tree, in which each test is a call of [`TEST`]. This function
//! evaluates the test. If a value is absent, it returns the result that is defined above. It passes on all
//! other failures.

use super::functions::MATCHES;
use cel_interpreter::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use cel_interpreter::common::types::{CelBool, CelNull, CelOptional, Type};
use cel_interpreter::common::value::{CowVal, StaticVal, Val};
use cel_interpreter::{Context, ExecutionError, FunctionContext, IdedExpr, Value};
use std::any::Any;

/// `@test(@tree3)`: the function that evaluates a test.
const TEST: &str = "@test";
/// The prefix of a test's name, followed by its index.
pub(super) const TREE: &str = "@tree";
/// The prefix of a fact's name in a query whether the fact is absent, rather than unknown for another reason.
pub(super) const ABSENCE: &str = "@absence";
/// The prefix of a test's number in a query for its assumed result.
pub(super) const ASSUMPTION: &str = "@assumption";

/// The results that are assumed of the tests that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assumption {
    pub(super) holds: bool,
    /// The number of the test with the opposite result.
    pub(super) except: Option<usize>,
}

impl Assumption {
    /// Returns the assumed result of a test.
    pub(super) fn of(self, test: usize) -> bool {
        self.holds != (self.except == Some(test))
    }
}

/// The result of a test if its value is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfAbsent {
    False,
    True,
    /// An empty optional, for `?.`.
    Nothing,
}

/// A part of an expression that handles an absent value inside it.
#[derive(Clone, Debug)]
pub(super) struct AbsenceTree {
    expr: IdedExpr,
    if_absent: IfAbsent,
    number: usize,
}

/// The second tree of an expression, and its tests.
#[derive(Debug)]
pub(super) struct Truths {
    pub(super) tree: IdedExpr,
    pub(super) trees: Vec<AbsenceTree>,
}

/// The maximum nesting of tests. Each level uses some of the stack.
const MAX_NESTED: usize = 8;

impl Truths {
    /// Extracts the tests of a rewritten tree. `is_predicate` is true if the whole tree is a test. Returns
    /// `None` if the tree contains no test.
    pub(super) fn of(tree: &IdedExpr, is_predicate: bool) -> Result<Option<Self>, String> {
        let mut tests = Tests::default();
        let mut tree = tree.clone();
        if is_predicate {
            tests.condition(&mut tree)
        } else {
            tests.value(&mut tree)
        }
        if tests.most_nested > MAX_NESTED {
            return Err(format!(
                "tests are nested in tests too deeply; at most {MAX_NESTED} levels are allowed"
            ));
        }
        let trees = tests.trees;
        Ok((!trees.is_empty()).then_some(Self { tree, trees }))
    }
}

/// Registers the tests for an evaluation.
pub(super) fn declare(context: &mut Context<'_, '_>) -> Result<(), ExecutionError> {
    type Function = Box<
        dyn for<'b, 'v> Fn(&mut FunctionContext<'b, 'v>) -> Result<CowVal<'b, 'v>, ExecutionError>
            + Send
            + Sync,
    >;
    let function: Function = Box::new(test);
    context.add_function(TEST, function).map_err(|error| ExecutionError::function_error(TEST, error))
}

/// Returns whether a failure means that a value is absent. `fact` determines this for a fact by its name in
/// the tree. Null has no parts, elements or operations, so it counts as absent wherever one of them is
/// needed.
pub(super) fn is_absence(error: &ExecutionError, fact: impl FnOnce(&str) -> bool) -> bool {
    match error {
        ExecutionError::UndeclaredReference(name) => fact(name),
        ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_) => true,
        ExecutionError::NoSuchOverload(call) => call.argument_types().iter().any(|name| name == NULL),
        ExecutionError::UnexpectedType { got, .. } => got == NULL,
        // `optional.none().value()`
        ExecutionError::FunctionError { function, message } => {
            function == "value" && message.contains("none()")
        }
        _ => false,
    }
}

const NULL: &str = "null_type";

fn test<'b, 'v>(call: &mut FunctionContext<'b, 'v>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let Some(CowVal::Borrowed(argument)) = call.args.first() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let argument: &'b (dyn Val + 'v) = *argument;
    let tree: &'b AbsenceTree =
        argument.downcast_ref::<AbsenceTree>().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let context = call.ptx;
    let is_absent = |name: &str| context.get_variable(format!("{ABSENCE}{name}")).is_some();
    let outcome = match (Value::resolve_val(&tree.expr, context), tree.if_absent) {
        (Err(error), if_absent) if is_absence(&error, is_absent) => Ok(if_absent.value()),
        (Ok(value), IfAbsent::False | IfAbsent::True) if value.downcast_ref::<CelBool>().is_none() => {
            if value.downcast_ref::<CelNull>().is_some() {
                return Ok(tree.if_absent.value());
            }
            let got = value.get_type().name().to_owned();
            Err(ExecutionError::UnexpectedType { got, want: "bool".to_owned() })
        }
        (outcome, _) => outcome,
    };
    outcome.or_else(|error| tree.assumed(|name| context.get_variable(name)).ok_or(error))
}

impl AbsenceTree {
    /// Returns the result that is assumed if the test fails. An optional has none.
    fn assumed<'b, 'v>(&self, find: impl FnOnce(String) -> Option<CowVal<'b, 'v>>) -> Option<CowVal<'b, 'v>> {
        if self.if_absent == IfAbsent::Nothing {
            return None;
        }
        find(format!("{ASSUMPTION}{}", self.number))
    }
}

impl IfAbsent {
    fn value<'b, 'v>(self) -> CowVal<'b, 'v> {
        match self {
            Self::False => CowVal::owned(CelBool::from(false)),
            Self::True => CowVal::owned(CelBool::from(true)),
            Self::Nothing => CowVal::owned(CelOptional::none()),
        }
    }
}

/// Finds the tests of an expression and extracts them.
#[derive(Default)]
struct Tests {
    trees: Vec<AbsenceTree>,
    /// The number of surrounding tests.
    nested: usize,
    most_nested: usize,
}

impl Tests {
    /// Visits an expression that must be true or false.
    fn condition(&mut self, expr: &mut IdedExpr) {
        let is_test = is_test(expr);
        match &mut expr.expr {
            Expr::Literal(LiteralValue::Boolean(_)) => {}
            Expr::Call(call) if is_connective(call) || is_choice(call) => {
                call.args.iter_mut().for_each(|part| self.condition(part));
            }
            _ if is_test => self.value(expr),
            _ => self.test(expr, IfAbsent::False),
        }
    }

    /// Visits an expression with any value. Tests inside it are still true or false.
    fn value(&mut self, expr: &mut IdedExpr) {
        match (&expr.expr, is_test(expr)) {
            (Expr::Call(call), true) if call.func_name == operators::NOT_EQUALS => {
                self.test(expr, IfAbsent::True);
            }
            (Expr::Comprehension(loops), true) if fold(loops) == Some(operators::LOGICAL_AND) => {
                self.test(expr, IfAbsent::True);
            }
            (_, true) => self.test(expr, IfAbsent::False),
            (_, false) => self.parts(expr),
        }
    }

    /// Replaces an expression by a call of [`TEST`].
    fn test(&mut self, expr: &mut IdedExpr, if_absent: IfAbsent) {
        self.nested = self.nested.saturating_add(1);
        self.most_nested = self.most_nested.max(self.nested);
        self.parts(expr);
        self.nested = self.nested.saturating_sub(1);
        self.wrap(expr, if_absent);
    }

    fn wrap(&mut self, expr: &mut IdedExpr, if_absent: IfAbsent) {
        let number = self.trees.len();
        let argument = Expr::Ident(format!("{TREE}{number}"));
        let (id, tree) = (expr.id, std::mem::take(expr));
        self.trees.push(AbsenceTree { expr: tree, if_absent, number });
        let args = vec![IdedExpr { id, expr: argument }];
        *expr =
            IdedExpr { id, expr: Expr::Call(CallExpr { func_name: TEST.to_owned(), target: None, args }) };
    }

    fn parts(&mut self, expr: &mut IdedExpr) {
        match &mut expr.expr {
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
            Expr::Select(select) => self.value(&mut select.operand),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => list.elements.iter_mut().for_each(|element| self.value(element)),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.value(&mut entry.key);
                        self.value(&mut entry.value);
                    }
                }
            }
            Expr::Comprehension(loops) => {
                self.value(&mut loops.iter_range);
                self.value(&mut loops.accu_init);
                self.step(&mut loops.loop_step);
            }
        }
    }

    fn call(&mut self, call: &mut CallExpr) {
        if is_connective(call) {
            return call.args.iter_mut().for_each(|operand| self.condition(operand));
        }
        if let (true, [chosen, yes, no]) = (is_choice(call), call.args.as_mut_slice()) {
            self.condition(chosen);
            self.value(yes);
            return self.value(no);
        }
        call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(|part| self.value(part));
        // The result is an optional, which is never absent.
        if let (true, Some(operand)) = (is_optional(call), call.args.first_mut())
            && !matches!(&operand.expr, Expr::Call(call) if is_optional(call))
        {
            self.wrap(operand, IfAbsent::Nothing);
        }
    }

    /// Visits a macro's step, which is evaluated for each element. The evaluator recognises macros by the
    /// parser's `@result && x`, `@result || x`, `@result + [x]` and `x ? y : @result`, so the accumulator
    /// stays as it is.
    fn step(&mut self, expr: &mut IdedExpr) {
        let Expr::Call(call) = &mut expr.expr else { return self.value(expr) };
        match (call.func_name.as_str(), call.args.as_mut_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [_, operand]) => self.condition(operand),
            (operators::CONDITIONAL, [chosen, more, _]) => {
                self.condition(chosen);
                self.step(more);
            }
            (_, [_, addend]) => self.value(addend),
            _ => {}
        }
    }
}

/// Whether the expression itself is a test, and so is true or false wherever it appears.
fn is_test(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Select(select) => select.test,
        Expr::Comprehension(loops) => fold(loops).is_some() || counts(loops),
        Expr::Call(call) => matches!(
            (call.func_name.as_str(), call.target.is_some()),
            (
                operators::EQUALS
                    | operators::NOT_EQUALS
                    | operators::LESS
                    | operators::LESS_EQUALS
                    | operators::GREATER
                    | operators::GREATER_EQUALS
                    | operators::IN
                    | MATCHES,
                false,
            ) | ("startsWith" | "endsWith" | "contains" | "hasValue", true)
        ),
        _ => false,
    }
}

fn is_connective(call: &CallExpr) -> bool {
    let connectives = [operators::LOGICAL_AND, operators::LOGICAL_OR, operators::LOGICAL_NOT];
    call.target.is_none() && connectives.contains(&call.func_name.as_str())
}

fn is_choice(call: &CallExpr) -> bool {
    call.target.is_none() && call.func_name == operators::CONDITIONAL
}

/// Whether the call is `x.?y` or `x[?y]`.
fn is_optional(call: &CallExpr) -> bool {
    [operators::OPT_SELECT, operators::OPT_INDEX].contains(&call.func_name.as_str())
}

/// Returns the operator of `exists` or `all`.
fn fold(loops: &ComprehensionExpr) -> Option<&'static str> {
    match &loops.loop_step.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_OR => Some(operators::LOGICAL_OR),
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => Some(operators::LOGICAL_AND),
        _ => None,
    }
}

/// Whether the macro is `exists_one`, which compares a count.
fn counts(loops: &ComprehensionExpr) -> bool {
    matches!(&loops.result.expr, Expr::Call(call) if call.func_name == operators::EQUALS)
}

impl Val for AbsenceTree {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        static TYPE: Type = Type::new_unspecified_type("@tree");
        &TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for AbsenceTree {}
