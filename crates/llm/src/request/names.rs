//! The names of members of requests, and the places that they lead to.

mod shared;

use super::place::{Object, Place, RequestField};
use crate::providers::lists;
use crate::table::{self, NameTable};

/// The longest name.
pub(super) const MAX_NAME: usize = table::MAX_NAME;

const LISTS: &[&[RequestField]] = lists!(RequestField, request, shared::SHARED);

static ORDERED: [RequestField; table::count(LISTS)] = table::joined(LISTS, (Object::Body, "", Place::Root));

/// The names of all providers.
pub(super) static NAMES: NameTable<Object, Place> = NameTable::new(&ORDERED);

/// Converts a key for servers that ignore case: ASCII to lower case, and the two other letters that fold to
/// ASCII, the long s and the Kelvin sign. Returns `None` if the key is in lower case already, or longer than
/// any name.
pub(super) fn folded<'b>(key: &[u8], buffer: &'b mut [u8; MAX_NAME]) -> Option<&'b [u8]> {
    if !key.iter().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        return None;
    }
    let (mut rest, mut length) = (key, 0usize);
    while let [first, after @ ..] = rest {
        let (byte, after) = match rest {
            [0xc5, 0xbf, after @ ..] => (b's', after),
            [0xe2, 0x84, 0xaa, after @ ..] => (b'k', after),
            _ => (first.to_ascii_lowercase(), after),
        };
        *buffer.get_mut(length)? = byte;
        length = length.saturating_add(1);
        rest = after;
    }
    buffer.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::maximum::{Maxima, is_maximum};

    #[test]
    fn every_name_leads_to_one_place() {
        let names = NAMES.members();
        for (object, name, place) in names {
            assert_eq!(
                NAMES.find(*object, name.as_bytes()),
                Some(*place),
                "{object:?}: {name} is declared twice"
            );
        }
        for key in ["", "nobody", &"x".repeat(MAX_NAME), &"x".repeat(MAX_NAME + 1), &"x".repeat(1000)] {
            assert_eq!(NAMES.find(Object::Body, key.as_bytes()), None);
        }
    }

    #[test]
    fn every_maximum_is_kept() {
        for (object, name, place) in NAMES.members() {
            if let Place::Maximum(field) | Place::MaximumVariant(field) = place {
                assert!(
                    Maxima::keeps(*field),
                    "{object:?}: {name}: {field:?} is not in FIELDS of maximum.rs"
                );
                assert!(is_maximum(name.as_bytes()), "{name} is not in is_maximum of maximum.rs");
            }
        }
    }

    /// Other places would hide a maximum.
    #[test]
    fn no_name_of_a_maximum_has_another_place() {
        for (object, name, place) in NAMES.members() {
            let is_known = matches!(place, Place::Maximum(_) | Place::MaximumVariant(_));
            assert!(is_known || !is_maximum(name.as_bytes()), "{object:?}: {name}");
        }
    }

    #[test]
    fn case_is_folded_as_go_folds_it() {
        let folded = |key: &str| folded(key.as_bytes(), &mut [0; MAX_NAME]).map(<[u8]>::to_vec);
        for (key, expected) in [
            ("MODEL", Some("model")),
            ("max_to\u{212a}en\u{17f}", Some("max_tokens")),
            ("\u{17f}tream", Some("stream")),
            ("model", None),
            ("", None),
        ] {
            assert_eq!(folded(key), expected.map(|key| key.as_bytes().to_vec()), "{key}");
        }
        assert_eq!(folded(&"X".repeat(MAX_NAME + 1)), None);
    }
}
