//! In whose buckets a limit counts a request, by its counters' values.

use super::DoubtCause;
use crate::model::Limit;
use expression::cel::{CounterValue, EvaluationError, Expression, MAX_ELEMENTS};
use expression::facts::Facts;
use protocol::call::Entries;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The longest value of a counter that is told as it is, in bytes.
const LONGEST_VALUE: usize = 512;
/// How many characters of a longer one are shown.
const SHOWN: usize = 64;
/// In how many buckets of a limit one request may count, at most.
const MAX_BUCKETS: usize = MAX_ELEMENTS;
/// The value of a counter that has none. A value that is this text counts with quotes around it.
const NULL: &str = "null";

/// One of the buckets of a request: counter expressions and their values.
pub(super) struct RequestBucket {
    pub counters: Arc<[(String, String)]>,
    pub entries: Entries,
}

/// Why the values of some counters are not known.
type Doubts = Arc<[(DoubtCause, String)]>;

/// Counters, with their buckets in this request.
type FoundBuckets<'p> = (&'p [Expression], Arc<[RequestBucket]>, Doubts);

/// The buckets of a request, as far as they are known. Limits with the same counters share them.
#[derive(Default)]
pub(super) struct RequestBuckets<'p>(Vec<FoundBuckets<'p>>);

impl<'p> RequestBuckets<'p> {
    /// Those of a limit, at least one.
    pub fn find(&mut self, limit: &'p Limit, facts: &Facts) -> (Arc<[RequestBucket]>, Doubts) {
        let same = |(counters, ..): &&(&[Expression], _, _)| {
            let sources = |all: &'p [Expression]| all.iter().map(Expression::source);
            sources(&limit.counters).eq(counters.iter().map(Expression::source))
        };
        if let Some((_, buckets, doubts)) = self.0.iter().find(same) {
            return (buckets.clone(), doubts.clone());
        }
        let mut doubts = Vec::new();
        let values: Vec<Vec<String>> =
            limit.counters.iter().map(|counter| values(counter, facts, &mut doubts)).collect();
        let buckets: Arc<[RequestBucket]> = combined(&limit.counters, values, &mut doubts).into();
        let doubts: Doubts = doubts.into();
        self.0.push((&limit.counters, buckets.clone(), doubts.clone()));
        (buckets, doubts)
    }
}

/// What a counter is, in each bucket that it names: at least one.
fn values(counter: &Expression, facts: &Facts, doubts: &mut Vec<(DoubtCause, String)>) -> Vec<String> {
    let error = match counter.counter(facts) {
        Ok(CounterValue::One(value)) => return vec![told(value)],
        Ok(CounterValue::Each(values)) => {
            if values.contains(&None) {
                let detail = format!("{}: an element is no string, number or bool", counter.source());
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

/// One bucket for each combination of the values; if they are too many, one for all lists together.
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
    // Nearly always.
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

/// A value as its bucket's. One that is longer than any name is its digest: a client could otherwise make the call to the
/// adapter too long, and with it the adapter's memory. No value is [`NULL`].
fn told(value: String) -> String {
    if value.len() > LONGEST_VALUE {
        let beginning: String = value.chars().take(SHOWN).collect();
        return format!("{beginning}...sha256:{:x}", Sha256::digest(&value));
    }
    if value == NULL || value.starts_with('"') { format!("\"{value}\"") } else { value }
}
