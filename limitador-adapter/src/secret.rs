//! Passwords, which must not appear in messages, logs or responses.

use std::borrow::Cow;
use std::fmt;

/// The text that replaces a secret.
pub const HIDDEN: &str = "[hidden]";

/// A secret text. It has no `Display`, and its `Debug` reveals nothing, not even the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for the peer that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Removes these texts from another library's message.
pub fn without<'m>(message: &'m str, secrets: impl IntoIterator<Item = impl AsRef<str>>) -> Cow<'m, str> {
    let mut cleared = Cow::Borrowed(message);
    for secret in secrets {
        let secret = secret.as_ref();
        if !secret.is_empty() && cleared.contains(secret) {
            cleared = Cow::Owned(cleared.replace(secret, HIDDEN));
        }
    }
    cleared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "[hidden] Some(\n    [hidden],\n)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn messages_are_cleared_of_secrets() {
        let message = "unknown command, with args beginning with: 'hunter2' 'hunter2'";
        let cleared = without(message, ["", "hunter2", "absent"]);
        assert_eq!(cleared, "unknown command, with args beginning with: '[hidden]' '[hidden]'");
        assert!(matches!(without("nothing", ["hunter2"]), Cow::Borrowed("nothing")));
    }
}
