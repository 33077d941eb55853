//! Members of a JSON object as they stand in its text, so that they can be read or replaced where they are. In:
//! text. Out: the values of the wanted keys, or nothing if the text is no valid JSON object. Built on `serde_json`,
//! which judges validity, and does not recurse into what nobody wants.

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// What was found in an object.
#[derive(Debug, Default)]
pub(super) struct Members<'a> {
    /// Index of the wanted key, and the text of its value; repeated keys in their order.
    pub(super) found: Vec<(usize, &'a str)>,
    /// The object has no members at all.
    pub(super) empty: bool,
}

/// Looks for the members with these keys, however the keys are escaped.
pub(super) fn members<'a>(object: &'a str, wanted: &[&str]) -> Option<Members<'a>> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let members = deserializer.deserialize_map(Object(wanted)).ok()?;
    deserializer.end().ok()?;
    Some(members)
}

/// The text of the element with this index.
pub(super) fn element(array: &str, index: usize) -> Option<&str> {
    let mut deserializer = serde_json::Deserializer::from_str(array);
    let element = deserializer.deserialize_seq(Array(index)).ok()?;
    deserializer.end().ok()?;
    element
}

struct Array(usize);

impl<'de> Visitor<'de> for Array {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Option<&'de str>, A::Error> {
        for _ in 0..self.0 {
            if array.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let element = array.next_element::<&'de RawValue>()?.map(RawValue::get);
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(element)
    }
}

struct Object<'w>(&'w [&'w str]);

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members { found: Vec::new(), empty: true };
        while let Some(key) = map.next_key::<&'de RawValue>()? {
            members.empty = false;
            match index(key, self.0) {
                Some(key) => members.found.push((key, map.next_value::<&'de RawValue>()?.get())),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// Which of the wanted keys this one is. Half a surrogate pair is no text, and no key of ours, and still valid.
fn index(key: &RawValue, wanted: &[&str]) -> Option<usize> {
    let key = key.get();
    if key.contains('\\') {
        let key = serde_json::from_str::<String>(key).ok()?;
        return wanted.iter().position(|wanted| *wanted == key);
    }
    let key = key.strip_prefix('"')?.strip_suffix('"')?;
    wanted.iter().position(|wanted| *wanted == key)
}
