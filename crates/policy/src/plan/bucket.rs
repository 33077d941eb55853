//! The buckets in which a limit counts a request, according to the values of its counters.

use super::DoubtCause;
use crate::model::Limit;
use expression::cel::{CounterValue, EvaluationError, Expression, MAX_ELEMENTS};
use expression::facts::Facts;
use protocol::call::Entries;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The length in bytes above which counter values are shortened.
const LONGEST_VALUE: usize = 512;
/// The number of characters to keep of a longer value.
const SHOWN: usize = 64;
/// The maximum number of buckets of a limit that one request may count in.
const MAX_BUCKETS: usize = MAX_ELEMENTS;
/// The text for a counter without a value. An actual value with this text is put in quotes.
pub(super) const NULL: &str = "null";

/// One bucket of a request: the counter expressions and their values.
pub(super) struct RequestBucket {
    pub counters: Arc<[(String, String)]>,
    pub entries: Entries,
}

/// The buckets of a request that are known so far. Limits with the same counters share them.
#[derive(Default)]
pub(super) struct RequestBuckets<'p>(Vec<CounterBuckets<'p>>);

/// The buckets of some counters for this request.
struct CounterBuckets<'p> {
    counters: &'p [Expression],
    /// At least one.
    buckets: Vec<RequestBucket>,
    /// The reasons why the values of some counters are unknown.
    doubts: Vec<(DoubtCause, String)>,
}

/// Identifies the buckets of a limit.
#[derive(Clone, Copy)]
pub(super) struct BucketsNumber(usize);

impl<'p> RequestBuckets<'p> {
    /// Finds the buckets of a limit.
    pub fn find(&mut self, limit: &'p Limit, facts: &Facts) -> BucketsNumber {
        let sources = |all: &'p [Expression]| all.iter().map(Expression::source);
        let is_same = |known: &CounterBuckets<'p>| sources(&limit.counters).eq(sources(known.counters));
        BucketsNumber(self.0.iter().position(is_same).unwrap_or_else(|| {
            let (counters, mut doubts) = (&*limit.counters, Vec::new());
            let values: Vec<Vec<String>> =
                counters.iter().map(|counter| values(counter, facts, &mut doubts)).collect();
            let buckets = combined(counters, values, &mut doubts);
            self.0.push(CounterBuckets { counters, buckets, doubts });
            self.0.len().saturating_sub(1)
        }))
    }

    /// Returns these buckets, at least one.
    pub fn buckets(&self, BucketsNumber(number): BucketsNumber) -> &[RequestBucket] {
        self.0.get(number).map(|known| &*known.buckets).unwrap_or_default()
    }

    /// Returns the reasons why the values of some of their counters are unknown.
    pub fn doubts(&self, BucketsNumber(number): BucketsNumber) -> &[(DoubtCause, String)] {
        self.0.get(number).map(|known| &*known.doubts).unwrap_or_default()
    }
}

/// Returns the values of a counter, one for each of its buckets, at least one.
fn values(counter: &Expression, facts: &Facts, doubts: &mut Vec<(DoubtCause, String)>) -> Vec<String> {
    let error = match counter.counter(facts) {
        Ok(CounterValue::One(value)) => return vec![told(value)],
        Ok(CounterValue::Each(values)) => {
            if values.contains(&None) {
                let detail = format!("{}: an element is not a string, number or bool", counter.source());
                doubts.push((DoubtCause::CounterFailed, detail));
            }
            return values.into_iter().map(|value| value.map_or_else(|| NULL.to_owned(), told)).collect();
        }
        Err(error) => error,
    };
    let cause = match error {
        EvaluationError::Absent(_) => DoubtCause::CounterAbsent,
        EvaluationError::Failed(_) => DoubtCause::CounterFailed,
    };
    doubts.push((cause, format!("{}: {error}", counter.source())));
    vec![NULL.to_owned()]
}

/// Returns one bucket for each combination of the values. If there are too many, each list is replaced by
/// [`NULL`], so there is one bucket.
fn combined(
    counters: &[Expression],
    mut values: Vec<Vec<String>>,
    doubts: &mut Vec<(DoubtCause, String)>,
) -> Vec<RequestBucket> {
    if values.iter().map(Vec::len).fold(1, usize::saturating_mul) > MAX_BUCKETS {
        for (counter, values) in counters.iter().zip(&mut values).filter(|(_, values)| values.len() > 1) {
            let detail = format!("{}: more than {MAX_BUCKETS} buckets", counter.source());
            doubts.push((DoubtCause::CounterTooLong, detail));
            *values = vec![NULL.to_owned()];
        }
    }
    // The common case.
    if values.iter().all(|values| values.len() == 1) {
        return vec![bucket(counters, values.into_iter().flatten())];
    }
    let mut combinations: Vec<Vec<String>> = vec![Vec::new()];
    for values in values {
        let with = |value: &String| {
            let extended = |so_far: &Vec<String>| so_far.iter().chain([value]).cloned().collect();
            combinations.iter().map(extended).collect::<Vec<_>>()
        };
        combinations = values.iter().flat_map(with).collect();
    }
    combinations.into_iter().map(|values| bucket(counters, values)).collect()
}

fn bucket(counters: &[Expression], values: impl IntoIterator<Item = String>) -> RequestBucket {
    let mut entries = Entries::default();
    let counters = counters.iter().zip(values).map(|(counter, value)| {
        entries.push(counter.source(), &value);
        (counter.source().to_owned(), value)
    });
    let counters = counters.collect();
    RequestBucket { counters, entries }
}

/// Returns the value as it appears in the bucket. A long value is replaced by its beginning and its digest.
/// Otherwise, a client could exceed the size of a call or fill the adapter's memory. The result never equals
/// [`NULL`].
fn told(value: String) -> String {
    if value.len() > LONGEST_VALUE {
        let beginning: String = value.chars().take(SHOWN).collect();
        return format!("{beginning}...sha256:{:x}", Sha256::digest(&value));
    }
    if value == NULL || value.starts_with('"') { format!("\"{value}\"") } else { value }
}
