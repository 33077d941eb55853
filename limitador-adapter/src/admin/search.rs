//! Search and order of `/api/counters`.

use super::overview::{PERCENT, share, top};
use crate::ledger::{CounterReading, Key};
use crate::policies::snapshot::PolicySnapshot;
use std::time::Duration;

/// The maximum length of a search in bytes.
const MAX_SEARCH: usize = 256;

/// The maximum age of readings that a caller may accept.
const MAX_AGE: u64 = 60;

/// The order of a list, with the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SortBy {
    /// The share of the maximum that is used and held.
    Share,
    Used,
    Held,
}

/// The parameters of a list that the page uses.
#[derive(Debug, Default)]
pub(super) struct SearchQuery {
    /// Words in lower case, all of which a bucket must contain.
    words: Vec<String>,
    sort: Option<SortBy>,
    /// In percent.
    min_share: Option<u64>,
    min_held: Option<u64>,
    max_age: Duration,
}

/// A bucket, and its rank in a sorted list.
type Ranked<'a> = (Option<u64>, &'a CounterReading);

impl SortBy {
    fn parse(name: &str) -> Result<Self, String> {
        match name {
            "share" => Ok(Self::Share),
            "used" => Ok(Self::Used),
            "held" => Ok(Self::Held),
            _ => Err("sort: must be share, used or held".to_owned()),
        }
    }
}

impl SearchQuery {
    /// Reads a parameter. Returns `None` if it is not one of these.
    pub(super) fn read(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: must be a number"));
        let result = match name {
            "search" if value.len() > MAX_SEARCH => Err(format!("search: at most {MAX_SEARCH} bytes")),
            "search" => {
                self.words = value.split_whitespace().map(str::to_lowercase).collect();
                Ok(())
            }
            "sort" => SortBy::parse(value).map(|order| self.sort = Some(order)),
            "minShare" => number().map(|percent| self.min_share = Some(percent)),
            "minHeld" => number().map(|amount| self.min_held = Some(amount)),
            "maxAge" => number().map(|seconds| self.max_age = Duration::from_secs(seconds.min(MAX_AGE))),
            _ => return None,
        };
        Some(result)
    }

    /// Returns how old the readings may be.
    pub(super) fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Returns whether the list has another order than the default one.
    pub(super) fn is_sorted(&self) -> bool {
        self.sort.is_some()
    }

    pub(super) fn matches(&self, reading: &CounterReading, in_force: &PolicySnapshot) -> bool {
        let has_share = |percent: u64| {
            let share = share(reading, in_force.maximum(&reading.key));
            share.is_some_and(|share| share >= percent.saturating_mul(PERCENT))
        };
        self.min_held.is_none_or(|amount| reading.held >= amount)
            && self.min_share.is_none_or(has_share)
            && self.finds(&reading.key, in_force)
    }

    fn finds(&self, key: &Key, in_force: &PolicySnapshot) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let (policy, limit) = in_force.names_of(key);
        let values = key.counters.iter().filter(|_| !key.is_overflow());
        let names = [policy, limit].into_iter().chain(values.map(|(_, value)| value.as_str()));
        let texts: Vec<String> = names.map(str::to_lowercase).collect();
        self.words.iter().all(|word| texts.iter().any(|text| text.contains(word.as_str())))
    }

    /// Returns a part of the sorted list.
    pub(super) fn page<'a>(
        &self,
        all: &[&'a CounterReading],
        in_force: &PolicySnapshot,
        skip: usize,
        count: usize,
    ) -> Vec<&'a CounterReading> {
        let rank = |reading: &CounterReading| match self.sort {
            Some(SortBy::Share) => share(reading, in_force.maximum(&reading.key)),
            Some(SortBy::Used) => Some(reading.used),
            Some(SortBy::Held) => Some(reading.held),
            None => None,
        };
        let mut ranked: Vec<Ranked<'a>> = all.iter().map(|reading| (rank(reading), *reading)).collect();
        let order = |(a, x): &Ranked<'a>, (b, y): &Ranked<'a>| b.cmp(a).then_with(|| x.key.cmp(&y.key));
        top(&mut ranked, skip.saturating_add(count), order);
        ranked.into_iter().skip(skip).map(|(_, reading)| reading).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::model::{Unit, Window};
    use std::sync::Arc;

    fn reading(who: &str, used: u64, held: u64) -> CounterReading {
        let counters = Arc::from([("auth.identity.userid".to_owned(), who.to_owned())]);
        let window = Window::Fixed(Duration::from_secs(3600));
        let key = Arc::new(Key { limit: "default/llm/free".into(), unit: Unit::Tokens, window, counters });
        CounterReading { key, used, held, leased: 0, granted: 0, reset: None }
    }

    fn query(parameters: &[(&str, &str)]) -> SearchQuery {
        let mut query = SearchQuery::default();
        parameters.iter().for_each(|(name, value)| query.read(name, value).unwrap().unwrap());
        query
    }

    #[test]
    fn every_word_must_be_found_in_a_name_or_a_value() {
        let (in_force, alice) = (PolicySnapshot::default(), reading("Alice Ångström", 1, 2));
        for (search, finds) in [
            ("", true),
            ("alice", true),
            ("  ALICE  ång ", true),
            ("llm alice", true),
            ("free", true),
            ("alice bob", false),
            // The name of a counter is the same for all buckets of a limit.
            ("userid", false),
        ] {
            assert_eq!(query(&[("search", search)]).matches(&alice, &in_force), finds, "{search}");
        }
        assert!(query(&[("minHeld", "2")]).matches(&alice, &in_force));
        assert!(!query(&[("minHeld", "3")]).matches(&alice, &in_force));
        // The overflow bucket has no values.
        let mut overflow = reading("", 1, 0);
        overflow.key = Arc::new(overflow.key.overflow());
        assert!(!query(&[("search", "overflow")]).matches(&overflow, &in_force));
    }

    #[test]
    fn bad_parameters_are_named() {
        for (name, value) in [
            ("sort", "name"),
            ("minShare", "x"),
            ("minHeld", "-1"),
            ("maxAge", "1s"),
            ("search", &"x".repeat(257)),
        ] {
            let error = SearchQuery::default().read(name, value).unwrap().unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
        assert!(SearchQuery::default().read("count", "1").is_none());
    }

    #[test]
    fn pages_of_a_sorted_list_do_not_overlap() {
        let readings: Vec<_> = (0..100_u64).map(|n| reading(&n.to_string(), n * 37 % 20, n % 7)).collect();
        let all: Vec<_> = readings.iter().collect();
        for (sort, value) in [("used", (|r| r.used) as fn(&CounterReading) -> u64), ("held", |r| r.held)] {
            let query = query(&[("sort", sort)]);
            let whole = query.page(&all, &PolicySnapshot::default(), 0, usize::MAX);
            assert!(whole.is_sorted_by(|a, b| value(a) >= value(b)));
            let pages = (0..4).flat_map(|page| query.page(&all, &PolicySnapshot::default(), page * 30, 30));
            assert_eq!(pages.collect::<Vec<_>>(), whole);
        }
    }
}
