//! Passwords, which no message, log or page may show.

use std::borrow::Cow;
use std::fmt;

/// Stands where a secret was.
pub const HIDDEN: &str = "[hidden]";

/// A text that is shown to nobody. It has no `Display`, and its `Debug` tells nothing, not even its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever has to be shown it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A message of somebody else's without these texts.
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
