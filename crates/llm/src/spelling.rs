//! Normalises paths and hosts. A client can write either in many ways that its server treats alike: with a
//! trailing slash or `;x`, percent-encoded, with a port or in capitals. Predicates that compare them must not
//! depend on the client's choice, and not every proxy can be configured to normalise all of these.

use memchr::{memchr, memchr_iter, memchr2, memchr3};
use std::borrow::Cow;

/// Normalises `:path` as lenient servers read it: percent-decoded once, without `.`, `..`, empty segments,
/// `;x` and a trailing slash. The query stays unchanged. Returns the path and the length of the part before
/// the `?`, or `None` if the path is already normalised.
pub fn path(path: &str) -> Option<(String, usize)> {
    let end = memchr2(b'?', b'#', path.as_bytes()).unwrap_or(path.len());
    let (before, after) = path.split_at_checked(end)?;
    if is_plain(before) && !after.starts_with('#') {
        return None;
    }
    let mut spelled = resolved(before);
    let length = spelled.len();
    // A fragment is not meant for the server.
    spelled.push_str(after.split('#').next().unwrap_or_default());
    Some((spelled, length))
}

/// Normalises `:authority`: lower case, percent-decoded, without a port, user information or trailing dot.
/// Returns `None` if the host is already normalised.
pub fn host(host: &str) -> Option<String> {
    let odd = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b':' | b'@' | b'%');
    if !host.bytes().any(odd) && !host.ends_with('.') {
        return None;
    }
    let spelled = percent_decoded(host).to_ascii_lowercase();
    let spelled = spelled.rsplit('@').next().unwrap_or_default();
    Some(without_port(spelled).trim_end_matches('.').to_owned())
}

/// Removes the port: `[::1]:80` becomes `[::1]`. An IPv6 address without brackets has no port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// Returns whether the path is already normalised, which is the common case. `*` and anything else that is
/// not a path stay unchanged.
fn is_plain(path: &str) -> bool {
    if !path.starts_with('/') || path == "/" {
        return true;
    }
    let bytes = path.as_bytes();
    let is_odd = |slash: usize| matches!(bytes.get(slash.saturating_add(1)), None | Some(b'/' | b'.'));
    memchr3(b'%', b';', b'\\', bytes).is_none() && !memchr_iter(b'/', bytes).any(is_odd)
}

fn resolved(path: &str) -> String {
    let mut spelled = String::with_capacity(path.len());
    for segment in path.split(['/', '\\']) {
        let decoded = percent_decoded(before_semicolon(segment));
        // An encoded slash is a separator, too.
        for segment in decoded.split(['/', '\\']) {
            match before_semicolon(segment) {
                "" | "." => {}
                ".." => spelled.truncate(spelled.rfind('/').unwrap_or(0)),
                segment => {
                    spelled.push('/');
                    spelled.push_str(segment);
                }
            }
        }
    }
    if spelled.is_empty() {
        spelled.push('/');
    }
    spelled
}

/// Returns whether a server may find a `.` or `..` segment in the path, even if it decodes the path twice.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    let decoded = percent_decoded(path);
    let decoded = percent_decoded(&decoded);
    let mut segments = decoded.split(['/', '\\']).map(before_semicolon);
    segments.any(|segment| matches!(segment, "." | ".."))
}

/// Returns the value of a parameter with one of these keys in the path's query. Two different values are joined with
/// a comma. Some servers ignore the case of keys.
pub(crate) fn query_name(path: &str, keys: &[&str]) -> Option<String> {
    let is_one = |key: &str| keys.iter().any(|known| known.eq_ignore_ascii_case(key));
    let pairs = query_pairs(path).filter(|(key, value)| !value.is_empty() && is_one(key));
    let mut values = pairs.map(|(_, value)| value);
    let first = values.next()?;
    let other = values.find(|other| *other != first);
    Some(other.map_or_else(|| first.to_string(), |other| format!("{first},{other}")))
}

/// Returns the decoded parameters of the path's query.
pub(crate) fn query_pairs(path: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let whole = || path.split('#').next()?.split_once('?');
    let query = memchr(b'?', path.as_bytes()).and_then(|_| whole()).map(|(_, query)| query);
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (percent_decoded(key), percent_decoded(value)))
}

/// Returns a path segment without its parameters.
pub fn before_semicolon(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

/// Decodes percent-encoded bytes. Invalid escape sequences stay unchanged.
pub fn percent_decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        match (first, hex_pair(rest)) {
            (b'%', Some((byte, rest))) => {
                decoded.push(byte);
                bytes = rest;
            }
            _ => decoded.push(*first),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn hex_pair(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (pair, rest) = bytes.split_at_checked(2)?;
    let digits = pair.iter().map(|digit| char::from(*digit).to_digit(16));
    let value = digits.reduce(|high, low| high?.checked_mul(16)?.checked_add(low?)).flatten()?;
    Some((u8::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(text: &str) -> String {
        path(text).map_or_else(|| text.to_owned(), |(spelled, _)| spelled)
    }

    #[test]
    fn a_path_has_one_spelling() {
        for written in [
            "/v1/chat",
            "/v1/chat/",
            "/v1/chat//",
            "//v1//chat",
            "/v1/./chat",
            "/./v1/chat/.",
            "/v1/x/../chat",
            "/v1/%2e/chat",
            "/v1/%2E%2e/v1/chat",
            "/v1%2Fchat",
            "/v1%2fchat%2F",
            "/v1/ch%61t",
            "/v1/chat;x",
            "/v1;a=b/chat;c;d",
            "/v1/chat%3Bx",
            "/v1/chat;x%2Fy",
            "/v1\\chat",
            "/v1%5Cchat",
            "/../v1/chat",
            "/v1/x/..;/chat",
            "/v1/chat/#",
            "/v1/chat#f?g",
            "/%76%31/%63%68%61%74",
        ] {
            assert_eq!(spelled(written), "/v1/chat", "{written}");
        }
    }

    #[test]
    fn what_is_another_path_stays_another() {
        for (written, wanted) in [
            ("/", "/"),
            ("", ""),
            ("*", "*"),
            ("//", "/"),
            ("/..", "/"),
            ("/a?b=%20;//", "/a?b=%20;//"),
            ("/a/?b/", "/a?b/"),
            ("/a%3Fb?c", "/a?b?c"),
            ("/a%2", "/a%2"),
            ("/a%zz%41", "/a%zzA"),
            ("/V1/Chat", "/V1/Chat"),
            ("/a%252Fb", "/a%2Fb"),
            ("/a.b/.c", "/a.b/.c"),
            ("/%ff", "/\u{fffd}"),
            ("/models/gemini:generate", "/models/gemini:generate"),
        ] {
            assert_eq!(spelled(written), wanted, "{written}");
        }
        assert_eq!(path("/a%3Fb?c"), Some(("/a?b?c".to_owned(), 4)));
    }

    #[test]
    fn a_path_in_one_spelling_is_not_changed_again() {
        for written in ["/a//b;c/%2e%2e/d/", "/%61%2F%2e", "/a%3Bb", "/;/;", "/a/b/../../.."] {
            let once = spelled(written);
            assert_eq!(spelled(&once), once, "{written}");
        }
    }

    #[test]
    fn a_host_has_one_spelling() {
        for written in ["gw", "GW", "gw:80", "gw:", "Gw:65535", "gw.", "gw.:80", "u@gw", "u:p@GW.:1", "%67w"]
        {
            assert_eq!(host(written).unwrap_or_else(|| written.to_owned()), "gw", "{written}");
        }
        for (written, wanted) in [
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("gw:http", "gw:http"),
            ("10.0.0.1:8080", "10.0.0.1"),
            ("", ""),
        ] {
            assert_eq!(host(written).unwrap_or_else(|| written.to_owned()), wanted, "{written}");
        }
    }
}
