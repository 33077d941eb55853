//! Learns how long the responses of a limit and model are, so that a request without a maximum of its own, or with
//! one that the server ignores, holds what such requests use.

use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::request::MaximumFields;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The number of responses that have to be seen before their lengths are used.
const ENOUGH: u32 = 32;
/// The number of responses after which the older half counts half.
const RECENT: u32 = 1000;
/// The maximum number of limits and models. Clients choose the models.
const MAX_KEYS: usize = 1024;
/// The number of characters of a model's name that count.
const LONGEST_MODEL: usize = 128;
/// The memory of a sketch with its key, in bytes.
const SIZE: usize = size_of::<OutputSketch>() + 1024;
/// The number of tokens beyond a maximum that may be counted differently, such as the end of a text.
const UNCOUNTED: u64 = 16;

/// The output of the responses that one worker has seen, by limit and model. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LearnedOutputs {
    sketches: Arc<Mutex<BTreeMap<OutputKey, OutputSketch>>>,
    memory: MemoryBudget,
}

/// A limit, a model, and the fields of the request that limit the output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OutputKey {
    /// "NAMESPACE/NAME".
    policy: Arc<str>,
    limit: String,
    model: String,
    maximum: MaximumFields,
}

impl OutputKey {
    pub(super) fn new(policy: &Arc<str>, limit: &str, model: &str, maximum: MaximumFields) -> Self {
        Self {
            policy: Arc::clone(policy),
            limit: limit.to_owned(),
            model: model.chars().take(LONGEST_MODEL).collect(),
            maximum,
        }
    }
}

/// What the response to a request teaches.
#[derive(Clone, Debug)]
pub struct OutputLesson {
    outputs: LearnedOutputs,
    keys: Vec<OutputKey>,
    completions: u64,
    /// The maximum of the whole response, if the request has one.
    max: Option<u64>,
}

/// What is known about the output of a limit's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LearnedOutput {
    /// Too little, or that they observe the maximum.
    Nothing,
    /// They exceed the maximum.
    Unlimited,
    /// Nine of ten responses are not longer.
    Percentile90(u64),
}

impl OutputLesson {
    pub(super) fn new(outputs: LearnedOutputs, completions: u64, max: Option<u64>) -> Self {
        Self { outputs, keys: Vec::new(), completions: completions.max(1), max }
    }

    /// Adds a limit that the response's output is learned for. Returns what is known about it.
    pub(super) fn add(&mut self, key: OutputKey) -> LearnedOutput {
        let learned = self.outputs.expected(&key);
        self.keys.push(key);
        match learned {
            LearnedOutput::Percentile90(each) => {
                LearnedOutput::Percentile90(each.saturating_mul(self.completions))
            }
            learned => learned,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Learns the output of a successful response, in tokens. It `is_whole` if the response is complete and the
    /// provider has reported the output. Any response can show that a maximum is ignored.
    pub fn learn(self, output: u64, is_whole: bool) {
        let is_ignored = self.max.is_some_and(|max| output > max.saturating_mul(2).saturating_add(UNCOUNTED));
        if !is_whole && !is_ignored {
            return;
        }
        let each = output.div_ceil(self.completions);
        // As long as responses observe a maximum, there is nothing to learn from them.
        let is_new = self.max.is_none() || is_ignored;
        for key in self.keys {
            if is_new || self.outputs.has(&key) {
                self.outputs.learn(key, each);
            }
        }
    }

    /// The memory that it needs, in bytes.
    pub fn size(&self) -> usize {
        let keys = self.keys.iter().map(|key| {
            key.limit.len().saturating_add(key.model.len()).saturating_add(size_of::<OutputKey>())
        });
        keys.fold(size_of::<Self>(), usize::saturating_add)
    }
}

impl LearnedOutputs {
    /// Limits the memory.
    pub fn within(memory: &MemoryBudget) -> Self {
        Self { memory: memory.clone(), ..Self::default() }
    }

    /// Returns what is known about the output of one completion.
    fn expected(&self, key: &OutputKey) -> LearnedOutput {
        let sketches = self.sketches.lock().unwrap_or_else(PoisonError::into_inner);
        match sketches.get(key) {
            Some(sketch) if sketch.seen >= ENOUGH => LearnedOutput::Percentile90(sketch.percentile_90()),
            Some(_) if key.maximum.is_any() => LearnedOutput::Unlimited,
            _ => LearnedOutput::Nothing,
        }
    }

    fn has(&self, key: &OutputKey) -> bool {
        self.sketches.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    fn learn(&self, key: OutputKey, output: u64) {
        let mut sketches = self.sketches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sketch) = sketches.get_mut(&key) {
            return sketch.add(output);
        }
        if sketches.len() >= MAX_KEYS {
            // Names that a client makes up displace each other, but not a model that many responses came from.
            let rarest = sketches.iter().min_by_key(|(_, sketch)| sketch.seen).map(|(key, _)| key.clone());
            rarest.and_then(|rarest| sketches.remove(&rarest));
        }
        let Some(lease) = self.memory.lease(Purpose::Keep, SIZE) else { return };
        let mut sketch = OutputSketch { counts: [0; STEPS], weight: 0, seen: 0, _lease: lease };
        sketch.add(output);
        sketches.insert(key, sketch);
    }
}

/// The distribution of outputs. Each power of two is divided into eight steps, so a step is at most an eighth
/// wide.
#[derive(Debug)]
struct OutputSketch {
    /// The weight of each step. One response adds [`WEIGHT`], and its weight halves with time.
    counts: [u16; STEPS],
    /// The sum of all weights.
    weight: u32,
    /// The number of responses.
    seen: u32,
    _lease: Lease,
}

/// The largest output that differs from larger ones.
const LARGEST: u64 = (1 << 20) - 1;
const STEPS: usize = 144;
/// The weight of a new response, so that the weight of an old one can halve four times.
const WEIGHT: u16 = 16;

impl OutputSketch {
    fn add(&mut self, output: u64) {
        if let Some(count) = self.counts.get_mut(step(output)) {
            *count = count.saturating_add(WEIGHT);
        }
        self.seen = self.seen.saturating_add(1);
        self.weight = self.weight.saturating_add(WEIGHT.into());
        if self.weight >= RECENT * u32::from(WEIGHT) {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.weight = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
    }

    /// Returns the largest output of the step that contains the 90th percentile.
    fn percentile_90(&self) -> u64 {
        let wanted = (self.weight / 10).saturating_mul(9).max(1);
        let mut below = 0_u32;
        let found = self.counts.iter().position(|count| {
            below = below.saturating_add(u32::from(*count));
            below >= wanted
        });
        end_of_step(found.unwrap_or(STEPS))
    }
}

/// Returns the step of an output. The steps of 1 to 15 have one value each.
fn step(output: u64) -> usize {
    let output = output.clamp(1, LARGEST);
    let shift = output.ilog2().saturating_sub(3);
    // The first four digits, in base two, are 8 to 15.
    let digits = usize::try_from(output >> shift).unwrap_or_default();
    digits.saturating_add(8 * shift as usize)
}

/// Returns the largest output of a step.
fn end_of_step(step: usize) -> u64 {
    let shift = (step / 8).saturating_sub(1);
    let digits = u64::try_from(step - 8 * shift).unwrap_or_default();
    ((digits + 1) << shift) - 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn key(model: &str) -> OutputKey {
        OutputKey::new(&"a/b".into(), "free", model, MaximumFields::default())
    }

    fn percentile(outputs: &LearnedOutputs, model: &str) -> u64 {
        match outputs.expected(&key(model)) {
            LearnedOutput::Percentile90(output) => output,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_output_is_in_a_step_that_is_at_most_an_eighth_wide() {
        for output in (1..5000).chain((0..20).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1])) {
            let (found, output) = (step(output), output.clamp(1, LARGEST));
            assert!(found < STEPS, "{output}");
            let end = end_of_step(found);
            assert!(end >= output && (end - output) * 8 < output.max(8), "{output}: {end}");
            assert!(found == step(1) || end_of_step(found - 1) < output, "{output}");
        }
        assert_eq!(step(u64::MAX), STEPS - 1);
        assert_eq!(step(0), step(1));
    }

    #[test]
    fn nothing_is_expected_before_enough_responses_were_seen() {
        let outputs = LearnedOutputs::default();
        for seen in 0..ENOUGH {
            assert_eq!(outputs.expected(&key("m")), LearnedOutput::Nothing, "{seen}");
            outputs.learn(key("m"), 100);
        }
        assert_eq!(outputs.expected(&key("m")), LearnedOutput::Percentile90(103));
        assert_eq!(outputs.expected(&key("other")), LearnedOutput::Nothing);
    }

    #[test]
    fn nine_of_ten_responses_are_not_longer_than_expected() {
        let outputs = LearnedOutputs::default();
        for output in (1..=500).rev() {
            outputs.learn(key("m"), output);
        }
        let expected = percentile(&outputs, "m");
        assert!((450..=450 * 9 / 8).contains(&expected), "{expected}");
    }

    #[test]
    fn a_change_is_learned_although_many_responses_were_seen() {
        let outputs = LearnedOutputs::default();
        (0..100_000).for_each(|_| outputs.learn(key("m"), 10));
        (0..300).for_each(|_| outputs.learn(key("m"), 4000));
        assert!(percentile(&outputs, "m") >= 4000);
        (0..10_000).for_each(|_| outputs.learn(key("m"), 10));
        assert_eq!(percentile(&outputs, "m"), 10);
    }

    #[test]
    fn invented_models_do_not_displace_a_real_one() {
        let outputs = LearnedOutputs::default();
        (0..ENOUGH).for_each(|_| outputs.learn(key("real"), 100));
        (0..3 * MAX_KEYS).for_each(|number| outputs.learn(key(&format!("invented-{number}")), 1));
        assert_eq!(outputs.sketches.lock().unwrap().len(), MAX_KEYS);
        assert_eq!(percentile(&outputs, "real"), 103);
        assert_eq!(key(&"m".repeat(LONGEST_MODEL)), key(&"m".repeat(LONGEST_MODEL + 1)));
    }

    #[test]
    fn it_stays_within_the_memory() {
        let memory = MemoryBudget::new(100_000);
        let outputs = LearnedOutputs::within(&memory);
        (0..1000).for_each(|number| outputs.learn(key(&format!("{number}")), 1));
        let learned = outputs.sketches.lock().unwrap().len();
        assert!((10..200).contains(&learned), "{learned}");
        assert!(memory.used() <= 50_000);
        drop(outputs);
        assert_eq!(memory.used(), 0);
    }
}
