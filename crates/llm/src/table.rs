//! Tables of names that several files declare. The compiler joins and indexes them. The tables are data,
//! because code for so many comparisons would be many times as large.

use crate::words::is_same;

/// A member of an object: its object, its name, and the place that it leads to.
pub(crate) type Member<P, V> = (P, &'static str, V);

/// The longest name, in bytes.
pub(crate) const MAX_NAME: usize = 48;

/// The number of groups.
const GROUPS: usize = 256;

/// Members, grouped by a cheap hash of their names.
#[derive(Debug)]
pub(crate) struct NameTable<P: 'static, V: 'static> {
    members: &'static [Member<P, V>],
    /// The start of each group, and the end of the last one.
    begin: [u16; GROUPS + 1],
}

impl<P: Copy + PartialEq, V: Copy> NameTable<P, V> {
    /// Creates a table of members, which [`joined`] must have sorted.
    pub(crate) const fn new(members: &'static [Member<P, V>]) -> Self {
        Self { members, begin: beginnings(&[members]) }
    }

    /// Returns the place that a member leads to.
    pub(crate) fn find(&self, of: P, key: &[u8]) -> Option<V> {
        self.all(of, key).next()
    }

    /// Returns the places that all members with this name lead to, in the order of the table.
    pub(crate) fn all(&self, of: P, key: &[u8]) -> impl Iterator<Item = V> {
        let at = group(key);
        let [begin, end] =
            [at, at.saturating_add(1)].map(|at| self.begin.get(at).copied().unwrap_or_default());
        let members = self.members.get(usize::from(begin)..usize::from(end)).unwrap_or_default();
        let is_it = move |(parent, name, _): &&Member<P, V>| {
            name.len() == key.len() && *parent == of && is_same(name.as_bytes(), key)
        };
        members.iter().filter(is_it).map(|(_, _, leads_to)| *leads_to)
    }

    #[cfg(test)]
    pub(crate) fn members(&self) -> &'static [Member<P, V>] {
        self.members
    }
}

const fn group(name: &[u8]) -> usize {
    match name {
        [first, .., last] => (name.len() + *first as usize * 5 + *last as usize * 27) % GROUPS,
        _ => name.len(),
    }
}

/// Returns the total number of elements in several lists.
pub(crate) const fn count<T>(mut lists: &[&[T]]) -> usize {
    let mut sum = 0;
    while let Some((list, others)) = lists.split_first() {
        (sum, lists) = (sum + list.len(), others);
    }
    sum
}

/// Returns the start of each group, if the members are sorted by group.
const fn beginnings<P, V>(mut lists: &[&[Member<P, V>]]) -> [u16; GROUPS + 1] {
    let mut begin = [0; GROUPS + 1];
    while let Some((list, others)) = lists.split_first() {
        let mut members = *list;
        while let Some(((_, name, _), further)) = members.split_first() {
            assert!(name.len() <= MAX_NAME, "a name is too long");
            // Each later group begins one member later.
            let (_, mut after) = begin.split_at_mut(group(name.as_bytes()) + 1);
            while let Some((first, rest)) = after.split_first_mut() {
                *first += 1;
                after = rest;
            }
            members = further;
        }
        lists = others;
    }
    begin
}

/// Joins several lists of members and sorts them by group. `N` is the total number of members.
pub(crate) const fn joined<P: Copy, V: Copy, const N: usize>(
    mut lists: &[&[Member<P, V>]],
    any: Member<P, V>,
) -> [Member<P, V>; N] {
    let (mut all, mut next) = ([any; N], beginnings(lists));
    while let Some((list, others)) = lists.split_first() {
        let mut members = *list;
        while let Some((member, further)) = members.split_first() {
            let (_, groups) = next.split_at_mut(group(member.1.as_bytes()));
            if let Some((place, _)) = groups.split_first_mut() {
                let (_, free) = all.split_at_mut(*place as usize);
                if let Some((free, _)) = free.split_first_mut() {
                    *free = *member;
                }
                *place += 1;
            }
            members = further;
        }
        lists = others;
    }
    all
}

/// Joins several lists. `N` is the total number of elements.
pub(crate) const fn flat<T: Copy, const N: usize>(mut lists: &[&[T]], any: T) -> [T; N] {
    let mut all = [any; N];
    let mut free: &mut [T] = &mut all;
    while let Some((list, others)) = lists.split_first() {
        let (now, later) = free.split_at_mut(list.len());
        now.copy_from_slice(list);
        (free, lists) = (later, others);
    }
    all
}
