//! The client's own maximum output: which fields count in which dialect, and which field to set if there is
//! none.

use super::names::{self, MAX_NAME};
use super::place::{Place, Settings};
use super::route::Route;
use super::{Dialect, Operation};

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

/// A set of fields for a maximum: the fields of a request that its server is known to honour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaximumFields(u16);

impl MaximumFields {
    /// Returns whether there is such a field.
    pub fn is_any(self) -> bool {
        self.0 != 0
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
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
    /// Whether a server may ignore all of these values: it reads another one that means that there is no maximum, or
    /// settings that were not read.
    is_unsure: bool,
    /// The objects of settings that the body contains.
    settings: [bool; OBJECTS.len()],
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
    /// Whether one of the values is negative.
    is_unlimited: bool,
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

/// The objects of settings in a body.
const OBJECTS: [Settings; 5] = [
    Settings::Generation,
    Settings::Inference,
    Settings::Options,
    Settings::TextGeneration,
    Settings::Parameters,
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

    /// Records a negative value, which means that there is no maximum.
    pub(super) fn add_unlimited(&mut self, place: Place) {
        match place {
            Place::Maximum(field) | Place::MaximumVariant(field) => {
                if let Some(given) = self.at(field) {
                    given.is_unlimited = true;
                }
            }
            Place::PossibleMaximum | Place::ElementMaximum => self.is_unsure = true,
            _ => {}
        }
    }

    /// Records that settings were not read.
    pub(super) fn set_unsure(&mut self) {
        self.is_unsure = true;
    }

    /// Records an object of settings. If there are two, it is unknown which one the server uses.
    pub(super) fn open_settings(&mut self, settings: Settings) {
        let known = self.settings.iter_mut().zip(OBJECTS).find(|(_, of)| *of == settings);
        if let Some((is_given, _)) = known {
            self.is_unsure |= std::mem::replace(is_given, true);
        }
    }

    /// Adds the maxima of settings in a string.
    pub(super) fn add_settings(&mut self, settings: &Maxima) {
        self.add_element(Some(settings.possible));
        self.is_unsure |= settings.is_unsure || settings.fields.iter().any(|given| given.is_unlimited);
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

    /// Returns the fields with a value that the server honours.
    pub(crate) fn fields(&self, route: &Route) -> MaximumFields {
        let heeds = route.dialect.rules().heeds;
        let is_given = |(given, field): &(&Given, MaximumField)| {
            given.largest.is_some() && heeds(route.operation, *field)
        };
        let flags = self.fields.iter().zip(FIELDS).map(|one| u16::from(is_given(&one)));
        MaximumFields(flags.fold(0, |set, flag| set << 1 | flag))
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

    /// Returns whether the server may use no maximum although there is one, for example because a field has both a
    /// maximum and a value that counts as absent.
    pub(crate) fn is_unsure(&self, route: &Route) -> bool {
        let is_known = |field| (route.dialect.rules().heeds)(route.operation, field);
        let mut fields = self.fields.iter().zip(FIELDS);
        // A server may prefer the field of another API.
        let is_any = route.dialect == Dialect::Unknown;
        let is_removed = fields.any(|(given, field)| given.is_unlimited && (is_any || !is_known(field)));
        let is_repeated = self.heeded(route).any(|given| given.largest.is_some() && given.is_absent);
        self.is_unsure || is_removed || is_repeated
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

/// Returns whether a key is a name for a maximum, or for another setting that determines how much is generated:
/// `max_new_tokens`, `thinkingBudget`, `min-tokens`. Every word in it must be known. Upper case, hyphens and
/// underscores do not matter.
pub(super) fn is_maximum(key: &[u8]) -> bool {
    // `maxLength` is a part of JSON schemas.
    if matches!(key, b"max_length" | b"genamt") {
        return true;
    }
    // This is called for each unknown key. Nearly none of them is long enough and begins with such a word.
    let begins = key.first().is_some_and(|first| !words(first.to_ascii_lowercase()).is_empty());
    if key.len() < SHORTEST || !begins {
        return false;
    }
    let mut name = [0; NAME];
    let Some(mut rest) = normal(key, &mut name) else { return false };
    let mut meaning = 0;
    while let Some(first) = rest.first() {
        let Some((word, bits)) = words(*first).iter().find(|(word, _)| rest.starts_with(word)) else {
            return false;
        };
        meaning |= bits;
        rest = rest.get(word.len()..).unwrap_or_default();
    }
    let has = |bits: u16| meaning & bits == bits;
    has(BOUND | TOKENS)
        || has(BOUND | OUTPUT | SIZE)
        || has(NUMBER | OUTPUT | TOKENS)
        || has(LENGTH | OUTPUT)
        || has(BUDGET | OUTPUT)
        || has(NUMBER | PREDICT)
        || has(TOKENS | TO | OUTPUT)
}

/// The shortest name of a maximum, in bytes.
const SHORTEST: usize = 7;

/// The longest name of a maximum.
const NAME: usize = 32;

const BOUND: u16 = 1;
const BUDGET: u16 = 1 << 1;
const NUMBER: u16 = 1 << 2;
const TOKENS: u16 = 1 << 3;
const LENGTH: u16 = 1 << 4;
const OUTPUT: u16 = 1 << 5;
const PREDICT: u16 = 1 << 6;
const TO: u16 = 1 << 7;
const SIZE: u16 = 1 << 8;

/// Returns the words in names of maxima that begin with this letter. Longer words come before their prefixes.
fn words(first: u8) -> &'static [(&'static [u8], u16)] {
    match first {
        b'a' => &[(b"answer", OUTPUT)],
        b'b' => &[(b"budget", BOUND | BUDGET)],
        b'c' => &[(b"completion", OUTPUT), (b"count", 0)],
        b'd' => &[(b"decode", OUTPUT), (b"dec", OUTPUT)],
        b'g' => &[(b"generation", OUTPUT), (b"generated", OUTPUT), (b"generate", OUTPUT), (b"gen", OUTPUT)],
        b'l' => &[(b"length", LENGTH), (b"limit", BOUND), (b"len", LENGTH)],
        b'm' => &[(b"maximum", BOUND), (b"minimum", BOUND), (b"max", BOUND), (b"min", BOUND)],
        b'n' => &[(b"number", NUMBER), (b"num", NUMBER), (b"new", OUTPUT), (b"n", NUMBER)],
        b'o' => &[(b"output", OUTPUT), (b"of", 0)],
        b'p' => &[(b"predict", PREDICT)],
        b'r' => &[(b"reasoning", OUTPUT), (b"response", OUTPUT), (b"request", 0)],
        b's' => &[(b"sample", OUTPUT), (b"size", SIZE)],
        b't' => &[
            (b"thinking", OUTPUT),
            (b"tokens", TOKENS),
            (b"token", TOKENS),
            (b"toks", TOKENS),
            (b"tok", TOKENS),
            (b"to", TO),
        ],
        _ => &[],
    }
}

/// Returns whether a key is a name for the number of results of a prompt.
pub(super) fn is_completions(key: &[u8]) -> bool {
    if !matches!(key.first(), Some(b'n' | b'N' | b'b' | b'B' | b's' | b'S' | b'c' | b'C')) {
        return false;
    }
    let mut name = [0; NAME];
    matches!(
        normal(key, &mut name),
        Some(
            b"n" | b"ncmpl"
                | b"bestof"
                | b"samplecount"
                | b"candidatecount"
                | b"numgenerations"
                | b"numcompletions"
                | b"numreturnsequences"
        )
    )
}

/// Converts a key to lower case without separators. Returns `None` if it is too long.
fn normal<'b>(key: &[u8], name: &'b mut [u8; NAME]) -> Option<&'b [u8]> {
    let mut folded = [0; MAX_NAME];
    let (key, mut length) = (names::folded(key, &mut folded).unwrap_or(key), 0usize);
    for byte in key.iter().filter(|byte| !matches!(byte, b'_' | b'-')) {
        *name.get_mut(length)? = *byte;
        length = length.saturating_add(1);
    }
    name.get(..length)
}
