//! Adds up the usage of several results in one response. Each report names its result, and each result has
//! its own growing counts.

use super::Usage;

/// The number of results that are known by name. Reports of further results add up, even if they repeat each
/// other. Few servers accept so many prompts in one request.
const MAX_NAMED: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    named: Vec<(u64, Usage)>,
    /// The sum of the reports of all other results.
    others: Usage,
}

/// What had been reported at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResultsSoFar {
    named: usize,
    others: Usage,
}

impl Results {
    /// Records the usage of one result so far. A zero never replaces another value.
    pub(super) fn note(&mut self, name: u64, usage: Usage) {
        self.record(name, usage, latest);
    }

    /// Records further usage of one result.
    pub(super) fn add(&mut self, name: u64, usage: Usage) {
        self.record(name, usage, Usage::plus);
    }

    fn record(&mut self, name: u64, usage: Usage, join: impl Fn(Usage, Usage) -> Usage) {
        if let Some((_, known)) = self.named.iter_mut().find(|(known, _)| *known == name) {
            *known = join(usage, *known);
        } else if self.named.len() < MAX_NAMED {
            self.named.push((name, usage));
        } else {
            self.others = self.others.plus(usage);
        }
    }

    pub(super) fn so_far(&self) -> ResultsSoFar {
        ResultsSoFar { named: self.named.len(), others: self.others }
    }

    /// Forgets the results that were first reported after this time.
    pub(super) fn return_to(&mut self, ResultsSoFar { named, others }: ResultsSoFar) {
        self.named.truncate(named);
        self.others = others;
    }

    pub(super) fn len(&self) -> usize {
        self.named.len()
    }

    /// Returns the sum of all results, if there are any.
    pub(super) fn sum(&self) -> Option<Usage> {
        let named = self.named.iter().map(|(_, usage)| *usage);
        (!self.named.is_empty()).then(|| named.fold(self.others, Usage::plus))
    }
}

fn latest(usage: Usage, earlier: Usage) -> Usage {
    let latest = |count: u64, earlier: u64| if count > 0 { count } else { earlier };
    let (input, output) = (latest(usage.input, earlier.input), latest(usage.output, earlier.output));
    Usage {
        input,
        output,
        total: input.saturating_add(output),
        cached: latest(usage.cached, earlier.cached),
        cache_write: latest(usage.cache_write, earlier.cache_write),
        cache_write_1h: latest(usage.cache_write_1h, earlier.cache_write_1h),
        reasoning: latest(usage.reasoning, earlier.reasoning),
    }
}
