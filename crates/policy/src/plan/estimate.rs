//! Estimates how many tokens a request will use.

use super::learned::LearnedOutput;
use expression::facts::Facts;
use llm::request::RequestBody;
use llm::response::Usage;

/// The expected usage of a request, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Prompt tokens.
    pub input: u64,
    /// Completion tokens.
    pub output: u64,
}

impl Estimate {
    /// Estimates the usage from the body, or from `content-length` if the body is not read. `is_free` is true if the
    /// call is known to use no tokens.
    pub(super) fn of(facts: &Facts, bodiless: bool, is_free: bool, smallest_limit: Option<u64>) -> Self {
        let own = Self::of_request(facts, bodiless, is_free, smallest_limit);
        // A response is not longer because the conversation is, so this does not affect the output.
        let earlier = if is_free { 0 } else { facts.earlier_input() };
        Self { input: own.input.saturating_add(earlier), ..own }
    }

    fn of_request(facts: &Facts, bodiless: bool, is_free: bool, smallest_limit: Option<u64>) -> Self {
        let floor = floor(smallest_limit);
        if let Some(body) = facts.read_body() {
            return Self { input: body.input, output: body.output(floor) };
        }
        if is_free {
            return Self::default();
        }
        let input = estimate_input(facts, bodiless);
        // If the client sets no maximum, the output is estimated to be as large as the input, but not below
        // the floor.
        Self { input, output: if bodiless { 0 } else { input.max(floor) } }
    }

    /// Returns the estimate after what is known about such responses. `None` if it stays as it is. It holds at least a
    /// quarter of the floor: a client could ask for many short outputs, and then for many long ones at once.
    pub(super) fn learned(
        self,
        known: LearnedOutput,
        body: &RequestBody,
        smallest_limit: Option<u64>,
    ) -> Option<Self> {
        let floor = floor(smallest_limit);
        let learned = match known {
            LearnedOutput::Nothing => return None,
            LearnedOutput::Unlimited => body.output_without_maximum(floor),
            LearnedOutput::Percentile90(output) => output.max(floor / 4).max(1),
        };
        let output = if body.max_output_fields.is_any() { self.output.max(learned) } else { learned };
        Some(Self { output, ..self })
    }

    /// The sum of input and output.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The estimate as usage.
    pub fn usage(self) -> Usage {
        Usage { input: self.input, output: self.output, total: self.total(), ..Usage::default() }
    }
}

/// The minimum output of a request that sets no maximum.
fn floor(smallest_limit: Option<u64>) -> u64 {
    smallest_limit.map_or(1024, |limit| (limit / 4).clamp(1, 1024))
}

/// Estimates the input tokens. If the body is not read, each of its bytes counts as a character.
fn estimate_input(facts: &Facts, bodiless: bool) -> u64 {
    match facts.content_length() {
        Some(length) if !bodiless && length > 0 => (length / 4).max(1),
        _ => 0,
    }
}
