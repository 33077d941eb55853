//! The counts of one usage report under the provider's names, and their combined meaning.

use super::Usage;

/// A count by its meaning. Providers differ in what each includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// Input, including cache reads.
    Input,
    /// Input, possibly without cached tokens: `CacheRead` and `CacheWrite` are separate.
    FreshInput,
    CacheRead,
    CacheWrite,
    /// Cache writes with a lifetime of five minutes, and of an hour.
    CacheWrite5m,
    CacheWrite1h,
    /// The part of the input that was read from a cache.
    Cached,
    /// The part of the input that was written to a cache.
    Written,
    /// Output, possibly without reasoning.
    Output,
    /// The part of the output that is reasoning.
    Reasoning,
    /// Gemini's reasoning, not included in the output.
    Thoughts,
    /// Gemini's tool results, not included in the input.
    ToolUse,
    /// The results of Mistral's connectors, not included in the input.
    Connector,
    Total,
    /// Cohere bills numbers that differ from the numbers it uses. The billed numbers count if there are no
    /// others.
    BilledInput,
    BilledImages,
    BilledOutput,
    /// The input of one of several predictions. These inputs add up.
    Predicted,
    /// The output of one of several results. These outputs add up.
    Generated,
    /// The text that Perplexity read for the response, included in neither input nor total.
    Citation,
    /// Seconds of audio in the prompt. Mistral reports their tokens only in the total.
    AudioSeconds,
    /// A part of the input that has no field here. Such parts add up.
    InputPart,
    /// A part of the output that has no field here. Such parts add up.
    OutputPart,
}

const FIELDS: usize = 23;

/// The parts of the input in formats that count caches separately.
const INPUTS: &[Field] = &[Field::Input, Field::FreshInput, Field::CacheRead, Field::CacheWrite];

/// The cache writes by their lifetime.
const LIFETIMES: &[Field] = &[Field::CacheWrite5m, Field::CacheWrite1h];

/// The counts of one report.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    values: [u64; FIELDS],
    known: u32,
    /// Whether a count in another unit was reported: the call is metered, but not in tokens.
    pub(super) other_unit: bool,
}

/// The largest integer on which all JSON readers agree.
const MAX_COUNT: u64 = 1 << 53;

/// Numbers with at most this many digits are smaller than [`MAX_COUNT`].
const SHORT_COUNT: usize = 15;

impl Tally {
    /// Records a count. A later value replaces an earlier one, except that counts of several parts add up. A
    /// zero never replaces another value.
    pub(super) fn set(&mut self, field: Field, value: u64) {
        if let Some(place) = self.values.get_mut(field as usize) {
            let adds =
                matches!(field, Field::Predicted | Field::Generated | Field::InputPart | Field::OutputPart);
            *place = match value {
                _ if adds => place.saturating_add(value),
                0 => *place,
                value => value,
            };
            self.known |= bit(field);
        }
    }

    /// Removes a count that was replaced by something other than a number of tokens.
    pub(super) fn unset(&mut self, field: Field) {
        if let Some(place) = self.values.get_mut(field as usize) {
            *place = 0;
            self.known &= !bit(field);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known == 0 && !self.other_unit
    }

    /// Returns whether all counts are zero.
    pub(super) fn is_zero(&self) -> bool {
        !self.other_unit && self.values.iter().all(|value| *value == 0)
    }

    /// Returns whether the report has only a total. Other counts may be zero.
    pub(super) fn is_only_total(&self) -> bool {
        let is_zero = |(at, value): (usize, &u64)| *value == 0 || at == Field::Total as usize;
        self.known == bit(Field::Total)
            || self.total().is_some() && self.values.iter().enumerate().all(is_zero)
    }

    /// Returns whether the report is a constant in place of usage: one token of input, and one of output.
    pub(super) fn is_placeholder(&self) -> bool {
        let usage = self.usage();
        usage.input == 1 && usage.output == 1
    }

    /// Returns whether the report counts only something other than tokens.
    pub(super) fn is_of_other_unit(&self) -> bool {
        self.other_unit && self.values.iter().all(|value| *value == 0)
    }

    /// Returns whether any count includes the output.
    pub(super) fn tells_output(&self) -> bool {
        let output = [Field::Output, Field::Thoughts, Field::BilledOutput, Field::Generated];
        let rest = self.input().zip(self.total());
        output.into_iter().any(|field| self.or_zero(field) > 0)
            || rest.is_some_and(|(input, total)| total > input)
    }

    /// Returns whether no count includes the input.
    pub(super) fn lacks_input(&self) -> bool {
        self.total().is_none() && self.input().unwrap_or(0) == 0
    }

    /// Returns whether the report has any count other than the total.
    pub(super) fn tells_parts(&self) -> bool {
        self.known & !bit(Field::Total) != 0
    }

    /// Merges a later report. Its counts replace earlier ones, unless they are zero. Counts that it lacks are
    /// kept, but an earlier total does not apply to later counts.
    pub(super) fn merge(&mut self, later: &Tally) {
        let is_news = |(at, value): (usize, &u64)| *value > 0 && self.values.get(at) != Some(value);
        if later.values.iter().enumerate().any(is_news) {
            self.unset(Field::Total);
        }
        // A report with at least as much input as before has counted everything again, so its zeros for
        // caches are correct.
        if later.sum(INPUTS) >= self.sum(INPUTS) {
            INPUTS.iter().filter(|field| later.get(**field) == Some(0)).for_each(|field| self.unset(*field));
            let writes_none = later.get(Field::CacheWrite) == Some(0);
            let is_gone =
                |field: &&Field| writes_none || later.sum(LIFETIMES) > 0 && later.get(**field) == Some(0);
            LIFETIMES.iter().filter(is_gone).for_each(|field| self.unset(*field));
        }
        for (mine, new) in self.values.iter_mut().zip(later.values) {
            if new > 0 {
                *mine = new;
            }
        }
        self.known |= later.known;
        self.other_unit |= later.other_unit;
    }

    /// Returns the counts of `outer`, and those of `self` that it lacks.
    pub(super) fn beneath(mut self, outer: &Tally) -> Tally {
        if outer.is_empty() {
            return self;
        }
        self.merge(outer);
        self
    }

    fn sum(&self, fields: &[Field]) -> u64 {
        fields.iter().map(|field| self.or_zero(*field)).fold(0, u64::saturating_add)
    }

    /// Returns what was added since this earlier state.
    pub(super) fn since(mut self, earlier: &Tally) -> Tally {
        for (mine, earlier) in self.values.iter_mut().zip(earlier.values) {
            *mine = mine.saturating_sub(earlier);
        }
        self
    }

    /// Adds the usage of another result.
    pub(super) fn add(&mut self, other: &Tally) {
        for (mine, more) in self.values.iter_mut().zip(other.values) {
            *mine = mine.saturating_add(more);
        }
        self.known |= other.known;
        self.other_unit |= other.other_unit;
    }

    /// Adds up the parts of several results, if none of them has a total.
    pub(super) fn add_parts(&mut self) {
        for (part, whole) in [(Field::InputPart, Field::Input), (Field::OutputPart, Field::Output)] {
            if self.get(part).is_some() {
                self.close_parts(whole);
            }
        }
    }

    /// Adds up the parts of a count that are members of the same object: `input_text_tokens`,
    /// `input_image_tokens`. The whole count replaces them if it was reported as well.
    pub(super) fn add_members(&mut self) {
        for (part, whole) in [(Field::InputPart, Field::FreshInput), (Field::OutputPart, Field::Output)] {
            let Some(sum) = self.get(part) else { continue };
            self.unset(part);
            if !self.has_count(whole) {
                self.set(whole, sum);
            }
        }
    }

    /// Returns whether this count was reported, alone or in the total of its parts.
    fn has_count(&self, field: Field) -> bool {
        let known = |field: Field| self.known & bit(field) != 0;
        known(field) || matches!(field, Field::FreshInput) && known(Field::Input)
    }

    /// Ends an object that stands for a count. Without a total, its parts add up. Returns whether it counted
    /// anything.
    pub(super) fn close_parts(&mut self, whole: Field) -> bool {
        let (count, other, parts) = match whole {
            Field::Input | Field::FreshInput => {
                (Field::Input, Field::InputPart, &[Field::Cached, Field::Written][..])
            }
            Field::Output => (Field::Output, Field::OutputPart, &[Field::Reasoning][..]),
            Field::Total => return !self.is_empty(),
            Field::Cached => {
                let parts = [Field::Cached, Field::CacheRead, Field::CacheWrite];
                return parts.into_iter().any(|field| self.has_count(field));
            }
            _ => return self.has_count(whole),
        };
        let is_known = |field: &Field| self.get(*field).is_some();
        let sum = self.or_zero(other).saturating_add(self.sum(parts));
        let has_parts = is_known(&other) || parts.iter().any(is_known);
        self.unset(other);
        if !self.has_count(whole) && has_parts {
            self.set(count, sum);
        }
        self.has_count(whole)
    }

    fn get(&self, field: Field) -> Option<u64> {
        (self.known & bit(field) != 0).then(|| self.or_zero(field))
    }

    fn or_zero(&self, field: Field) -> u64 {
        self.values.get(field as usize).copied().unwrap_or(0)
    }

    /// Returns the total. A total of zero does not count.
    fn total(&self) -> Option<u64> {
        self.get(Field::Total).filter(|total| *total > 0)
    }

    /// Returns the normalised usage: input with cached tokens, output with reasoning.
    pub(super) fn usage(&self) -> Usage {
        let (input, output) = match (self.input(), self.output(), self.total()) {
            (_, _, Some(total)) if self.is_only_total() => (total, 0),
            (Some(_), Some(output), Some(total)) => self.fit(output, total),
            (Some(input), None, Some(total)) => (input, total.saturating_sub(input)),
            (None, Some(output), Some(total)) => (total.saturating_sub(output), output),
            (None, None, Some(total)) => (total, 0),
            (input, output, None) => (input.unwrap_or(0), self.with_reasoning(output.unwrap_or(0))),
        };
        let input = input.saturating_add(self.or_zero(Field::Citation));
        let cached = self.get(Field::Cached).unwrap_or(self.or_zero(Field::CacheRead)).min(input);
        let reasoning = self.reasoning().min(output);
        let by_lifetime = self.or_zero(Field::CacheWrite5m).saturating_add(self.or_zero(Field::CacheWrite1h));
        let written = self.or_zero(Field::CacheWrite).max(self.or_zero(Field::Written)).max(by_lifetime);
        let cache_write = written.min(input.saturating_sub(cached));
        let cache_write_1h = self.or_zero(Field::CacheWrite1h).min(cache_write);
        let total = input.saturating_add(output);
        Usage { input, output, total, cached, cache_write, cache_write_1h, reasoning }
    }

    /// Returns the input, including all separate parts.
    fn input(&self) -> Option<u64> {
        let billed = || {
            let images = self.get(Field::BilledImages);
            self.get(Field::BilledInput).map(|text| text.saturating_add(images.unwrap_or(0))).or(images)
        };
        // A prompt that is smaller than its cached part does not include it.
        let beside = |input: u64| if self.caches() > input { self.caches() } else { 0 };
        let whole = self.prompt().map(|input| input.saturating_add(beside(input)));
        let fresh = || self.get(Field::FreshInput).map(|fresh| fresh.saturating_add(self.beside()));
        let input = whole.or_else(fresh).or_else(|| self.get(Field::Predicted)).or_else(billed);
        let brought = self.brought();
        input.map(|input| input.saturating_add(brought)).or_else(|| Some(brought).filter(|it| *it > 0))
    }

    /// Returns the count of the prompt. A zero does not hide the same count under another name.
    fn prompt(&self) -> Option<u64> {
        self.get(Field::Input).filter(|prompt| *prompt > 0 || self.or_zero(Field::FreshInput) == 0)
    }

    /// Returns the tokens that tools and connectors added.
    fn brought(&self) -> u64 {
        self.or_zero(Field::ToolUse).saturating_add(self.or_zero(Field::Connector))
    }

    /// Returns the cached tokens that the fresh input excludes. If a provider reports details of the input,
    /// its input includes them.
    fn beside(&self) -> u64 {
        let included = self.get(Field::Cached).is_some() || self.get(Field::Written).is_some();
        if included { 0 } else { self.caches() }
    }

    fn caches(&self) -> u64 {
        let by_lifetime = self.or_zero(Field::CacheWrite5m).saturating_add(self.or_zero(Field::CacheWrite1h));
        self.or_zero(Field::CacheRead).saturating_add(self.or_zero(Field::CacheWrite).max(by_lifetime))
    }

    fn output(&self) -> Option<u64> {
        self.get(Field::Output)
            .or_else(|| self.get(Field::Generated))
            .or_else(|| self.get(Field::BilledOutput))
            .or_else(|| self.get(Field::Thoughts).map(|_| 0))
    }

    fn reasoning(&self) -> u64 {
        self.or_zero(Field::Reasoning).max(self.or_zero(Field::Thoughts))
    }

    /// Returns the output with reasoning, for reports without a total. Output that is smaller than the
    /// reasoning does not include it, and output never includes thoughts.
    fn with_reasoning(&self, output: u64) -> u64 {
        let reasoning = self.reasoning();
        // Servers that predict tokens can count some more as reasoning than as output (SGLang), and others the
        // token that ends it (MiniMax).
        let is_separate = reasoning.saturating_sub(output) > (output / 16).max(4);
        let beside = is_separate || self.get(Field::Thoughts).is_some();
        if beside { output.saturating_add(reasoning) } else { output }
    }

    /// Returns the input and output that add up to the total, if the separate parts explain the difference.
    /// Unexplained tokens count as output (hidden reasoning), unless there was audio input.
    fn fit(&self, output: u64, total: u64) -> (u64, u64) {
        let usual = (self.input().unwrap_or(0), self.with_reasoning(output));
        let brought = self.brought();
        let plain = usual.0.saturating_sub(brought);
        let alone = self.prompt().unwrap_or(plain);
        let read = alone.saturating_add(self.or_zero(Field::CacheRead));
        let cached = alone.saturating_add(self.caches());
        let inputs = [plain, alone, cached, read].into_iter().flat_map(|it| [it.saturating_add(brought), it]);
        let outputs = [usual.1, output.saturating_add(self.reasoning()), output];
        // Reasoning that exceeds the output is separate, even if the total omits it.
        let outputs = outputs.map(|output| output.max(self.reasoning()));
        let ways = inputs.flat_map(|input| outputs.map(|output| (input, output)));
        let explained =
            std::iter::once(usual).chain(ways).find(|(input, output)| input.saturating_add(*output) == total);
        explained.unwrap_or_else(|| match self.or_zero(Field::AudioSeconds) {
            0 => (usual.0, usual.1.max(total.saturating_sub(usual.0))),
            _ => (usual.0.max(total.saturating_sub(usual.1)), usual.1),
        })
    }
}

fn bit(field: Field) -> u32 {
    1u32.checked_shl(field as u32).unwrap_or(0)
}

/// Parses a JSON number that counts tokens: an integer from 0 to 2^53, in any notation.
pub fn count(token: &[u8]) -> Option<u64> {
    // Nearly all counts are of this kind.
    if let Some(count) = short_count(token) {
        return Some(count);
    }
    let (mantissa, exponent) = match token.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (token.get(..at)?, exponent(token.get(at.checked_add(1)?..)?)?),
        None => (token, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|b| *b == b'.') {
        Some(at) => (mantissa.get(..at)?, mantissa.get(at.checked_add(1)?..)?),
        None => (mantissa, &[][..]),
    };
    if whole.is_empty() {
        return None;
    }
    let mut value = 0u64;
    // The number of digits before the decimal point, after the exponent has moved it.
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let mut taken = 0i32;
    for digit in whole.iter().chain(fraction) {
        let digit = digit.checked_sub(b'0').filter(|d| *d <= 9)?;
        if taken < point {
            value = value.checked_mul(10)?.checked_add(u64::from(digit)).filter(|v| *v <= MAX_COUNT)?;
        } else if digit != 0 {
            return None;
        }
        taken = taken.checked_add(1)?;
    }
    while value != 0 && taken < point {
        value = value.checked_mul(10).filter(|v| *v <= MAX_COUNT)?;
        taken = taken.checked_add(1)?;
    }
    Some(value)
}

/// Parses a count in text that groups its digits by thousands: `1,234`.
pub(super) fn grouped_count(text: &[u8]) -> Option<u64> {
    let mut groups = text.trim_ascii().split(|byte| matches!(byte, b',' | b'_' | b' '));
    let first = groups.next().filter(|first| first.len() <= 3)?;
    let append = |value: u64, group: &[u8]| {
        let group = (group.len() == 3).then(|| short_count(group))??;
        value.checked_mul(1000)?.checked_add(group).filter(|value| *value <= MAX_COUNT)
    };
    groups.try_fold(short_count(first)?, append)
}

/// Parses a short number that has only digits.
fn short_count(token: &[u8]) -> Option<u64> {
    if token.is_empty() || token.len() > SHORT_COUNT {
        return None;
    }
    let append = |value: u64, digit: &u8| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        Some(value.wrapping_mul(10).wrapping_add(u64::from(digit)))
    };
    token.iter().try_fold(0, append)
}

fn exponent(token: &[u8]) -> Option<i32> {
    let (sign, digits) = match token {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] | digits => (1, digits),
    };
    if digits.is_empty() || digits.len() > 4 {
        return None;
    }
    let digit = |value: i32, digit: &u8| {
        let digit = digit.checked_sub(b'0').filter(|d| *d <= 9)?;
        value.checked_mul(10)?.checked_add(i32::from(digit))
    };
    digits.iter().try_fold(0, digit)?.checked_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_in_text_may_group_its_digits() {
        let table: &[(&str, Option<u64>)] = &[
            ("1,234", Some(1234)),
            (" 12,345,678 ", Some(12_345_678)),
            ("1_234", Some(1234)),
            ("1 234", Some(1234)),
            ("7", Some(7)),
            ("1,23", None),
            ("1,2345", None),
            ("1234,567", None),
            (",123", None),
            ("1,,234", None),
            ("1,-23", None),
            ("-1,234", None),
            ("9,999,999,999,999,999,999,999", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(grouped_count(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn a_count_is_a_whole_number_from_zero_to_two_to_the_53() {
        let table: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("19", Some(19)),
            ("007", Some(7)),
            ("999999999999999", Some(999_999_999_999_999)),
            ("19x", None),
            ("19.0", Some(19)),
            ("1.9e1", Some(19)),
            ("190e-1", Some(19)),
            ("0e9999", Some(0)),
            ("0.0", Some(0)),
            ("9007199254740992", Some(1 << 53)),
            ("9.007199254740992E+15", Some(1 << 53)),
            ("9007199254740993", None),
            ("1e308", None),
            ("1e99999999999", None),
            ("19.5", None),
            ("1e-1", None),
            ("-1", None),
            ("-0", None),
            ("NaN", None),
            ("Infinity", None),
            ("", None),
            (".5", None),
            ("1e", None),
            ("e1", None),
            ("1.2.3", None),
            ("0x10", None),
            ("18446744073709551616", None),
            ("true", None),
        ];
        for (token, expected) in table {
            assert_eq!(count(token.as_bytes()), *expected, "{token}");
        }
    }
}
