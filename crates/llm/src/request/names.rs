//! The names of members, and the places that they lead to: data, since the code for so many comparisons is many times
//! as large.

mod body;
mod content;

pub(super) use body::{ROOT, SETTINGS};
pub(super) use content::{CALL, CONTENT, FILE, PROMPT, TOOL_CONFIG};

use super::maximum::MaximumField;
use super::place::{Place, Settings};

/// The longest name.
pub(super) const MAX_NAME: usize = 40;

/// Names in the order of their lengths.
pub(super) struct Names {
    names: &'static [(&'static str, Place)],
    /// Where the names of each length begin.
    begin: [u8; MAX_NAME + 2],
}

impl Names {
    const fn new(names: &'static [(&'static str, Place)]) -> Self {
        let mut begin = [0; MAX_NAME + 2];
        let (mut lengths, mut length): (&mut [u8], usize) = (&mut begin, 0);
        let (mut left, mut passed) = (names, 0);
        while let Some((first, longer)) = lengths.split_first_mut() {
            while let Some(((name, _), others)) = left.split_first()
                && name.len() < length
            {
                (left, passed) = (others, passed + 1);
            }
            *first = passed;
            (lengths, length) = (longer, length + 1);
        }
        assert!(left.is_empty(), "a name is too long");
        Self { names, begin }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<Place> {
        let [begin, end] = [key.len(), key.len().saturating_add(1)].map(|at| self.begin.get(at).copied());
        let same_length = self.names.get(usize::from(begin?)..usize::from(end?))?;
        same_length.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, place)| *place)
    }
}

/// What some servers read in any case, though their names have one: all that must not be given twice.
pub(super) static ANY_CASE: Names = Names::new(&[
    ("n", Place::Completions),
    ("model", Place::ModelVariant),
    ("stream", Place::StreamVariant),
    ("best_of", Place::Completions),
    ("max_tokens", Place::MaximumVariant(MaximumField::MaxTokens)),
    ("stream_options", Place::StreamOptionsVariant),
    ("max_output_tokens", Place::MaximumVariant(MaximumField::MaxOutputTokens)),
    ("max_tokens_to_sample", Place::MaximumVariant(MaximumField::MaxTokensToSample)),
    ("max_completion_tokens", Place::MaximumVariant(MaximumField::MaxCompletionTokens)),
]);

/// A setting that means something in one object of settings.
pub(super) fn setting(settings: Settings, key: &[u8]) -> Option<Place> {
    Some(match (settings, key) {
        (Settings::Generation | Settings::Parameters, b"maxOutputTokens" | b"max_output_tokens")
        | (Settings::Inference, b"maxTokens" | b"max_new_tokens")
        | (Settings::Options, b"num_predict")
        | (Settings::TextGeneration, b"maxTokenCount")
        | (Settings::Parameters, b"max_new_tokens") => Place::Maximum(MaximumField::Setting(settings)),
        (
            Settings::Additional,
            b"max_tokens"
            | b"maxTokens"
            | b"max_new_tokens"
            | b"max_tokens_to_sample"
            | b"maxTokenCount"
            | b"max_gen_len",
        ) => Place::PossibleMaximum(MaximumField::Setting(Settings::Inference)),
        (Settings::Additional, b"inferenceConfig") => Place::Settings(Settings::Additional),
        (Settings::Generation | Settings::Parameters, b"candidateCount" | b"candidate_count") => {
            Place::Completions
        }
        (Settings::Parameters, b"sampleCount" | b"best_of" | b"num_return_sequences") => Place::Completions,
        _ => return None,
    })
}

/// The key as servers see it that ignore case: ASCII in lower case, and the two other letters that fold to one of
/// ASCII, the long s and the sign for Kelvin. `None`: it is in lower case already, or longer than any name.
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

    #[test]
    fn every_name_is_found_once() {
        for (names, what) in [
            (&ROOT, "ROOT"),
            (&SETTINGS, "SETTINGS"),
            (&CONTENT, "CONTENT"),
            (&PROMPT, "PROMPT"),
            (&CALL, "CALL"),
            (&TOOL_CONFIG, "TOOL_CONFIG"),
            (&FILE, "FILE"),
            (&ANY_CASE, "ANY_CASE"),
        ] {
            for (name, place) in names.names {
                assert_eq!(names.find(name.as_bytes()), Some(*place), "{what}: {name}");
                assert_eq!(
                    names.names.iter().filter(|(other, _)| other == name).count(),
                    1,
                    "{what}: {name}"
                );
            }
        }
        for key in ["", "nobody", &"x".repeat(MAX_NAME), &"x".repeat(MAX_NAME + 1), &"x".repeat(1000)] {
            assert_eq!(ROOT.find(key.as_bytes()), None);
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
