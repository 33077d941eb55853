//! Reads settings that are JSON in a string: `"sampling_parameters": "{\"max_tokens\": 100}"`.

use super::Gather;
use crate::json::Scanner;

/// The maximum number of such strings that are read. A client could send millions of short ones to slow a worker
/// down.
const MAX_READ: u16 = 1024;

/// The open string, if it may be an object of settings.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingsText {
    state: State,
    /// The number of strings that were read.
    read: u16,
    /// Whether this string is inside of another one. Such strings are not read.
    is_nested: bool,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// There was only white space so far.
    #[default]
    Undecided,
    Object(Box<OpenSettings>),
    /// It is not an object, or there were too many.
    Text,
}

#[derive(Clone, Debug, Default)]
struct OpenSettings {
    scanner: Scanner<super::Place>,
    settings: Gather,
}

impl Gather {
    /// Begins a string that may be an object of settings.
    pub(super) fn open_settings(&mut self) {
        self.settings.state = State::Undecided;
    }

    /// Reads a piece of the string.
    pub(super) fn settings_piece(&mut self, piece: &[u8]) {
        if matches!(self.settings.state, State::Undecided) {
            match piece.trim_ascii_start().first() {
                None => return,
                Some(b'{') if self.settings.is_nested => self.settings.state = State::Text,
                Some(b'{') if self.settings.read >= MAX_READ => {
                    self.settings.state = State::Text;
                    self.maxima.set_unsure();
                }
                Some(b'{') => {
                    self.settings.read = self.settings.read.saturating_add(1);
                    let mut open = Box::<OpenSettings>::default();
                    open.settings.settings.is_nested = true;
                    self.settings.state = State::Object(open);
                }
                Some(_) => self.settings.state = State::Text,
            }
        }
        if let State::Object(open) = &mut self.settings.state {
            open.scanner.feed(piece, &mut open.settings);
        }
    }

    /// Ends the string.
    pub(super) fn end_settings(&mut self) {
        let State::Object(open) = std::mem::take(&mut self.settings.state) else { return };
        // A batch of prompts may have settings for each of them.
        self.maxima.add_settings(&open.settings.maxima);
        self.set_completions(open.settings.completions.unwrap_or_default());
    }
}
