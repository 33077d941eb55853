//! Adds up the usage of several results in one response. Each report names its result, and each result has
//! its own growing counts.

use super::Usage;

/// The maximum number of results. Further results are merged into the last one. Few servers accept as many
/// prompts at once.
const MAX_RESULTS: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Results(Vec<(u64, Usage)>);

impl Results {
    /// Records the usage of one result so far. A zero never replaces another value.
    pub(super) fn note(&mut self, name: u64, usage: Usage) {
        let known = self.0.iter().position(|(known, _)| *known == name);
        if known.is_none() && self.0.len() < MAX_RESULTS {
            self.0.push((name, usage));
            return;
        }
        let last = self.0.len().saturating_sub(1);
        let Some((_, earlier)) = self.0.get_mut(known.unwrap_or(last)) else { return };
        let later = |later: u64, earlier: u64| if later > 0 { later } else { earlier };
        *earlier = Usage {
            input: later(usage.input, earlier.input),
            output: later(usage.output, earlier.output),
            cached: later(usage.cached, earlier.cached),
            reasoning: later(usage.reasoning, earlier.reasoning),
            ..*earlier
        };
        earlier.total = earlier.input.saturating_add(earlier.output);
    }

    /// Forgets the latest results, except for this number of results.
    pub(super) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the sum of all results, if there are any.
    pub(super) fn sum(&self) -> Option<Usage> {
        let all = self.0.iter().map(|(_, usage)| *usage);
        (!self.0.is_empty()).then(|| all.fold(Usage::default(), Usage::plus))
    }
}
