//! Checks the names in an expression: facts by phase, functions, and the limits of evaluation.

use super::names::{self, Steps};
use super::signatures;
use super::syntax::too_deep;
use super::{FactPath, Phase};
use crate::facts;
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use llm::response::pointer_mistake;
use std::collections::BTreeSet;

/// The maximum depth of the tree. The evaluator is recursive and uses up to two kilobytes of stack per level.
const DEEPEST: usize = super::syntax::DEEPEST as usize;
/// The maximum number of macros over lists. Each macro can add a level of nesting to the values that they
/// build.
const MAX_MACROS: usize = 8;

/// The types that CEL knows by name, as in `type(x) == int`.
const TYPE_NAMES: [&str; 9] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

/// Returns the facts that an expression uses, or all of its errors.
pub(super) fn check(expr: &IdedExpr, phase: Phase) -> Result<Vec<FactPath>, String> {
    let mut check =
        Checker { phase, scope: Vec::new(), references: BTreeSet::new(), mistakes: Vec::new(), macros: 0 };
    check.visit(expr, 0);
    if check.macros > MAX_MACROS {
        check.mistakes.push(format!("{} macros over lists; at most {MAX_MACROS} are allowed", check.macros));
    }
    if check.mistakes.is_empty() {
        return Ok(check.references.into_iter().collect());
    }
    let mut told = BTreeSet::new();
    check.mistakes.retain(|mistake| told.insert(mistake.clone()));
    Err(check.mistakes.join("; "))
}

struct Checker<'e> {
    phase: Phase,
    /// The variables of the surrounding macros.
    scope: Vec<&'e str>,
    references: BTreeSet<FactPath>,
    mistakes: Vec<String>,
    macros: usize,
}

impl<'e> Checker<'e> {
    fn visit(&mut self, expr: &'e IdedExpr, depth: usize) {
        if depth > DEEPEST {
            self.mistakes.push(too_deep());
            return;
        }
        if let Some((root, steps)) = self.fact(expr) {
            if depth.saturating_add(steps.len()) > DEEPEST {
                self.mistakes.push(too_deep());
                return;
            }
            for dynamic in steps.iter().filter_map(|step| step.err()) {
                self.visit(dynamic, depth + 1);
            }
            match names::reference(root, &steps, self.phase) {
                Ok(reference) => drop(self.references.insert(reference)),
                Err(mistake) => self.mistakes.push(mistake),
            }
            return;
        }
        match &expr.expr {
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
            Expr::Select(select) => self.visit(&select.operand, depth + 1),
            Expr::Call(call) => self.call(call, depth),
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element, depth + 1)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key, depth + 1);
                        self.visit(&entry.value, depth + 1);
                    }
                }
            }
            Expr::Struct(message) => {
                self.mistakes.push(format!(
                    "`{}{{..}}` is a message literal, which is not supported",
                    message.type_name
                ));
            }
            Expr::Comprehension(loops) => self.comprehension(loops, depth),
        }
    }

    fn call(&mut self, call: &'e CallExpr, depth: usize) {
        let operator =
            call.target.is_none() && !call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
        let member = match call.target.as_deref().map(|target| &target.expr) {
            Some(Expr::Ident(namespace)) if namespace == "optional" && !self.scope.contains(&"optional") => {
                None
            }
            other => Some(other.is_some()),
        };
        if let Some(mistake) = self.dashed(call) {
            self.mistakes.push(mistake);
            return;
        }
        if !operator {
            let (name, member) = match member {
                Some(member) => (call.func_name.clone(), member),
                None => (format!("optional.{}", call.func_name), false),
            };
            match signatures::find(&name, member, call.args.len()) {
                Ok(function) if function.name == "matches" => self.pattern(call),
                Ok(function) if self.phase == Phase::Counts && is_pointer_function(function.name) => {
                    self.mistakes.push(format!(
                        "`{}` is unknown here; name a count in `dataExtraction.response` and use `tokens.NAME`",
                        function.name
                    ));
                }
                Ok(function) if function.name == signatures::REQUEST_BODY => self.pointer(call),
                Ok(function) if function.name == signatures::RESPONSE_BODY => {
                    if self.phase == Phase::Request {
                        self.mistakes.push(names::after(function.name));
                    }
                    self.pointer(call);
                }
                Ok(_) => {}
                Err(mistake) => self.mistakes.push(mistake),
            }
        }
        if let (Some(_), Some(target)) = (member, &call.target) {
            self.visit(target, depth + 1);
        }
        call.args.iter().for_each(|argument| self.visit(argument, depth + 1));
    }

    /// Recognises `request.headers.x-user-tier`, which CEL parses as a subtraction.
    fn dashed(&self, call: &'e CallExpr) -> Option<String> {
        let mut words = Vec::new();
        let mut call = call;
        let left = loop {
            let [left, right] = call.args.as_slice() else { return None };
            if call.func_name != operators::SUBSTRACT {
                return None;
            }
            let right = match &right.expr {
                Expr::Call(CallExpr { target: Some(target), .. }) => target,
                _ => right,
            };
            let (word, _) = self.fact(right).filter(|(word, _)| !names::is_root(word))?;
            words.push(word);
            match &left.expr {
                Expr::Call(further) if further.func_name == operators::SUBSTRACT => call = further,
                _ => break left,
            }
        };
        let (root, steps) = self.fact(left).filter(|(root, _)| names::is_root(root))?;
        let (last, map) = steps.split_last()?;
        let map: Option<Vec<&str>> = map.iter().map(|step| step.ok()).collect();
        let path = [&[root], map.filter(|map| !map.is_empty())?.as_slice()].concat().join(".");
        words.push(last.ok()?);
        words.reverse();
        let (name, unknown) = (words.join("-"), words.last()?);
        Some(format!("unknown fact `{unknown}`; write a name with a dash in brackets: `{path}[\"{name}\"]`"))
    }

    fn pattern(&mut self, call: &CallExpr) {
        match call.args.last().map(|pattern| &pattern.expr) {
            Some(Expr::Literal(LiteralValue::String(pattern))) => {
                if let Err(mistake) = super::pattern::Pattern::compile(pattern.inner()) {
                    self.mistakes.push(mistake);
                }
            }
            _ => self.mistakes.push("the pattern of `matches` must be a string literal".to_owned()),
        }
    }

    fn pointer(&mut self, call: &CallExpr) {
        match call.args.first().map(|pointer| &pointer.expr) {
            Some(Expr::Literal(LiteralValue::String(pointer))) => {
                let pointer = pointer.inner();
                if call.func_name == signatures::RESPONSE_BODY {
                    self.mistakes.extend(pointer_mistake(pointer).map(str::to_owned));
                } else if !pointer.is_empty() && !pointer.starts_with('/') {
                    self.mistakes.push(format!("a JSON pointer begins with `/`: `/{pointer}`"));
                }
                self.references.insert(vec![call.func_name.clone(), pointer.to_owned()]);
            }
            _ => self.mistakes.push(format!("the pointer of `{}` must be a string literal", call.func_name)),
        }
    }

    fn comprehension(&mut self, loops: &'e ComprehensionExpr, depth: usize) {
        self.macros = self.macros.saturating_add(1);
        let is_free = loops.iter_var == facts::TOKENS && self.phase != Phase::Counts;
        if names::is_root(&loops.iter_var) && !is_free {
            self.mistakes.push(format!("`{}` is a fact; give the variable another name", loops.iter_var));
        }
        self.visit(&loops.iter_range, depth + 1);
        self.visit(&loops.accu_init, depth + 1);
        let before = self.scope.len();
        self.scope.extend([loops.iter_var.as_str(), loops.accu_var.as_str()]);
        self.scope.extend(loops.iter_var2.as_deref());
        for inside in [&loops.loop_cond, &loops.loop_step, &loops.result] {
            self.visit(inside, depth + 1);
        }
        self.scope.truncate(before);
    }

    /// Returns the root and the steps of `root.a["b"][c]`, unless the root is the variable of a macro.
    fn fact(&self, expr: &'e IdedExpr) -> Option<(&'e str, Steps<'e>)> {
        let mut steps = Steps::new();
        let mut expr = expr;
        let root = loop {
            expr = match &expr.expr {
                Expr::Ident(root) => break root.as_str(),
                Expr::Select(select) => {
                    steps.push(Ok(select.field.as_str()));
                    &select.operand
                }
                Expr::Call(call) => {
                    let indexes = [operators::INDEX, operators::OPT_INDEX, operators::OPT_SELECT];
                    let [operand, index] = call.args.as_slice() else { return None };
                    if !indexes.contains(&call.func_name.as_str()) {
                        return None;
                    }
                    steps.push(match &index.expr {
                        Expr::Literal(LiteralValue::String(name)) => Ok(name.inner()),
                        _ => Err(index),
                    });
                    operand
                }
                _ => return None,
            };
        };
        let type_name = steps.is_empty() && TYPE_NAMES.contains(&root);
        if self.scope.contains(&root) || type_name {
            return None;
        }
        steps.reverse();
        Some((root, steps))
    }
}

fn is_pointer_function(name: &str) -> bool {
    matches!(name, signatures::REQUEST_BODY | signatures::RESPONSE_BODY)
}
