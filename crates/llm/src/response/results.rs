//! Adds up the usage of several results in one stream. Each event names its result, and each result has its
//! own growing counts.

use super::Usage;

/// The maximum number of results. Further results are merged into the last one. Few servers accept as many
/// prompts at once.
const MAX_RESULTS: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Results(Vec<(u32, Usage)>);

impl Results {
    /// Records the usage of one result so far. A zero never replaces another value.
    pub(super) fn note(&mut self, index: u32, usage: Usage) {
        let known = self.0.iter().position(|(known, _)| *known == index);
        if known.is_none() && self.0.len() < MAX_RESULTS {
            self.0.push((index, usage));
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

    /// Returns the sum of all results, if there are several.
    pub(super) fn sum(&self) -> Option<Usage> {
        let all = self.0.iter().map(|(_, usage)| *usage);
        (self.0.len() > 1).then(|| all.fold(Usage::default(), Usage::plus))
    }
}
