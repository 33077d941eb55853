//! Headers by their names.

use llm::words::is_same;

/// A map from lower-case names to values. A request has few headers, and few of their names have the same
/// length, so comparing the lengths of all names is faster than keeping the names sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMap(Vec<(String, String)>);

impl HeaderMap {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| is_it(known, name)).map(|(_, value)| value.as_str())
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut String> {
        self.0.iter_mut().find(|(known, _)| is_it(known, name)).map(|(_, value)| value)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a header, or replaces its value.
    pub fn insert(&mut self, name: String, value: String) {
        match self.get_mut(&name) {
            Some(known) => *known = value,
            None => self.0.push((name, value)),
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
}
