//! The client's own maximum output: which fields count in which dialect, and which field to set if there is
//! none.

use super::Operation;
use super::names::{self, MAX_NAME};
use super::place::Settings;
use super::route::Route;

/// A field for a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaximumField {
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    MaxTokensToSample,
    /// A numbered field of the body that only one kind of server knows.
    Other(u8),
    Setting(Settings),
}

/// The values of each field, in the order of [`FIELDS`].
///
/// An integer from 1 to 2^53 is a maximum, in any notation (`5.0`, `0.5e1`). Anything else counts as absent:
/// negative and larger numbers, fractions, and strings. A value that only some servers honour (a number in
/// quotes, a key in another case, a field of another API, a field in an unknown object) can only increase a
/// hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Maxima {
    fields: [Given; FIELDS.len()],
    /// The largest value that any server may honour, in any place.
    possible: u64,
    /// The sum of the values in elements of unknown lists.
    elements: u64,
}

/// One field.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    /// If a key is repeated, its largest value counts, since it is unknown which one the server uses.
    largest: Option<u64>,
    /// The first value, if there is any.
    first: Option<Option<u64>>,
    /// Whether a later value differs from the first.
    differs: bool,
    /// Whether one of the values counts as absent.
    is_absent: bool,
    /// A value under a key in another case.
    variant: Option<Option<u64>>,
}

const FIELDS: [MaximumField; 15] = [
    MaximumField::MaxTokens,
    MaximumField::MaxCompletionTokens,
    MaximumField::MaxOutputTokens,
    MaximumField::MaxTokensToSample,
    MaximumField::Other(0),
    MaximumField::Other(1),
    MaximumField::Other(2),
    MaximumField::Other(3),
    MaximumField::Other(4),
    MaximumField::Other(5),
    MaximumField::Setting(Settings::Generation),
    MaximumField::Setting(Settings::Inference),
    MaximumField::Setting(Settings::Options),
    MaximumField::Setting(Settings::TextGeneration),
    MaximumField::Setting(Settings::Parameters),
];

impl Maxima {
    #[cfg(test)]
    pub(super) fn keeps(field: MaximumField) -> bool {
        FIELDS.contains(&field)
    }

    fn at(&mut self, kind: MaximumField) -> Option<&mut Given> {
        self.fields.iter_mut().zip(FIELDS).find_map(|(given, of)| (of == kind).then_some(given))
    }

    /// Adds a value, or `None` for a value that is not a maximum.
    pub(crate) fn add(&mut self, kind: MaximumField, value: Option<u64>) {
        self.add_possible(value);
        let Some(given) = self.at(kind) else { return };
        given.differs |= given.first.is_some_and(|first| first != value);
        given.first.get_or_insert(value);
        given.largest = given.largest.max(value);
        given.is_absent |= value.is_none();
    }

    /// Adds a value that some servers may honour.
    pub(crate) fn add_possible(&mut self, value: Option<u64>) {
        self.possible = self.possible.max(value.unwrap_or_default());
    }

    /// Adds a value in an element of a list. A server that honours it generates that much for each element.
    pub(crate) fn add_element(&mut self, value: Option<u64>) {
        let value = value.unwrap_or_default();
        self.add_elements(value, value);
    }

    /// Adds the values of several elements: the largest one, and their sum.
    pub(crate) fn add_elements(&mut self, largest: u64, sum: u64) {
        self.add_possible(Some(largest));
        self.elements = self.elements.saturating_add(sum);
    }

    /// Adds a value under a key in another case.
    pub(crate) fn add_variant(&mut self, kind: MaximumField, value: Option<u64>) {
        self.add_possible(value);
        let Some(given) = self.at(kind) else { return };
        given.differs |= given.variant.is_some_and(|variant| variant != value);
        given.variant.get_or_insert(value);
    }

    /// Returns the fields that the server honours. A field that it ignores must not reduce the hold.
    fn heeded(&self, route: &Route) -> impl Iterator<Item = &Given> {
        self.fields
            .iter()
            .zip(FIELDS)
            .filter(|(given, _)| given.first.is_some() || given.variant.is_some())
            .filter(|(_, field)| (route.dialect.rules().heeds)(route.operation, *field))
            .map(|(given, _)| given)
    }

    /// Returns the largest value that the server honours.
    pub(crate) fn largest(&self, route: &Route) -> Option<u64> {
        self.heeded(route).filter_map(|given| given.largest).max()
    }

    /// Returns the largest value that any server may honour, or 0.
    pub(crate) fn possible(&self) -> u64 {
        self.possible
    }

    /// Returns the sum over all elements of lists, or 0.
    pub(crate) fn of_elements(&self) -> u64 {
        self.elements
    }

    /// Returns whether a field that the server honours is given twice with different values.
    pub(crate) fn conflict(&self, route: &Route) -> bool {
        let conflicts = |given: &Given| {
            let both = given.first.zip(given.variant);
            given.differs || both.is_some_and(|(exact, variant)| exact != variant)
        };
        self.heeded(route).any(conflicts)
    }

    /// Returns whether a field that the server honours is given only under a key in another case.
    pub(crate) fn only_in_another_case(&self, route: &Route) -> bool {
        self.heeded(route).any(|given| given.first.is_none() && given.variant.flatten().is_some())
    }

    /// Returns whether a field has both a maximum and a value that counts as absent, so that it is unknown
    /// which one the server uses.
    pub(crate) fn is_unsure(&self, route: &Route) -> bool {
        self.heeded(route).any(|given| given.largest.is_some() && given.is_absent)
    }
}

/// The names of a field, one list for each level below the body. The first name of each list is the one to
/// add.
pub(crate) type FieldPath = &'static [&'static [&'static str]];

/// Identifies the field for a maximum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CapTarget<'a> {
    pub(crate) operation: Operation,
    pub(crate) route: &'a Route,
    pub(crate) model: &'a str,
    pub(crate) shape: Shape,
}

/// The form of a body with an unknown path, as far as it determines the field for a maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Plain,
    /// The body has `anthropic_version`.
    Anthropic,
    /// The body has `inputText`.
    Titan,
    /// The body has `inputs`.
    TextGenerationInference,
}

/// Returns whether a key is a known name for a maximum, ignoring case, hyphens and underscores.
pub(super) fn is_maximum(key: &[u8]) -> bool {
    // `maxLength` is a part of JSON schemas.
    if matches!(key, b"max_length" | b"genamt") {
        return true;
    }
    let (mut folded, mut name, mut length) = ([0; MAX_NAME], [0; 24], 0usize);
    let key = names::folded(key, &mut folded).unwrap_or(key);
    for byte in key.iter().filter(|byte| !matches!(byte, b'_' | b'-')) {
        let Some(place) = name.get_mut(length) else { return false };
        *place = *byte;
        length = length.saturating_add(1);
    }
    let name = name.get(..length).unwrap_or_default();
    matches!(
        name,
        b"maxtokens"
            | b"maxtokencount"
            | b"maxtokenstosample"
            | b"maxcompletiontokens"
            | b"maxoutputtokens"
            | b"maxnewtokens"
            | b"maxgeneratedtokens"
            | b"maxgenlen"
            | b"maximumtokens"
            | b"maxoutputsize"
            | b"maxoutputlength"
            | b"maxresponsetokens"
            | b"maxtokenstogenerate"
            | b"maxresponseoutputtokens"
            | b"numpredict"
            | b"npredict"
            | b"requestoutputlen"
    )
}
