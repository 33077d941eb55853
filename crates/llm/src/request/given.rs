//! Values that may be given more than once. They record which value counts and whether the values differ.

/// The longest model, user or session, in bytes. No provider accepts longer ones.
const KEPT: usize = 512;

/// A short string that may arrive in chunks and may be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    too_long: bool,
    /// Whether the value is neither a string nor null.
    no_text: bool,
}

impl Kept {
    /// Sets the whole string.
    pub(super) fn set(&mut self, text: &[u8]) {
        self.clear();
        self.push(text);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
        self.no_text = false;
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.bytes.len().saturating_add(piece.len()) > KEPT {
            self.too_long = true;
        } else {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// Returns the string, or `None` if it is absent, empty or too long.
    pub(super) fn text(&self) -> Option<String> {
        let there = !self.bytes.is_empty() && !self.too_long;
        there.then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }

    /// Returns whether the value is present but cannot be a name.
    pub(super) fn is_unreadable(&self) -> bool {
        self.too_long || self.no_text
    }

    /// Returns whether servers would treat both values alike. Returns `false` if they are unreadable.
    fn is_same(&self, other: &Kept) -> bool {
        self == other && !self.is_unreadable()
    }
}

/// A string under one key. As in most parsers, the last value counts.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenText {
    last: Kept,
    first: Option<Kept>,
    differs: bool,
    is_given: bool,
}

impl GivenText {
    /// Begins a string.
    pub(super) fn open(&mut self) {
        if self.is_given {
            match &self.first {
                Some(first) => self.differs |= !first.is_same(&self.last),
                None => self.first = Some(std::mem::take(&mut self.last)),
            }
        }
        self.is_given = true;
        self.last.clear();
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.last.push(piece);
    }

    /// Sets the whole string.
    pub(super) fn set(&mut self, text: &[u8]) {
        self.open();
        self.push(text);
    }

    /// Records null, which counts as empty.
    pub(super) fn set_null(&mut self) {
        self.open();
    }

    /// Records a value that is not a string.
    pub(super) fn set_other(&mut self) {
        self.open();
        self.last.no_text = true;
    }

    pub(super) fn text(&self) -> Option<String> {
        self.last.text()
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.last.is_unreadable()
    }

    /// Returns whether the string was given again with a different value.
    pub(super) fn differs(&self) -> bool {
        self.differs || self.first.as_ref().is_some_and(|first| !first.is_same(&self.last))
    }

    /// Returns whether both are given and differ.
    pub(super) fn contradicts(&self, other: &GivenText) -> bool {
        self.is_given && other.is_given && !self.last.is_same(&other.last)
    }
}

/// A boolean under one key. The last value counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GivenBool {
    value: Option<bool>,
    differs: bool,
}

impl GivenBool {
    pub(super) fn set(&mut self, value: bool) {
        self.differs |= self.value.is_some_and(|before| before != value);
        self.value = Some(value);
    }

    pub(super) fn value(self) -> Option<bool> {
        self.value
    }

    pub(super) fn differs(self) -> bool {
        self.differs
    }

    /// Returns whether both are given and differ.
    pub(super) fn contradicts(self, other: GivenBool) -> bool {
        self.value.zip(other.value).is_some_and(|(one, other)| one != other)
    }
}

/// The fields that a body contains twice with different values. It is unknown which value the server uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conflicts {
    /// The model.
    pub model: bool,
    /// Whether the response is a stream.
    pub stream: bool,
    /// The client's own maximum output.
    pub max_output: bool,
    /// The client's own maximum output, given once, under a key in a different case that only some servers
    /// accept.
    pub max_output_case: bool,
}

impl Conflicts {
    /// Returns the conflicts that are in both.
    #[must_use]
    pub fn and(self, other: Conflicts) -> Conflicts {
        Conflicts {
            model: self.model && other.model,
            stream: self.stream && other.stream,
            max_output: self.max_output && other.max_output,
            max_output_case: self.max_output_case && other.max_output_case,
        }
    }

    /// Returns the conflicts that are in either.
    #[must_use]
    pub fn or(self, other: Conflicts) -> Conflicts {
        Conflicts {
            model: self.model || other.model,
            stream: self.stream || other.stream,
            max_output: self.max_output || other.max_output,
            max_output_case: self.max_output_case || other.max_output_case,
        }
    }

    /// Returns the first conflict, under the name that the client uses.
    pub fn first(self) -> Option<&'static str> {
        match self {
            Conflicts { model: true, .. } => Some("model"),
            Conflicts { stream: true, .. } => Some("stream"),
            Conflicts { max_output: true, .. } | Conflicts { max_output_case: true, .. } => {
                Some("maximum of output tokens")
            }
            _ => None,
        }
    }
}
