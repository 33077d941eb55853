//! Adds the policy language's extensions to CEL: mixed numbers, and bounded evaluation. The tree is rewritten
//! once, when the expression is compiled, so the crate's evaluator is used unchanged.

use super::FactPath;
use super::functions::{
    ADD, CHARGE, COMPARABLE, DIVIDE, INDEX_OF, JOIN, LAST_INDEX_OF, MATCHES, MODULO, MULTIPLY, REPLACE,
    SUBTRACT,
};
use super::lookup::Lookup;
use super::pattern::Pattern;
use super::signatures;
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};
use cel_interpreter::common::types::CelString;

/// The name of the evaluation's [`super::budget::EvaluationBudget`].
pub(super) const BUDGET: &str = "@budget";

/// The prefix of a pattern's name, followed by its index.
pub(super) const PATTERN: &str = "@pattern";

/// The prefix of a fact's name, followed by its index.
const FACT: &str = "@fact";

/// The meaning of the variables in a rewritten tree, by the index in their names.
#[derive(Default)]
pub(super) struct Variables {
    facts: Vec<Lookup>,
    patterns: Vec<Pattern>,
}

/// Rewrites a checked tree and returns its variables.
pub(super) fn rewrite(expr: &mut IdedExpr) -> Result<Variables, String> {
    let mut variables = Variables::default();
    variables.visit(expr, false)?;
    Ok(variables)
}

impl Variables {
    pub(super) fn fact(&self, name: &str) -> Option<&Lookup> {
        self.facts.get(name.strip_prefix(FACT)?.parse::<usize>().ok()?)
    }

    pub(super) fn facts(&self) -> &[Lookup] {
        &self.facts
    }

    /// The first fact in the expression.
    pub(super) fn first_fact(&self) -> Option<&Lookup> {
        self.facts.first()
    }

    pub(super) fn pattern(&self, name: &str) -> Option<&Pattern> {
        self.patterns.get(name.strip_prefix(PATTERN)?.parse::<usize>().ok()?)
    }

    /// `looped` is true inside a macro over a list, where the work for each element has to be charged.
    fn visit(&mut self, expr: &mut IdedExpr, looped: bool) -> Result<(), String> {
        if let Some(lookup) = fact(expr).and_then(Lookup::new) {
            *expr = ident(&format!("{FACT}{}", self.facts.len()));
            self.facts.push(lookup);
            return Ok(());
        }
        match &mut expr.expr {
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
            Expr::Select(select) => {
                self.visit(&mut select.operand, looped)?;
                if select.test {
                    self.asked_for(&select.operand, &select.field);
                }
            }
            Expr::Call(call) => self.call(call, looped)?,
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.copied(element, looped)?;
                }
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.visit(&mut entry.key, looped)?;
                        self.copied(&mut entry.value, looped)?;
                    }
                }
            }
            Expr::Comprehension(loops) => {
                self.visit(&mut loops.iter_range, looped)?;
                charge(&mut loops.iter_range);
                self.visit(&mut loops.accu_init, looped)?;
                for inside in [&mut loops.loop_cond, &mut loops.loop_step, &mut loops.result] {
                    self.visit(inside, true)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the source of a pattern.
    fn source(&self, pattern: &IdedExpr) -> Option<String> {
        let Expr::Ident(name) = &pattern.expr else { return None };
        self.pattern(name).map(|pattern| pattern.source().to_owned())
    }

    /// Visits an element of a list or map. The list or map receives a copy of the value. In a loop, the cost
    /// of the copy is charged.
    fn copied(&mut self, element: &mut IdedExpr, looped: bool) -> Result<(), String> {
        self.visit(element, looped)?;
        if looped {
            charge(element);
        }
        Ok(())
    }

    /// Records which part of a fact `has` or `?.` asks for.
    fn asked_for(&mut self, operand: &IdedExpr, part: &str) {
        if let Some(lookup) = self.named(operand) {
            lookup.asks_for(part);
        }
    }

    fn named(&mut self, expr: &IdedExpr) -> Option<&mut Lookup> {
        let Expr::Ident(name) = &expr.expr else { return None };
        self.facts.get_mut(name.strip_prefix(FACT)?.parse::<usize>().ok()?)
    }

    fn call(&mut self, call: &mut CallExpr, looped: bool) -> Result<(), String> {
        for argument in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
            self.visit(argument, looped)?;
        }
        if [operators::OPT_SELECT, operators::OPT_INDEX].contains(&call.func_name.as_str())
            && let [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(part)), .. }] = &*call.args
        {
            self.asked_for(operand, part.inner());
        }
        self.spell(call);
        self.compare(call);
        negated(call).into_iter().for_each(|test| self.spell_negated(test));
        // The parser generates `@result + [x]` for the steps of macros.
        let of_macro = |first: &IdedExpr| matches!(&first.expr, Expr::Ident(name) if name == "@result");
        let of_macro = call.args.first().is_some_and(of_macro);
        match call.func_name.as_str() {
            operators::ADD if !of_macro => {
                call.func_name = ADD.to_owned();
                call.args.push(ident(BUDGET));
            }
            operators::SUBSTRACT => call.func_name = SUBTRACT.to_owned(),
            operators::MULTIPLY => call.func_name = MULTIPLY.to_owned(),
            operators::DIVIDE => call.func_name = DIVIDE.to_owned(),
            operators::MODULO => call.func_name = MODULO.to_owned(),
            // The crate's lists and maps can be compared only with their own kind. A view of a fact can be
            // compared with any kind, so it becomes the left operand.
            operators::EQUALS | operators::NOT_EQUALS => {
                if let [left, right] = call.args.as_mut_slice()
                    && is_path(right)
                    && !is_path(left)
                {
                    std::mem::swap(left, right);
                }
            }
            operators::IN if looped => call.args.iter_mut().skip(1).for_each(charge),
            "replace" => paid(call, REPLACE),
            "join" => paid(call, JOIN),
            "matches" => self.matches(call)?,
            "indexOf" => searched(call, INDEX_OF, looped),
            "lastIndexOf" => searched(call, LAST_INDEX_OF, looped),
            name if looped && name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(charge);
            }
            _ => {}
        }
        Ok(())
    }

    /// Normalises the texts that a path or host is compared with, in the same way as the fact. If a path is
    /// compared with texts without a query, its own query is ignored, so that a client cannot change the
    /// result by adding one.
    fn spell(&mut self, call: &mut CallExpr) {
        match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
            ("indexOf" | "lastIndexOf" | "replace" | "split", Some(target), texts) => {
                return self.spell_parts(target, texts);
            }
            (function, Some(target), [text]) => return self.spell_end(function, target, text),
            _ => {}
        }
        let [left, right] = call.args.as_mut_slice() else { return };
        match call.func_name.as_str() {
            operators::EQUALS | operators::NOT_EQUALS => {
                self.spell_beside(left, std::slice::from_mut(right));
                self.spell_beside(right, std::slice::from_mut(left));
            }
            operators::IN => {
                if let Expr::List(list) = &mut right.expr {
                    self.spell_beside(left, &mut list.elements);
                }
            }
            _ => {}
        }
    }

    /// Ignores the query of a path if a test of its end concerns only the part before the query.
    fn spell_end(&mut self, function: &str, target: &IdedExpr, text: &IdedExpr) {
        let Expr::Literal(LiteralValue::String(text)) = &text.expr else { return };
        let text = text.inner();
        let is_pattern = function == "matches";
        let is_end = function == "endsWith" || is_pattern && (text.ends_with('$') || text.ends_with(r"\z"));
        if is_end && text.contains('/') {
            self.leave_query_out(target, text, is_pattern);
        }
    }

    /// Ignores the query of a path that is divided at these texts, or in which they are found, unless they belong to a
    /// query.
    fn spell_parts(&mut self, target: &IdedExpr, texts: &[IdedExpr]) {
        let mut all = String::new();
        for text in texts {
            match &text.expr {
                Expr::Literal(LiteralValue::String(text)) => all.push_str(text.inner()),
                Expr::Literal(_) => {}
                _ => return,
            }
        }
        self.leave_query_out(target, &all, false);
    }

    /// Ignores the query of a path in a negated search. Otherwise, a client could make the search successful by
    /// adding a query, and so escape from the limit.
    fn spell_negated(&mut self, expr: &IdedExpr) {
        let Expr::Call(call) = &expr.expr else { return };
        let searched = match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, None, operands) => {
                return operands.iter().for_each(|operand| self.spell_negated(operand));
            }
            (
                "contains",
                Some(target),
                [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }],
            ) => Some((target, text.inner().to_owned())),
            (MATCHES, None, [target, pattern]) => Some(target).zip(self.source(pattern)),
            _ => None,
        };
        if let Some((target, text)) = searched {
            self.leave_query_out(target, &text, call.func_name == MATCHES);
        }
    }

    /// Ignores the query of a path that is searched for this text, unless the text belongs to a query.
    fn leave_query_out(&mut self, target: &IdedExpr, text: &str, is_pattern: bool) {
        // In a pattern, most question marks are no characters: `/a/?$`, `(?i)/a$`.
        let marks: &[&str] = if is_pattern { &[r"\?", "[?", "=", "&"] } else { &["?", "=", "&"] };
        if !marks.iter().any(|mark| text.contains(mark))
            && let Some(lookup) = self.spelled(without_substring(target))
        {
            lookup.leave_query_out();
        }
    }

    /// Fails a comparison of a value in a client's body with a number or boolean if the value is of another kind.
    fn compare(&mut self, call: &mut CallExpr) {
        let [left, right] = call.args.as_mut_slice() else { return };
        match (call.func_name.as_str(), &mut right.expr) {
            (operators::EQUALS | operators::NOT_EQUALS, _) => {
                self.compare_with(left, right);
                self.compare_with(right, left);
            }
            (operators::IN, Expr::List(list)) => {
                // The literals of a mixed list are of no one kind.
                if let Some((first, others)) = list.elements.split_first()
                    && others.iter().all(|other| kind(other) == kind(first))
                {
                    self.compare_with(left, first);
                }
            }
            _ => {}
        }
    }

    fn compare_with(&mut self, value: &mut IdedExpr, literal: &IdedExpr) {
        if kind(literal).is_some() && self.is_in_body(value) {
            *value = global(COMPARABLE, vec![std::mem::take(value), literal.clone()]);
        }
    }

    /// Returns whether this is a value in a client's body, or a member of one.
    fn is_in_body(&mut self, mut value: &IdedExpr) -> bool {
        loop {
            value = match &value.expr {
                Expr::Select(select) if !select.test => &select.operand,
                Expr::Call(CallExpr { func_name, args, .. }) if func_name == operators::INDEX => {
                    match args.first() {
                        Some(operand) => operand,
                        None => return false,
                    }
                }
                _ => return self.named(value).is_some_and(|lookup| lookup.is_in_body()),
            }
        }
    }

    /// Returns the fact that is compared, possibly after a change of its case.
    fn spelled(&mut self, expr: &IdedExpr) -> Option<&mut Lookup> {
        match &expr.expr {
            Expr::Ident(_) => self.named(expr),
            Expr::Call(CallExpr { func_name, target: Some(target), .. })
                if ["lowerAscii", "upperAscii", "trim"].contains(&func_name.as_str()) =>
            {
                self.spelled(target)
            }
            Expr::Call(CallExpr { func_name, args, .. }) if func_name == CHARGE => {
                self.spelled(args.first()?)
            }
            _ => None,
        }
    }

    fn spell_beside(&mut self, named: &IdedExpr, others: &mut [IdedExpr]) {
        let Some(lookup) = self.spelled(named) else {
            // The text may be a part of the path, which is not normalised like a whole path.
            return self.spell_parts(named, others);
        };
        let Some(spelling) = lookup.spelling() else { return };
        let mut has_query = false;
        for other in others {
            let Expr::Literal(LiteralValue::String(text)) = &mut other.expr else {
                has_query = true;
                continue;
            };
            has_query |= text.inner().contains('?');
            if let Some(spelled) = spelling.of_literal(text.inner()) {
                *text = CelString::from(spelled);
            }
        }
        if !has_query {
            lookup.leave_query_out();
        }
    }

    fn matches(&mut self, call: &mut CallExpr) -> Result<(), String> {
        let pattern = match call.args.pop().map(|pattern| pattern.expr) {
            Some(Expr::Literal(LiteralValue::String(pattern))) => Pattern::compile(pattern.inner())?,
            _ => return Err("the pattern of `matches` must be a string literal".to_owned()),
        };
        into_global(call, MATCHES);
        // The cost of a search grows with the text.
        call.args.iter_mut().for_each(charge);
        call.args.push(ident(&format!("{PATTERN}{}", self.patterns.len())));
        self.patterns.push(pattern);
        Ok(())
    }
}

/// Rewrites `x.f(y)` as `@f(x, y, @budget)`.
fn paid(call: &mut CallExpr, name: &str) {
    into_global(call, name);
    call.args.push(ident(BUDGET));
}

/// Rewrites `x.f(y)` as `@f(x, y)`.
fn searched(call: &mut CallExpr, name: &str, looped: bool) {
    into_global(call, name);
    if looped {
        call.args.iter_mut().for_each(charge);
    }
}

/// Returns the text that a substring is a part of.
fn without_substring(mut expr: &IdedExpr) -> &IdedExpr {
    while let Expr::Call(CallExpr { func_name, target: Some(target), .. }) = &expr.expr
        && func_name == "substring"
    {
        expr = target;
    }
    expr
}

/// The kind of a literal that servers convert other values to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConvertedKind {
    Boolean,
    Number,
}

fn kind(literal: &IdedExpr) -> Option<ConvertedKind> {
    match &literal.expr {
        Expr::Literal(LiteralValue::Boolean(_)) => Some(ConvertedKind::Boolean),
        Expr::Literal(LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_)) => {
            Some(ConvertedKind::Number)
        }
        _ => None,
    }
}

/// Returns the test that the call negates: `!x`, `x == false`, `x != true`, or `x ? false : y`.
fn negated(call: &CallExpr) -> Option<&IdedExpr> {
    let is = |expr: &IdedExpr, value: bool| matches!(&expr.expr, Expr::Literal(LiteralValue::Boolean(literal)) if *literal.inner() == value);
    let beside = |value: bool| match call.args.as_slice() {
        [test, literal] if is(literal, value) => Some(test),
        [literal, test] if is(literal, value) => Some(test),
        _ => None,
    };
    match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::LOGICAL_NOT, [test]) => Some(test),
        (operators::EQUALS, _) => beside(false),
        (operators::NOT_EQUALS, _) => beside(true),
        (operators::CONDITIONAL, [test, chosen, _]) if is(chosen, false) => Some(test),
        _ => None,
    }
}

fn into_global(call: &mut CallExpr, name: &str) {
    call.func_name = name.to_owned();
    if let Some(target) = call.target.take() {
        call.args.insert(0, *target);
    }
}

/// Rewrites `x` as `@charge(x, @budget)`. Literals are not charged, and `optional` in `optional.of(x)` is not
/// a value.
fn charge(expr: &mut IdedExpr) {
    let free = match &expr.expr {
        Expr::Literal(_) => true,
        Expr::Ident(name) => name == "optional",
        _ => false,
    };
    if !free {
        let value = std::mem::take(expr);
        *expr = global(CHARGE, vec![value, ident(BUDGET)]);
    }
}

fn global(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    node(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}

fn ident(name: &str) -> IdedExpr {
    node(Expr::Ident(name.to_owned()))
}

/// The id is 0, because only the check uses ids.
fn node(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

/// Returns the path of a fact. The check ensures that no macro's variable has the name of a root.
pub(super) fn fact(mut expr: &IdedExpr) -> Option<FactPath> {
    if let Expr::Call(call) = &expr.expr
        && [signatures::REQUEST_BODY, signatures::RESPONSE_BODY].contains(&call.func_name.as_str())
        && let [IdedExpr { expr: Expr::Literal(LiteralValue::String(pointer)), .. }] = call.args.as_slice()
    {
        return Some(vec![call.func_name.clone(), pointer.inner().to_owned()]);
    }
    let mut names = FactPath::new();
    loop {
        expr = match &expr.expr {
            Expr::Ident(root) => {
                names.push(root.clone());
                break;
            }
            Expr::Select(select) if !select.test => {
                names.push(select.field.clone());
                &select.operand
            }
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }] => {
                    names.push(name.inner().to_owned());
                    operand
                }
                _ => return None,
            },
            _ => return None,
        }
    }
    names.reverse();
    Some(names)
}

fn is_path(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Ident(_) | Expr::Select(_) => true,
        Expr::Call(call) => call.func_name == operators::INDEX,
        _ => false,
    }
}
