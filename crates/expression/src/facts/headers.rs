//! Headers by their names.

use llm::words::is_same;

/// The number of headers up to which the names are not sorted. Comparing the lengths of so few names is faster.
const FEW: usize = 32;

/// A map from lower-case names to values. Most requests have few headers. If there are more than [`FEW`], they are
/// sorted by name, so that a client cannot slow the filter down with many headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMap(Vec<(String, String)>);

impl HeaderMap {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(self.find(name).ok()?).map(|(_, value)| value.as_str())
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut String> {
        let at = self.find(name).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Returns the index of a header, or the index for a new header with this name.
    fn find(&self, name: &str) -> Result<usize, usize> {
        if self.0.len() > FEW {
            return self.0.binary_search_by(|(known, _)| known.as_str().cmp(name));
        }
        self.0.iter().position(|(known, _)| is_it(known, name)).ok_or(self.0.len())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a header, or replaces its value.
    pub fn insert(&mut self, name: String, value: String) {
        match self.find(&name) {
            Ok(at) => {
                if let Some((_, known)) = self.0.get_mut(at) {
                    *known = value;
                }
            }
            Err(at) => {
                self.0.insert(at, (name, value));
                if self.0.len() == FEW.saturating_add(1) {
                    self.0.sort_unstable();
                }
            }
        }
    }

    /// Removes a header.
    pub fn remove(&mut self, name: &str) {
        self.retain(|known| known != name);
    }

    /// Keeps only the headers with names for which `keep` returns true.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// All headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_it(known: &str, name: &str) -> bool {
    known.len() == name.len() && is_same(known.as_bytes(), name.as_bytes())
}

impl FromIterator<(String, String)> for HeaderMap {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(headers: T) -> Self {
        let mut map = Self::default();
        headers.into_iter().for_each(|(name, value)| map.insert(name, value));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_each_header_and_no_other() {
        let names = ["b", "a", "host", "date", "", "x-tier", "accept", "content-type"];
        let headers = names.iter().map(|name| ((*name).to_owned(), name.to_uppercase()));
        let mut map: HeaderMap = headers.collect();
        for name in names {
            assert_eq!(map.get(name), Some(&*name.to_uppercase()), "{name}");
        }
        assert_eq!((map.get("c"), map.get("dat"), map.get("x-tie"), map.len()), (None, None, None, 8));
        map.insert("host".to_owned(), "other".to_owned());
        map.remove("date");
        assert_eq!((map.get("host"), map.get("date"), map.len()), (Some("other"), None, 7));
    }

    #[test]
    fn many_headers_are_found_in_any_order() {
        let name = |number: usize| format!("x-{}", number * 7 % 100);
        let mut map = HeaderMap::default();
        for number in 0..100 {
            map.insert(name(number), number.to_string());
            for known in 0..100 {
                let expected = (known <= number).then(|| known.to_string());
                assert_eq!(map.get(&name(known)), expected.as_deref(), "{known} of {number}");
            }
        }
        // Few headers remain, and then there are many again.
        map.retain(|name| name.len() < 4);
        for number in 0..100 {
            map.insert(name(number), format!("new {number}"));
        }
        assert_eq!(map.len(), 100);
        assert!((0..100).all(|number| map.get(&name(number)) == Some(&*format!("new {number}"))));
    }
}
