//! The regular expressions of `matches`, compiled with the expression, and those of routes. A pattern of
//! `matches` must be a literal: a pattern from a fact would be compiled for each request, and a client could
//! determine the cost.

use cel_interpreter::common::types::Type;
use cel_interpreter::common::value::{StaticVal, Val};
use regex_lite::{Regex, RegexBuilder};
use std::any::Any;

/// The maximum size of a compiled pattern, in bytes. The cost of a search grows with it.
const SIZE_LIMIT: usize = 64 * 1024;
/// The maximum size of a route's compiled pattern, in bytes. Every request of the gateway may have to be
/// compared with it.
const ROUTE_SIZE_LIMIT: usize = 8 * 1024;

#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        RegexBuilder::new(source)
            .size_limit(SIZE_LIMIT)
            .build()
            .map(Self)
            .map_err(|error| format!("the pattern of `matches` is wrong: {error}"))
    }

    /// Compiles a pattern that must match the whole text, as in routes.
    pub fn whole(source: &str) -> Result<Self, String> {
        RegexBuilder::new(&format!("^(?:{source})$"))
            .size_limit(ROUTE_SIZE_LIMIT)
            .build()
            .map(Self)
            .map_err(|error| error.to_string())
    }

    pub(super) fn source(&self) -> &str {
        self.0.as_str()
    }

    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        static TYPE: Type = Type::new_unspecified_type("@pattern");
        &TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}
