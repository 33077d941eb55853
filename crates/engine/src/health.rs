//! Counts how often the upstreams of each model failed in the last minute. Times are milliseconds of any
//! clock that does not run backwards.

use std::collections::BTreeMap;

/// The maximum number of models. A client can name any number of them.
const MAX_MODELS: usize = 256;
/// The minute is divided into seconds.
const SECONDS: u64 = 60;

/// Failures by model.
#[derive(Debug, Default)]
pub struct Health {
    models: BTreeMap<String, Model>,
}

#[derive(Debug, Default)]
struct Model {
    /// Failures by second, for the last minute.
    failures: BTreeMap<u64, u64>,
}

impl Health {
    /// Records a failure of an upstream of this model.
    pub fn failed(&mut self, model: &str, now_ms: u64) {
        let second = now_ms / 1000;
        self.forget(second);
        if !self.models.contains_key(model) && self.models.len() >= MAX_MODELS {
            let last = |model: &Model| model.failures.last_key_value().map(|(second, _)| *second);
            let longest_ago = self.models.iter().min_by_key(|(_, model)| last(model));
            if let Some(name) = longest_ago.map(|(name, _)| name.clone()) {
                self.models.remove(&name);
            }
        }
        let failures = &mut self.models.entry(model.to_owned()).or_default().failures;
        let count = failures.entry(second).or_default();
        *count = count.saturating_add(1);
    }

    /// Returns the failures of the last minute for each model that had one.
    pub fn counts(&mut self, now_ms: u64) -> BTreeMap<String, u64> {
        self.forget(now_ms / 1000);
        let sum =
            |model: &Model| model.failures.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let mut counts = BTreeMap::new();
        counts.extend(self.models.iter().map(|(name, model)| (name.clone(), sum(model))));
        counts
    }

    fn forget(&mut self, second: u64) {
        self.models.retain(|_, model| {
            model.failures.retain(|then, _| then.saturating_add(SECONDS) > second);
            !model.failures.is_empty()
        });
    }
}

/// Returns whether a response with this status is an upstream's failure.
pub fn is_failure(status: u16) -> bool {
    status >= 500 || status == 429
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_for_a_minute_and_for_its_model() {
        let mut health = Health::default();
        health.failed("a", 1_000);
        health.failed("a", 30_500);
        health.failed("b", 60_000);
        let of = |health: &mut Health, model: &str, now| health.counts(now).get(model).copied().unwrap_or(0);
        assert_eq!((of(&mut health, "a", 60_999), of(&mut health, "b", 60_999)), (2, 1));
        assert_eq!(of(&mut health, "a", 61_000), 1);
        assert_eq!(of(&mut health, "a", 90_000), 0);
        assert!(health.counts(200_000).is_empty() && health.models.is_empty());
    }

    #[test]
    fn the_model_that_failed_longest_ago_is_forgotten_first() {
        let mut health = Health::default();
        for number in 0..1000_u64 {
            health.failed(&format!("model-{number:04}"), 1_000 + number);
        }
        health.failed("now", 2_500);
        let counts = health.counts(2_500);
        assert_eq!((counts.len(), counts.get("now")), (MAX_MODELS, Some(&1)));
        assert!(!counts.contains_key("model-0000"));
    }

    #[test]
    fn what_is_a_failure() {
        let failures: Vec<u16> = [200, 400, 404, 428, 429, 430, 499, 500, 503, 599]
            .into_iter()
            .filter(|s| is_failure(*s))
            .collect();
        assert_eq!(failures, [429, 500, 503, 599]);
    }
}
