//! Reads a document and finds every error in it.
//!
//! A [`DocumentNode`] is a value with its path. Each reader returns a value or a [`Reported`], which exists
//! only if an error was recorded. So nothing is rejected without a message, and nothing invalid is accepted.
//! This module knows JSON, but not the meaning of a policy.

use crate::duration;
use crate::validation_error::ValidationError;
use expression::small_sort;
use expression::suggest::nearest;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::time::Duration;

mod strict;

pub use strict::parse;

/// Remarks on a valid document.
pub struct Remarks {
    /// Notes about values that may be errors where the document is used.
    pub notes: Vec<ValidationError>,
    /// Values that are probably unintended.
    pub warnings: Vec<ValidationError>,
}

/// Reads `value` with `reader`. Returns the result with its remarks, or all errors.
pub fn read<T>(
    value: &Value,
    reader: impl FnOnce(DocumentNode<'_>) -> Result<T, Reported>,
) -> Result<(T, Remarks), Vec<ValidationError>> {
    let findings = Findings::default();
    let read = reader(DocumentNode { value, path: String::new(), findings: &findings });
    let Findings { mistakes, notes, warnings } = findings;
    match (read, mistakes.0.into_inner()) {
        (Ok(read), mistakes) if mistakes.is_empty() => {
            Ok((read, Remarks { notes: notes.0.into_inner(), warnings: warnings.0.into_inner() }))
        }
        (_, mistakes) => Err(mistakes),
    }
}

/// Evaluates every result before it returns the first error, so that all errors are reported.
pub fn all<T>(results: impl Iterator<Item = Result<T, Reported>>) -> Result<Vec<T>, Reported> {
    results.collect::<Vec<_>>().into_iter().collect()
}

/// Like [`all`], but also rejects a value that is the `same` as an earlier one. `complaint` formats the
/// message from the index of the earlier value.
pub fn distinct<'a, T>(
    read: impl Iterator<Item = (DocumentNode<'a>, Result<T, Reported>)>,
    same: impl Fn(&T, &T) -> bool,
    complaint: impl Fn(&T, usize) -> String,
) -> Result<Vec<T>, Reported> {
    let mut results: Vec<Result<T, Reported>> = Vec::new();
    for (node, result) in read {
        let result = result.and_then(|item| {
            let is_same = |other: &Result<T, _>| other.as_ref().is_ok_and(|other| same(&item, other));
            match results.iter().position(is_same) {
                Some(first) => Err(node.refuse(complaint(&item, first))),
                None => Ok(item),
            }
        });
        results.push(result);
    }
    results.into_iter().collect()
}

/// Proves that an error was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Reported(());

#[derive(Default)]
struct ValidationErrors(Cell<Vec<ValidationError>>);

impl ValidationErrors {
    fn push(&self, path: &str, message: impl Into<String>) {
        let mut mistakes = self.0.take();
        mistakes.push(ValidationError { path: path.to_owned(), message: message.into() });
        self.0.set(mistakes);
    }
}

/// The errors and remarks that were recorded while a document was read.
#[derive(Default)]
struct Findings {
    mistakes: ValidationErrors,
    notes: ValidationErrors,
    warnings: ValidationErrors,
}

/// The fields that an object may have.
pub struct KnownFields {
    /// Fields that are supported.
    pub known: &'static [&'static str],
    /// Fields that are planned and rejected by name, each with the field that it may replace.
    pub later: &'static [(&'static str, Option<&'static str>)],
    /// Fields of other implementations. They are accepted with any value and ignored.
    pub ignored: &'static [&'static str],
}

/// A value and its path.
#[derive(Clone)]
pub struct DocumentNode<'a> {
    value: &'a Value,
    path: String,
    findings: &'a Findings,
}

impl<'a> DocumentNode<'a> {
    /// Records an error.
    pub fn refuse(&self, message: impl Into<String>) -> Reported {
        self.findings.mistakes.push(&self.path, message);
        Reported(())
    }

    /// Records a note.
    pub fn note(&self, message: impl Into<String>) {
        self.findings.notes.push(&self.path, message);
    }

    /// Records a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.findings.warnings.push(&self.path, message);
    }

    /// Returns the string in this field, if there is one. Never records an error.
    pub fn peek(&self, field: &str) -> Option<&'a str> {
        self.value.get(field).and_then(Value::as_str)
    }

    /// Returns the value at this path, if there is one. Never records an error.
    pub fn at(&self, fields: &[&'static str]) -> Option<DocumentNode<'a>> {
        let step = |node: Self, field: &&str| node.value.get(*field).map(|value| node.child(field, value));
        fields.iter().try_fold(self.clone(), step)
    }

    /// Reads an object that may have only these fields.
    pub fn object(self, fields: &'static KnownFields) -> Result<DocumentObject<'a>, Reported> {
        let object = DocumentObject { map: self.map()?, node: self, fields };
        object.check_names();
        Ok(object)
    }

    /// Reads an object with arbitrary keys, in order.
    pub fn entries(&self) -> Result<Vec<(&'a str, DocumentNode<'a>)>, Reported> {
        Ok(sorted(self.map()?).into_iter().map(|(name, value)| (name, self.child(name, value))).collect())
    }

    /// Reads a list.
    pub fn items(&self) -> Result<Vec<DocumentNode<'a>>, Reported> {
        let items = self.value.as_array().ok_or_else(|| self.wrong_type("a list", ""))?;
        let item = |(i, value)| DocumentNode { value, path: format!("{}[{i}]", self.path), ..self.clone() };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// Reads a string that is not blank.
    pub fn text(&self) -> Result<&'a str, Reported> {
        let unquoted = self.value.is_number() || self.value.is_boolean();
        let hint = if unquoted { "; put it in quotes" } else { "" };
        let text = self.value.as_str().ok_or_else(|| self.wrong_type("a string", hint))?;
        if text.trim().is_empty() { Err(self.refuse("must not be empty")) } else { Ok(text) }
    }

    /// Returns whether it is a whole number, possibly negative.
    pub fn is_whole(&self) -> bool {
        self.value.is_i64() || self.value.is_u64()
    }

    /// Reads `true` or `false`.
    pub fn flag(&self) -> Result<bool, Reported> {
        self.value.as_bool().ok_or_else(|| self.refuse("must be `true` or `false`"))
    }

    /// Reads a whole number of at most `i64::MAX`, the largest that Kubernetes and CEL can represent.
    pub fn whole_number(&self) -> Result<u64, Reported> {
        let beyond = || self.value.as_f64().is_some_and(|number| number >= i64::MAX as f64);
        match (self.value.as_u64(), self.value.as_i64()) {
            (Some(number), Some(_)) => Ok(number),
            _ if beyond() => Err(self.refuse(format!("must be at most {}", i64::MAX))),
            _ => {
                let hint = match self.value {
                    Value::String(text) if text.parse::<u64>().is_ok() => "; leave the quotes out",
                    Value::Number(number)
                        if number.as_f64().is_some_and(|n| n >= 0.0 && n.fract() == 0.0) =>
                    {
                        "; write it in digits alone"
                    }
                    _ => "",
                };
                Err(self.wrong_type("a whole number, 0 or more", hint))
            }
        }
    }

    /// Reads a duration within these bounds.
    pub fn duration(&self, least: Duration, most: Duration) -> Result<Duration, Reported> {
        let example = if least < Duration::from_secs(1) { "200ms" } else { "24h" };
        if !self.value.is_string() {
            return Err(self.wrong_type(&format!("a duration such as `{example}`"), ""));
        }
        let text = self.text()?;
        let duration = duration::parse(text).ok_or_else(|| {
            self.refuse(format!(
                "`{}` is not a duration: write up to four numbers of up to five digits, each with its unit (ms, s, \
                 m, h, d or w), such as `{example}` or `1h30m`",
                shortened(text)
            ))
        })?;
        if duration < least {
            return Err(self.refuse(format!("must be at least {}", duration::text(least))));
        }
        if duration > most {
            return Err(self.refuse(format!("must be at most {}", duration::text(most))));
        }
        Ok(duration)
    }

    /// Reads one of these words. `later` lists words that are planned.
    pub fn word<T: Copy>(&self, words: &[(&str, T)], later: &[&str]) -> Result<T, Reported> {
        let text = self.value.as_str();
        if let Some((_, meaning)) = words.iter().find(|(word, _)| text == Some(word)) {
            return Ok(*meaning);
        }
        Err(match later.iter().find(|word| text == Some(word)) {
            Some(word) => self.refuse(format!("`{word}` is not supported yet")),
            None => {
                let near = text.and_then(|text| nearest(text, words.iter().map(|(word, _)| *word)));
                let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                self.wrong_type(&listed(words.iter().map(|(word, _)| *word), "or"), &hint)
            }
        })
    }

    fn map(&self) -> Result<&'a Map<String, Value>, Reported> {
        self.value.as_object().ok_or_else(|| self.wrong_type("an object", ""))
    }

    fn child(&self, name: &str, value: &'a Value) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let path = if name.is_empty() || !name.chars().all(plain) {
            format!("{}[{}]", self.path, one_line(&Value::from(name).to_string()))
        } else if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        };
        DocumentNode { value, path, findings: self.findings }
    }

    fn wrong_type(&self, wanted: &str, hint: &str) -> Reported {
        let found = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Number(value) => format!("the number {value}"),
            Value::String(value) if value.trim().is_empty() => "an empty string".to_owned(),
            Value::String(value) => format!("the string `{}`", shortened(value)),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        self.refuse(format!("must be {wanted}, but is {found}{hint}"))
    }
}

/// An object with checked field names.
pub struct DocumentObject<'a> {
    node: DocumentNode<'a>,
    map: &'a Map<String, Value>,
    fields: &'static KnownFields,
}

impl<'a> DocumentObject<'a> {
    pub fn node(&self) -> &DocumentNode<'a> {
        &self.node
    }

    /// Returns an optional field.
    pub fn optional(&self, name: &str) -> Option<DocumentNode<'a>> {
        self.map.get(name).map(|value| self.node.child(name, value))
    }

    /// Returns a required field.
    pub fn required(&self, name: &str) -> Result<DocumentNode<'a>, Reported> {
        if let Some(field) = self.optional(name) {
            return Ok(field);
        }
        // The replacement was already reported as unsupported. Reporting that this field is required would
        // mislead.
        let replaced = |(later, place): &(&str, _)| *place == Some(name) && self.map.contains_key(*later);
        if self.fields.later.iter().any(replaced) {
            return Err(Reported(()));
        }
        Err(self.missing(name, "is required"))
    }

    /// Records that a field is missing.
    pub fn missing(&self, name: &str, message: &str) -> Reported {
        // A typo in its name was already reported. Reporting that the field is required would only add noise.
        let is_mistyped = |written: &str| {
            !self.fields.known.contains(&written)
                && nearest(written, self.fields.known.iter().copied()) == Some(name)
        };
        if self.map.keys().any(|written| is_mistyped(written)) {
            return Reported(());
        }
        self.node.child(name, &Value::Null).refuse(message)
    }

    fn check_names(&self) {
        for (name, value) in sorted(self.map) {
            let field = self.node.child(name, value);
            if self.fields.later.iter().any(|(later, _)| *later == name) {
                field.refuse(format!("`{name}` is not supported yet"));
            } else if !self.fields.known.contains(&name) && !self.fields.ignored.contains(&name) {
                field.refuse(unknown(name, self.fields.known));
            }
        }
    }
}

fn unknown(name: &str, known: &[&'static str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(candidate) => format!("unknown field; did you mean `{candidate}`?"),
        None => format!("unknown field; known here: {}", listed(known.iter().copied(), "and")),
    }
}

/// Sorts by key, regardless of the features that `serde_json` was built with.
fn sorted(map: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut entries: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value)).collect();
    small_sort::sort_by(&mut entries, |(one, _), (other, _)| one.cmp(other));
    entries
}

fn listed<'a>(words: impl Iterator<Item = &'a str>, last: &str) -> String {
    let mut words: Vec<_> = words.map(|word| format!("`{word}`")).collect();
    match (words.pop(), words.is_empty()) {
        (Some(only), true) => only,
        (Some(end), false) => format!("{} {last} {end}", words.join(", ")),
        (None, _) => String::new(),
    }
}

/// Formats a value on one line, short enough for a message.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(60).and_then(|(end, _)| text.get(..end)) {
        Some(start) => format!("{}...", one_line(start)),
        None => one_line(text),
    }
}

/// Escapes control characters, which would break a log line or a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().fold(String::new(), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_debug())
        } else {
            line.push(c)
        }
        line
    })
}
