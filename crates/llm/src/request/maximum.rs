//! The client's own maximum of output: which fields count in which dialect, and which one to set where it gave none.

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
    /// A field of the body itself that only one kind of server knows, by number.
    Other(u8),
    Setting(Settings),
}

/// What is known of each field, in the order of [`FIELDS`].
///
/// A whole number of 1 to 2^53 is a maximum, however it is written (`5.0`, `0.5e1`). Anything else is absent:
/// negative and larger numbers, fractions, texts and what is no number. What only some servers heed (a number in
/// quotes, a key in another case, a field of another API, a field of an object that nobody here knows) makes a hold
/// larger, never smaller.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Maxima {
    fields: [Given; FIELDS.len()],
    /// The largest of all that any server may heed, wherever it stands.
    possible: u64,
    /// The sum of those in the elements of lists that nobody here knows.
    elements: u64,
}

/// One field.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    /// A repeated key counts with its largest value: which one the server takes is not for us to know.
    largest: Option<u64>,
    /// The first value, if there is any.
    first: Option<Option<u64>>,
    /// Another value than the first.
    differs: bool,
    /// One that is absent, or as good as that.
    is_absent: bool,
    /// Given under a key in another case.
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

    /// A value, or what is none.
    pub(crate) fn add(&mut self, kind: MaximumField, value: Option<u64>) {
        self.add_possible(value);
        let Some(given) = self.at(kind) else { return };
        given.differs |= given.first.is_some_and(|first| first != value);
        given.first.get_or_insert(value);
        given.largest = given.largest.max(value);
        given.is_absent |= value.is_none();
    }

    /// A value that some servers may heed.
    pub(crate) fn add_possible(&mut self, value: Option<u64>) {
        self.possible = self.possible.max(value.unwrap_or_default());
    }

    /// A value in an element of a list: a server that heeds it generates as much for each of them.
    pub(crate) fn add_element(&mut self, value: Option<u64>) {
        self.add_possible(value);
        self.elements = self.elements.saturating_add(value.unwrap_or_default());
    }

    /// A value under a key in another case.
    pub(crate) fn add_variant(&mut self, kind: MaximumField, value: Option<u64>) {
        self.add_possible(value);
        let Some(given) = self.at(kind) else { return };
        given.differs |= given.variant.is_some_and(|variant| variant != value);
        given.variant.get_or_insert(value);
    }

    /// Those that the server heeds. One that it ignores must not make the hold small.
    fn heeded(&self, route: &Route) -> impl Iterator<Item = &Given> {
        self.fields
            .iter()
            .zip(FIELDS)
            .filter(|(given, _)| given.first.is_some() || given.variant.is_some())
            .filter(|(_, field)| (route.dialect.rules().heeds)(route.operation, *field))
            .map(|(given, _)| given)
    }

    /// The largest of those that the server heeds.
    pub(crate) fn largest(&self, route: &Route) -> Option<u64> {
        self.heeded(route).filter_map(|given| given.largest).max()
    }

    /// The largest that any server may heed, or 0.
    pub(crate) fn possible(&self) -> u64 {
        self.possible
    }

    /// What all elements of lists ask for together, or 0.
    pub(crate) fn of_elements(&self) -> u64 {
        self.elements
    }

    /// One that it heeds is given twice, with values that differ.
    pub(crate) fn conflict(&self, route: &Route) -> bool {
        let conflicts = |given: &Given| {
            let both = given.first.zip(given.variant);
            given.differs || both.is_some_and(|(exact, variant)| exact != variant)
        };
        self.heeded(route).any(conflicts)
    }

    /// One that it heeds is given under a key in another case only.
    pub(crate) fn only_in_another_case(&self, route: &Route) -> bool {
        self.heeded(route).any(|given| given.first.is_none() && given.variant.flatten().is_some())
    }

    /// A maximum is given, and beside it that there is none: which of them the server takes is not for us to know.
    pub(crate) fn is_unsure(&self, route: &Route) -> bool {
        self.heeded(route).any(|given| given.largest.is_some() && given.is_absent)
    }
}

/// The names of a field, one list for each step down from the body; the first of each list is the one to add.
pub(crate) type FieldPath = &'static [&'static [&'static str]];

/// What tells where a body's maximum belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CapTarget<'a> {
    pub(crate) operation: Operation,
    pub(crate) route: &'a Route,
    pub(crate) model: &'a str,
    pub(crate) shape: Shape,
}

/// What a body without a telling path looks like, as far as it decides the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Plain,
    /// `anthropic_version`.
    Anthropic,
    /// `inputText`.
    Titan,
    /// `inputs`.
    TextGenerationInference,
}

/// Whether a key is some server's name for a maximum, in any case and with any hyphens and underscores.
pub(super) fn is_maximum(key: &[u8]) -> bool {
    let (mut folded, mut name, mut length) = ([0; MAX_NAME], [0; 20], 0usize);
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
            | b"numpredict"
            | b"npredict"
            | b"requestoutputlen"
    )
}
