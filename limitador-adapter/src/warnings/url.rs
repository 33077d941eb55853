//! The URL of the webhook. Such URLs often contain a secret in their path, so only the origin is ever shown.

use axum::http::Uri;
use axum::http::uri::Scheme;
use std::fmt;
use std::str::FromStr;

/// An absolute `http` or `https` URL.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

/// Why a URL cannot be used. The message never repeats the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    #[error("is not a URL; use http://HOST/PATH or https://HOST/PATH")]
    NotAUrl,
    #[error("contains a user or a password, which is not supported; use a secret path or query instead")]
    HasUser,
}

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<Self, WebhookUrlError> {
        let uri: Uri = text.trim().parse().map_err(|_| WebhookUrlError::NotAUrl)?;
        let is_http = |scheme: &Scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        match authority {
            Some(authority) if authority.as_str().contains('@') => Err(WebhookUrlError::HasUser),
            Some(_) if uri.scheme().is_some_and(is_http) => Ok(Self(uri)),
            Some(_) | None => Err(WebhookUrlError::NotAUrl),
        }
    }
}

impl WebhookUrl {
    pub fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Returns the whole URL, for the call.
    pub fn expose(&self) -> &Uri {
        &self.0
    }
}

/// Shows only the origin.
impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        write!(f, "{}://{authority}", if self.is_https() { "https" } else { "http" })
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_is_shown() {
        for (text, origin) in [
            ("https://hooks.example.com/services/T0/secret", "https://hooks.example.com"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            (" http://[::1]:9000/?token=secret\n", "http://[::1]:9000"),
        ] {
            let url: WebhookUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (origin.to_owned(), origin.to_owned()));
        }
    }

    #[test]
    fn other_urls_are_refused_without_repeating_them() {
        for wrong in
            ["", "hooks.example.com/secret", "/secret", "ftp://host/secret", "https://", "http:///secret"]
        {
            assert_eq!(wrong.parse::<WebhookUrl>(), Err(WebhookUrlError::NotAUrl), "{wrong}");
        }
        let error = "https://user:secret@host/".parse::<WebhookUrl>().unwrap_err();
        assert_eq!(error, WebhookUrlError::HasUser);
        assert!(!error.to_string().contains("secret@"));
    }
}
