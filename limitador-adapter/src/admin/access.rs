//! Access control for `/api/*`, which shows who has used how much.
//!
//! The decision depends on the address that the HTTP port listens on, not on the caller's address: behind a
//! sidecar or another proxy, every caller seems to be on loopback. On a loopback address, no token is needed
//! unless one is configured. On any other address, every caller needs the token. If no token is configured
//! there, every call is refused.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// The maximum length of a token in bytes.
const LONGEST: u64 = 4096;

/// Headers that only proxies add.
const OF_PROXIES: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// Decides who may call the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAccess {
    /// Callers on this machine.
    Local,
    /// Callers with the token in this file. The file is read for each call, so a new token applies at once.
    Token(Arc<PathBuf>),
    /// No callers.
    Closed,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// No usable token is configured.
    NoToken,
    /// The call came through a proxy, or from a browser under a foreign host name.
    NotLocal,
    /// The call has no token.
    Unauthenticated,
    /// The call has a different token.
    WrongToken,
}

impl ApiAccess {
    /// Creates the access control for an HTTP port on this address. `token_file` contains the token, if one
    /// is configured.
    pub fn new(listen: SocketAddr, token_file: Option<PathBuf>) -> Self {
        let local = listen.ip().to_canonical().is_loopback();
        match token_file {
            Some(file) => Self::Token(Arc::new(file)),
            None if local => Self::Local,
            None => Self::Closed,
        }
    }

    /// Logs what an operator has to do before `/api` answers.
    pub fn log(&self) {
        match self {
            Self::Closed => tracing::warn!(
                "the HTTP port listens beyond loopback without an admin token, so /api refuses every request: set \
                 --admin-token-file"
            ),
            Self::Token(file) => {
                if let Err(problem) = digest_of(file) {
                    tracing::warn!(problem, "no usable admin token, so /api refuses every request");
                }
            }
            Self::Local => {}
        }
    }

    /// Returns whether a call with these headers may read.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        self.check(headers).is_ok()
    }

    /// Returns whether a call with the right token may change something.
    pub fn can_change(&self) -> bool {
        match self {
            Self::Token(_) => true,
            Self::Local | Self::Closed => false,
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::Closed => Err(Refusal::NoToken),
            Self::Local => {
                if is_local(headers) {
                    Ok(())
                } else {
                    Err(Refusal::NotLocal)
                }
            }
            Self::Token(file) => {
                let wanted = digest_of(file).map_err(|_| Refusal::NoToken)?;
                let shown = shown(headers).ok_or(Refusal::Unauthenticated)?;
                if is_same(&wanted, &Sha256::digest(shown).into()) {
                    Ok(())
                } else {
                    Err(Refusal::WrongToken)
                }
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let challenge = |challenge: &'static str, message: &'static str| {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], message).into_response()
        };
        match self {
            Self::NoToken => {
                let message = "no admin token is configured; use --admin-token-file FILE\n";
                (StatusCode::FORBIDDEN, message).into_response()
            }
            Self::NotLocal => {
                let message = "without an admin token, only direct calls from this machine are answered; \
                               use --admin-token-file FILE\n";
                (StatusCode::FORBIDDEN, message).into_response()
            }
            Self::Unauthenticated => {
                challenge("Bearer realm=\"limitador-adapter\"", "needs `authorization: Bearer TOKEN`\n")
            }
            Self::WrongToken => challenge(
                "Bearer realm=\"limitador-adapter\", error=\"invalid_token\"",
                "this is not the admin token\n",
            ),
        }
    }
}

/// Middleware that refuses a call or passes it on.
pub async fn guard(State(access): State<ApiAccess>, request: Request, next: Next) -> Response {
    match access.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Like [`guard`], for calls that change something. These calls need a token even on a loopback address.
pub async fn guard_change(State(access): State<ApiAccess>, request: Request, next: Next) -> Response {
    match access {
        ApiAccess::Local => Refusal::NoToken.into_response(),
        ApiAccess::Token(_) | ApiAccess::Closed => next.run(request).await,
    }
}

/// Returns the token of the `authorization` header, if there is exactly one such header.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = all.next().filter(|_| all.next().is_none())?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// Returns whether a call comes directly from this machine. A web page can make a browser call this machine
/// under a foreign name (DNS rebinding). The host header then contains that name. Such a name has a dot,
/// because names without a dot cannot be registered. A foreign page cannot read an answer to a call under this
/// machine's own name, but its calls take time, and the browser marks them.
fn is_local(headers: &HeaderMap) -> bool {
    let proxied = OF_PROXIES.iter().any(|name| headers.contains_key(*name));
    let foreign = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    !proxied
        && !foreign
        && headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(is_local_name))
}

fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.split(':').next().unwrap_or_default(),
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => !name.contains('.') || name.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// Returns the digest of the token in the file. Neither the digest nor the error reveals any part of the
/// token.
fn digest_of(file: &PathBuf) -> Result<[u8; 32], &'static str> {
    let opened = std::fs::File::open(file).map_err(|_| "the admin token file cannot be opened")?;
    let mut token = Vec::new();
    let read = opened.take(LONGEST.saturating_add(1)).read_to_end(&mut token);
    let read = read.map_err(|_| "the admin token file cannot be read")?;
    match token.trim_ascii() {
        _ if u64::try_from(read).is_ok_and(|read| read > LONGEST) => Err("the admin token is too long"),
        [] => Err("the admin token file is empty"),
        token if token.iter().all(u8::is_ascii_graphic) => Ok(Sha256::digest(token).into()),
        _ => Err("the admin token has blanks or other characters that no header can carry"),
    }
}

/// Compares in constant time.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_port_decides() {
        let at = |address: &str| ApiAccess::new(address.parse().unwrap(), None);
        for address in ["127.0.0.1:8080", "127.8.8.8:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert_eq!(at(address), ApiAccess::Local, "{address}");
        }
        for address in
            ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080", "[2001:db8::1]:8080", "[::ffff:0.0.0.0]:1"]
        {
            assert_eq!(at(address), ApiAccess::Closed, "{address}");
        }
        let file = PathBuf::from("token");
        let with_token = ApiAccess::new(([127, 0, 0, 1], 8080).into(), Some(file.clone()));
        assert_eq!(with_token, ApiAccess::Token(Arc::new(file)));
    }

    #[test]
    fn names_of_this_machine() {
        for host in
            ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "adapter", "a.LOCALHOST:1", ""]
        {
            assert!(is_local_name(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8080", "10.0.0.1:8080", "[2001:db8::1]", "127.0.0.1.evil.example"]
        {
            assert!(!is_local_name(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_shown_in_one_way() {
        let shown_in = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            shown(&headers).map(<[u8]>::to_vec)
        };
        for good in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(shown_in(&[good]).as_deref(), Some(b"abc".as_slice()), "{good}");
        }
        for bad in
            [&[][..], &["abc"], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearer abc", "Bearer abc"]]
        {
            assert_eq!(shown_in(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_the_same_digest_is_the_same() {
        let one = [7; 32];
        assert!(is_same(&one, &one));
        for index in 0..32 {
            let mut other = one;
            other[index] ^= 1;
            assert!(!is_same(&one, &other));
        }
    }
}
