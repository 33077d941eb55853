//! The model of a socket's session.

/// The model that the upgrade and the messages name. Servers ignore most of these names, for example OpenAI those
/// in messages, so a second name makes the model unknown instead of replacing the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SessionModel {
    /// Nothing has named a model.
    #[default]
    Unnamed,
    /// Everything that names a model names this one.
    Named(String),
    /// There are different names.
    Several,
}

impl SessionModel {
    /// Adds a name.
    pub(super) fn add(&mut self, model: String) {
        match self {
            Self::Unnamed => *self = Self::Named(model),
            Self::Named(known) if *known != model => *self = Self::Several,
            Self::Named(_) | Self::Several => {}
        }
    }
}

impl From<Option<String>> for SessionModel {
    fn from(model: Option<String>) -> Self {
        model.map_or(Self::Unnamed, Self::Named)
    }
}
