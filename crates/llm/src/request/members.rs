//! Finds members of a JSON object in its text, so that they can be read or replaced there. The text may be
//! lenient JSON ([`super::lenient`]). The result is the positions of the requested values, or `None` if no
//! parser would accept the object. The search does not recurse and does not look into other values.

use super::lenient::{Token, TokenKind, Tokens, is_value};
use std::borrow::Cow;
use std::ops::Range;

/// The requested members of an object.
#[derive(Debug)]
pub(super) struct Members {
    /// The members in their order.
    pub(super) found: Vec<Member>,
    /// The position of the first member, or the position where it would be.
    pub(super) inside: usize,
    /// Whether the object has no members.
    pub(super) empty: bool,
}

/// A member with a requested key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The index of the requested key.
    pub(super) key: usize,
    /// Whether the spelling is exact. Servers in Go ignore the case of keys.
    pub(super) exact: bool,
    /// The position of the value.
    pub(super) value: Range<usize>,
}

/// Finds the members with these keys in the object that begins at `from`. The keys may have escape sequences.
pub(super) fn members(text: &[u8], from: usize, wanted: &[&str]) -> Option<Members> {
    let mut tokens = Tokens::new(text, from);
    let open = tokens.next().filter(|token| token.kind == TokenKind::Open { array: false })?;
    let mut members = Members { found: Vec::new(), inside: open.at.end, empty: true };
    loop {
        let key = tokens.next()?;
        match key.kind {
            TokenKind::Close { array: false } => return Some(members),
            TokenKind::Text | TokenKind::Word => {}
            _ => return None,
        }
        members.empty = false;
        tokens.next().filter(|token| token.kind == TokenKind::Colon)?;
        let value = value(text, &mut tokens)?;
        if let Some((key, exact)) = index(text.get(key.at)?, wanted) {
            members.found.push(Member { key, exact, value });
        }
        match tokens.next()?.kind {
            TokenKind::Comma => {}
            TokenKind::Close { array: false } => return Some(members),
            _ => return None,
        }
    }
}

/// Finds the element with this index of the array that begins at `from`.
pub(super) fn element(text: &[u8], from: usize, index: usize) -> Option<Range<usize>> {
    let mut tokens = Tokens::new(text, from);
    tokens.next().filter(|token| token.kind == TokenKind::Open { array: true })?;
    for _ in 0..index {
        value(text, &mut tokens)?;
        tokens.next().filter(|token| token.kind == TokenKind::Comma)?;
    }
    value(text, &mut tokens)
}

/// Finds the next value.
pub(super) fn value(text: &[u8], tokens: &mut Tokens<'_>) -> Option<Range<usize>> {
    let Token { kind, at } = tokens.next()?;
    match kind {
        TokenKind::Text => Some(at),
        TokenKind::Word => is_value(text.get(at.clone())?).then_some(at),
        TokenKind::Open { .. } => {
            let mut depth = 1u64;
            loop {
                let token = tokens.next()?;
                match token.kind {
                    TokenKind::Open { .. } => depth = depth.saturating_add(1),
                    TokenKind::Close { .. } if depth == 1 => return Some(at.start..token.at.end),
                    TokenKind::Close { .. } => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        TokenKind::Close { .. } | TokenKind::Comma | TokenKind::Colon => None,
    }
}

/// Returns the index of the requested key that matches, and whether the spelling is exact.
fn index(key: &[u8], wanted: &[&str]) -> Option<(usize, bool)> {
    let inside = match key {
        [b'"', inside @ .., b'"'] | [b'\'', inside @ .., b'\''] => inside,
        word => word,
    };
    let longest = wanted.iter().map(|wanted| wanted.len()).max()?;
    // Each character may be written as an escape sequence of six bytes, such as `\u0000`.
    if inside.len() > longest.saturating_mul(6) {
        return None;
    }
    let key = if inside.contains(&b'\\') {
        let strict = super::lenient::to_strict(key)?;
        Cow::Owned(serde_json::from_str::<String>(&strict).ok()?)
    } else {
        String::from_utf8_lossy(inside)
    };
    let exact = wanted.iter().position(|wanted| *wanted == key).map(|at| (at, true));
    exact.or_else(|| wanted.iter().position(|wanted| same_in_go(wanted, &key)).map(|at| (at, false)))
}

/// Returns whether a server in Go accepts this key as the requested one, which must be ASCII.
fn same_in_go(wanted: &str, key: &str) -> bool {
    let folded = key.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(wanted.chars().map(|c| c.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<Vec<(bool, &str)>> {
        let members = members(text.as_bytes(), 0, &["stream"])?;
        Some(members.found.iter().map(|member| (member.exact, &text[member.value.clone()])).collect())
    }

    #[test]
    fn members_are_found_however_their_keys_are_written() {
        let table: &[(&str, &[(bool, &str)])] = &[
            (
                r#" {"stream" : true, "x":[{"stream":1}],"stream":[{}, "}"] }"#,
                &[(true, "true"), (true, r#"[{}, "}"]"#)],
            ),
            (r#"{"\u0073tream":NaN,stream:0,'stream':'a',}"#, &[(true, "NaN"), (true, "0"), (true, "'a'")]),
            ("{\"STREAM\":1,\"\u{17f}tream\":2}", &[(false, "1"), (false, "2")]),
            (r#"{"streams":1,"\ud800":2,"":3} rest"#, &[]),
        ];
        for (text, expected) in table {
            assert_eq!(found(text).as_deref(), Some(*expected), "{text}");
        }
        for text in [
            "",
            "[]",
            "{",
            "{\"stream\":true",
            "{\"stream\" true}",
            "{\"stream\":}",
            "{\"a\":1 \"stream\":2}",
            "{\"a\":x}",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
