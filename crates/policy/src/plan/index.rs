//! Finds the policies that a request may concern by its facts, so that policies for other paths, hosts or
//! users cost nothing. No limit of the omitted policies would apply.

use super::{CompiledPolicy, precedence};
use crate::model::Policy;
use expression::cel::{Expression, FactPath, Guard, GuardReading, Probe, Test};
use expression::facts::Facts;
use expression::small_sort;

/// The minimum number of policies to index. Checking fewer policies one by one is faster.
const WORTH_IT: usize = 16;

/// An index of some policies of a plan. The policies are identified by their positions in it.
#[derive(Debug, Default)]
pub(super) struct PolicyIndex {
    /// The policies without a plain comparison to index.
    always: Vec<usize>,
    facts: Vec<Indexed>,
    /// Sorted and without repeats. See [`key`].
    keys: Vec<String>,
    /// The policies of each key, parallel to `keys`.
    places: Vec<Vec<usize>>,
}

/// A fact by which policies are found.
#[derive(Debug)]
struct Indexed {
    fact: FactPath,
    probe: Probe,
    /// The distinct lengths of the prefixes that are compared, in bytes.
    lengths: Vec<usize>,
    /// All policies that compare the fact.
    all: Vec<usize>,
}

impl PolicyIndex {
    /// Indexes the policies at these positions by the facts that are `usable`.
    pub fn new(policies: &[CompiledPolicy], places: &[usize], usable: fn(&FactPath) -> bool) -> Self {
        let alone = precedence::stand_alone(policies);
        let is_alone = |place: usize| places.len() >= WORTH_IT && alone.get(place) == Some(&true);
        let asked = |place: usize| {
            let planned = policies.get(place).filter(|_| is_alone(place))?;
            guards(&planned.policy, usable)
        };
        let asked: Vec<_> = places.iter().map(|place| (*place, asked(*place))).collect();
        let guards = asked.iter().flat_map(|(_, guards)| guards).flatten().flatten();
        let mut keys: Vec<String> = guards.flat_map(|guard| &guard.tests).map(of_test).collect();
        small_sort::sort(&mut keys);
        let mut index = Self::default();
        let mut chosen: Vec<(usize, Guard)> = Vec::new();
        for (place, guards) in asked {
            match guards {
                Some(guards) => {
                    let rarest = guards.into_iter().filter_map(|guards| rarest(guards, &keys));
                    chosen.extend(rarest.map(|guard| (place, guard)));
                }
                None => index.always.push(place),
            }
        }
        keys.dedup();
        index.places = vec![Vec::new(); keys.len()];
        index.keys = keys;
        chosen.into_iter().for_each(|(place, guard)| index.add(place, guard));
        index
    }

    fn add(&mut self, place: usize, guard: Guard) {
        for test in guard.tests {
            let key = of_test(&test);
            let places = self.keys.binary_search(&key).ok().and_then(|at| self.places.get_mut(at));
            places.into_iter().for_each(|places| places.push(place));
            let Some(known) = self.fact(test.fact) else { return self.always.push(place) };
            known.all.push(place);
            if test.prefix && !known.lengths.contains(&test.text.len()) {
                known.lengths.push(test.text.len());
            }
        }
    }

    fn fact(&mut self, fact: FactPath) -> Option<&mut Indexed> {
        if let Some(known) = self.facts.iter().position(|known| known.fact == fact) {
            return self.facts.get_mut(known);
        }
        let probe = Probe::new(&fact)?;
        let (lengths, all) = (Vec::new(), Vec::new());
        self.facts.push(Indexed { fact, probe, lengths, all });
        self.facts.last_mut()
    }

    /// Returns whether `is` is true for any policy that may concern this request.
    pub fn any(&self, facts: &Facts, is: impl FnMut(usize) -> bool) -> bool {
        let mut found = Vec::new();
        self.by_facts(facts, &mut found);
        self.always.iter().copied().chain(found).any(is)
    }

    /// Returns the policies that may concern this request, in order and without repeats.
    pub fn find(&self, facts: &Facts) -> Vec<usize> {
        let mut found = self.always.clone();
        self.by_facts(facts, &mut found);
        small_sort::sort(&mut found);
        found.dedup();
        found
    }

    fn by_facts(&self, facts: &Facts, found: &mut Vec<usize>) {
        for known in &self.facts {
            match known.probe.read(facts) {
                GuardReading::Text(text) => {
                    found.extend_from_slice(self.at(&key(&known.fact, &text, false)));
                    for beginning in known.lengths.iter().filter_map(|length| text.get(..*length)) {
                        found.extend_from_slice(self.at(&key(&known.fact, beginning, true)));
                    }
                }
                GuardReading::Absent => {}
                GuardReading::Other => found.extend_from_slice(&known.all),
            }
        }
    }

    fn at(&self, key: &String) -> &[usize] {
        let at = self.keys.binary_search(key).ok();
        at.and_then(|at| self.places.get(at)).map_or(&[], Vec::as_slice)
    }
}

/// Returns the key to look up. It consists of the fact, whether the text is a prefix or the whole value, and
/// the text.
fn key(fact: &FactPath, text: &str, prefix: bool) -> String {
    let mut key = fact.join("\0");
    key.push_str(if prefix { "\0^" } else { "\0=" });
    key.push_str(text);
    key
}

fn of_test(test: &Test) -> String {
    key(&test.fact, &test.text, test.prefix)
}

/// Returns the guards of the policy itself, or else those of each of its limits. One guard from each list
/// suffices for the index. `None` if one of the lists would be empty.
fn guards(policy: &Policy, usable: fn(&FactPath) -> bool) -> Option<Vec<Vec<Guard>>> {
    let plain = |guard: &Guard| !guard.tests.is_empty() && guard.tests.iter().all(|test| usable(&test.fact));
    let of = |when: &[Expression]| {
        let said = when.iter().filter(|predicate| !predicate.is_of_body());
        let said: Vec<Guard> = said.flat_map(Expression::guards).filter(plain).collect();
        (!said.is_empty()).then_some(said)
    };
    match of(&policy.when) {
        Some(guards) => Some(vec![guards]),
        None => policy.limits.iter().map(|limit| of(&limit.when)).collect(),
    }
}

/// Returns the guard that the fewest policies share, according to all keys.
fn rarest(guards: Vec<Guard>, keys: &[String]) -> Option<Guard> {
    let common = |test: &Test| {
        let key = of_test(test);
        let upto = keys.partition_point(|known| *known <= key);
        upto.saturating_sub(keys.partition_point(|known| *known < key))
    };
    guards.into_iter().min_by_key(|guard| guard.tests.iter().map(common).fold(0, usize::saturating_add))
}
