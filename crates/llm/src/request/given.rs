//! Values that may be given more than once: which one counts, and whether they differ.

/// The longest model, user or session that counts as one, in bytes. No provider takes longer ones.
const KEPT: usize = 512;

/// A short string that may come in pieces, and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    too_long: bool,
    /// It is something else than a string, and not null either.
    no_text: bool,
}

impl Kept {
    /// The whole of it at once.
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

    /// `None` if it was absent, empty or too long.
    pub(super) fn text(&self) -> Option<String> {
        let there = !self.bytes.is_empty() && !self.too_long;
        there.then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }

    /// It is given, and is no text that could be a name.
    pub(super) fn is_unreadable(&self) -> bool {
        self.too_long || self.no_text
    }

    /// Whether a server that takes one takes the other. Of what is too long nobody knows.
    fn is_same(&self, other: &Kept) -> bool {
        self == other && !self.is_unreadable()
    }
}

/// A string under one key, the last one of which counts, as for most parsers.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenText {
    last: Kept,
    first: Option<Kept>,
    differs: bool,
    is_given: bool,
}

impl GivenText {
    /// A string begins.
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

    /// The whole of it at once.
    pub(super) fn set(&mut self, text: &[u8]) {
        self.open();
        self.push(text);
    }

    /// Null, which is as good as empty.
    pub(super) fn set_null(&mut self) {
        self.open();
    }

    /// A value that is no text.
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

    /// Given again with another value.
    pub(super) fn differs(&self) -> bool {
        self.differs || self.first.as_ref().is_some_and(|first| !first.is_same(&self.last))
    }

    /// Both are given, with values that differ.
    pub(super) fn contradicts(&self, other: &GivenText) -> bool {
        self.is_given && other.is_given && !self.last.is_same(&other.last)
    }
}

/// A bool under one key, the last one of which counts.
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

    /// Both are given, with values that differ.
    pub(super) fn contradicts(self, other: GivenBool) -> bool {
        self.value.zip(other.value).is_some_and(|(one, other)| one != other)
    }
}

/// What a body gives twice, with values that differ: which one its server takes is not for us to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conflicts {
    /// The model.
    pub model: bool,
    /// Whether the answer is a stream.
    pub stream: bool,
    /// The client's own maximum of output.
    pub max_output: bool,
    /// The same, given once, under a key whose case only some servers ignore.
    pub max_output_case: bool,
}

impl Conflicts {
    /// Those of both.
    #[must_use]
    pub fn and(self, other: Conflicts) -> Conflicts {
        Conflicts {
            model: self.model && other.model,
            stream: self.stream && other.stream,
            max_output: self.max_output && other.max_output,
            max_output_case: self.max_output_case && other.max_output_case,
        }
    }

    /// Those of either.
    #[must_use]
    pub fn or(self, other: Conflicts) -> Conflicts {
        Conflicts {
            model: self.model || other.model,
            stream: self.stream || other.stream,
            max_output: self.max_output || other.max_output,
            max_output_case: self.max_output_case || other.max_output_case,
        }
    }

    /// The first of them, as a caller knows it.
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
