//! Envoy's attributes, as the host returns them.

use super::{AttributeType, Fact, Facts, Origin, find, number};
use crate::identity::{self, IdentityError};

#[derive(Clone, Debug)]
pub(super) enum Property {
    Text(String),
    Number(i64),
    Bool(bool),
    Time(i64),
}

impl Facts {
    /// Adds an Envoy attribute as the host returned it. Strings are unchanged, numbers and times (in
    /// nanoseconds) are eight bytes in little-endian order, a bool is one byte, and messages are serialised.
    /// A value in any other form counts as absent.
    pub fn property(&mut self, path: &[String], value: &[u8]) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            path if path == Self::ROUTE_NAME => {
                self.route_name = (!self.route_in_doubt).then(|| String::from_utf8_lossy(value).into_owned());
            }
            ["metadata"] => match identity::every_namespace(value) {
                Ok(metadata) => self.metadata = Some(metadata),
                Err(error) => self.too_large.metadata = error == IdentityError::TooLarge,
            },
            ["filter_state", name] => {
                let text = String::from_utf8_lossy(value).into_owned();
                self.filter_state.insert((*name).to_owned(), text.into());
            }
            ["request", "headers", name] => self.header(name, value),
            [root, name] => {
                if let Some(attribute) = find(root, name).filter(|found| found.origin == Origin::Property) {
                    self.properties.retain(|(known, _)| *known != attribute);
                    self.properties.extend(decode(attribute.kind, value).map(|value| (attribute, value)));
                }
            }
            _ => {}
        }
    }

    pub(super) fn fetched(&self, root: &str, name: &str) -> Option<Fact<'_>> {
        let found = self.properties.iter().find(|(known, _)| known.root == root && known.name == name);
        found.map(|(_, property)| match property {
            Property::Text(value) => Fact::Text(value),
            Property::Number(value) => Fact::Number(*value),
            Property::Bool(value) => Fact::Bool(*value),
            Property::Time(value) => Fact::Time(*value),
        })
    }
}

fn decode(kind: AttributeType, value: &[u8]) -> Option<Property> {
    let eight = || <[u8; 8]>::try_from(value).ok();
    match kind {
        AttributeType::Text => Some(Property::Text(String::from_utf8_lossy(value).into_owned())),
        // All of Envoy's numbers here are ports, sizes or small ids, so signed and unsigned integers have the
        // same encoding.
        AttributeType::Number => eight().map(|bytes| Property::Number(number(u64::from_le_bytes(bytes)))),
        AttributeType::Time => eight().map(|bytes| Property::Time(i64::from_le_bytes(bytes))),
        AttributeType::Bool => match value {
            [byte] => Some(Property::Bool(*byte != 0)),
            _ => None,
        },
    }
}

/// `192.0.2.1:443` and `[2001:db8::1]:443` without the port and the brackets. Any other text, such as the
/// path of a pipe, stays as it is.
pub fn without_port(address: &str) -> &str {
    if let Some((inside, _)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside;
    }
    match address.split_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    }
}
