//! Splits text into tokens, or converts it to strict JSON, as lenient parsers read it. Lenient parsers accept
//! `NaN` and `Infinity`, raw control characters, invalid UTF-8, trailing commas, comments, single quotes,
//! unquoted keys, and anything after the first document. A server may be this lenient, so everything that
//! such a server accepts can be read and edited.

use super::Pointed;
use crate::json::tree::{self, TreeError};
use std::ops::Range;

/// One token and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) at: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// `{`, or `[` if it is an array.
    Open {
        array: bool,
    },
    Close {
        array: bool,
    },
    Comma,
    Colon,
    /// A string in double or single quotes. The token includes the quotes.
    Text,
    /// A number, a literal, or an unquoted key.
    Word,
}

/// Iterates over the tokens of a text.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    /// Creates an iterator that starts at this byte of the text.
    pub(super) fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Skips white space and comments. Returns `None` if a comment does not end.
    fn skip_space(&mut self) -> Option<()> {
        loop {
            let rest = self.rest();
            let space = rest.iter().take_while(|b| is_space(**b)).count();
            let comment = match rest.get(space..)? {
                [b'/', b'*', comment @ ..] => memchr::memmem::find(comment, b"*/")?.saturating_add(4),
                [b'/', b'/', ..] | [b'#', ..] => {
                    let line = rest.get(space..)?;
                    memchr::memchr2(b'\n', b'\r', line).unwrap_or(line.len())
                }
                _ => 0,
            };
            self.at = self.at.saturating_add(space).saturating_add(comment);
            if comment == 0 {
                return Some(());
            }
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    /// Returns the next token, or `None` at the end and where every parser would fail.
    fn next(&mut self) -> Option<Token> {
        self.skip_space()?;
        let rest = self.rest();
        let (kind, length) = match rest.first()? {
            b'{' => (TokenKind::Open { array: false }, 1),
            b'[' => (TokenKind::Open { array: true }, 1),
            b'}' => (TokenKind::Close { array: false }, 1),
            b']' => (TokenKind::Close { array: true }, 1),
            b',' => (TokenKind::Comma, 1),
            b':' => (TokenKind::Colon, 1),
            quote @ (b'"' | b'\'') => (TokenKind::Text, text_length(rest, *quote)?),
            _ => {
                let is_part =
                    |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_' | b'$');
                (TokenKind::Word, rest.iter().take_while(is_part).count())
            }
        };
        if length == 0 {
            return None;
        }
        let from = self.at;
        self.at = from.saturating_add(length);
        Some(Token { kind, at: from..self.at })
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Returns the length of a string with both quotes.
fn text_length(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1usize;
    loop {
        at = at.saturating_add(memchr::memchr2(quote, b'\\', text.get(at..)?)?);
        if text.get(at) == Some(&quote) {
            return at.checked_add(1);
        }
        at = at.saturating_add(2);
    }
}

/// Returns whether a JSON document or a form may begin here.
pub(super) fn reads_as_text(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let body = body.strip_prefix(b"\xff\xfe").or(body.strip_prefix(b"\xfe\xff")).unwrap_or(body);
    // UTF-16 and UTF-32 have zero bytes between ASCII characters.
    let begins = body.iter().position(|b| !is_space(*b) && *b != 0);
    matches!(
        begins.and_then(|at| body.get(at..)).unwrap_or_default(),
        [b'{' | b'[' | b'#', ..] | [b'/', b'/' | b'*', ..] | [b'-', b'-', ..]
    )
}

/// Returns whether the text begins with an object or array that some parser might accept.
pub(super) fn is_document(text: &[u8]) -> bool {
    let mut tokens = Tokens::new(text, 0);
    let opens = tokens.clone().next().is_some_and(|token| matches!(token.kind, TokenKind::Open { .. }));
    opens && super::members::value(text, &mut tokens).is_some()
}

/// Returns whether some parser accepts this word as a value.
pub(super) fn is_value(word: &[u8]) -> bool {
    let literals = ["true", "false", "null", "nan", "infinity", "inf", "undefined", "none"];
    word.first().is_some_and(|first| first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.'))
        || literals.iter().any(|literal| word.eq_ignore_ascii_case(literal.as_bytes()))
}

/// The deepest document that is converted. Parsers reject deeper documents or overflow their stack.
const MAX_DEPTH: usize = 128;

/// Converts the first document of the text to strict JSON. Numbers that JSON cannot represent become null.
/// Returns `None` if every parser would fail.
pub(super) fn to_strict(text: &[u8]) -> Option<String> {
    let mut strict = String::with_capacity(text.len());
    let mut open: Vec<bool> = Vec::new();
    // Whether a comma must come next, and whether the next token must be a key.
    let (mut comma, mut key) = (false, false);
    let mut tokens = Tokens::new(text, 0);
    loop {
        let token = tokens.next()?;
        let source = text.get(token.at.clone())?;
        match token.kind {
            TokenKind::Comma if comma => {
                comma = false;
                strict.push(',');
                key = open.last() == Some(&false);
                continue;
            }
            // An object cannot end between a key and its value.
            TokenKind::Close { array } if open.last() == Some(&array) && !strict.ends_with(':') => {
                if strict.ends_with(',') {
                    strict.pop();
                }
                strict.push(if array { ']' } else { '}' });
                open.pop();
            }
            // Two values without a comma, or a misplaced token.
            _ if comma => return None,
            TokenKind::Text | TokenKind::Word if key => {
                put_text(&mut strict, source);
                if tokens.next()?.kind != TokenKind::Colon {
                    return None;
                }
                strict.push(':');
                key = false;
                continue;
            }
            _ if key => return None,
            TokenKind::Open { array } if open.len() < MAX_DEPTH => {
                strict.push(if array { '[' } else { '{' });
                open.push(array);
                key = !array;
                continue;
            }
            TokenKind::Text => put_text(&mut strict, source),
            TokenKind::Word if is_value(source) => put_word(&mut strict, source),
            _ => return None,
        }
        if open.is_empty() {
            return Some(strict);
        }
        (comma, key) = (true, false);
    }
}

/// Parses a value, unless its tree would be too large or too deep. Such a value is not absent.
pub(super) fn parsed(value: &[u8]) -> Pointed {
    let strict = match tree::parse(value, tree::MAX_SIZE) {
        Err(TreeError::Invalid) => {
            to_strict(value).map(|strict| tree::parse(strict.as_bytes(), tree::MAX_SIZE))
        }
        parsed => Some(parsed),
    };
    match strict {
        Some(Ok(value)) => Pointed::Value(value),
        Some(Err(TreeError::TooLarge | TreeError::Invalid)) | None => Pointed::TooLarge,
    }
}

fn put_word(strict: &mut String, word: &[u8]) {
    let word = String::from_utf8_lossy(word);
    let lower = word.to_ascii_lowercase();
    let known = matches!(lower.as_str(), "true" | "false")
        || serde_json::from_str::<serde_json::Number>(&word).is_ok();
    strict.push_str(match known {
        true if lower.starts_with(['t', 'f']) => &lower,
        true => &word,
        false => "null",
    });
}

/// Appends a string in JSON quotes, with valid escape sequences decoded.
fn put_text(strict: &mut String, source: &[u8]) {
    let inside = match source {
        [b'"', inside @ .., b'"'] | [b'\'', inside @ .., b'\''] => inside,
        word => word,
    };
    let text = String::from_utf8_lossy(inside);
    let mut characters = text.chars();
    strict.push('"');
    while let Some(character) = characters.next() {
        match character {
            '"' => strict.push_str("\\\""),
            '\\' => match characters.next() {
                Some(escape @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {
                    strict.extend(['\\', escape])
                }
                Some('u') => put_unit(strict, &mut characters),
                // An unknown escape sequence stands for its character.
                Some(other) => put_plain(strict, other),
                None => {}
            },
            other => put_plain(strict, other),
        }
    }
    strict.push('"');
}

fn put_plain(strict: &mut String, character: char) {
    match character {
        '"' => strict.push_str("\\\""),
        '\0'..='\u{1f}' => {
            let code = u32::from(character);
            strict.push_str(&format!("\\u{code:04x}"));
        }
        other => strict.push(other),
    }
}

/// Decodes the digits after `\u`. An unpaired surrogate is replaced.
fn put_unit(strict: &mut String, characters: &mut std::str::Chars<'_>) {
    let unit = |text: &str| text.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
    let Some(first) = unit(characters.as_str()) else { return strict.push('\u{fffd}') };
    skip(characters, 4);
    let second = characters.as_str().strip_prefix("\\u").and_then(unit);
    let pair = [Some(first), second].into_iter().flatten();
    match char::decode_utf16(pair).next() {
        Some(Ok(character)) => {
            if character.len_utf16() == 2 {
                skip(characters, 6);
            }
            put_escaped(strict, character);
        }
        _ => strict.push('\u{fffd}'),
    }
}

fn put_escaped(strict: &mut String, character: char) {
    match character {
        '\\' => strict.push_str("\\\\"),
        other => put_plain(strict, other),
    }
}

fn skip(characters: &mut std::str::Chars<'_>, count: usize) {
    for _ in 0..count {
        characters.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn what_a_lenient_parser_takes_becomes_strict_json() {
        let table = [
            (
                r#"{"a":NaN,"b":-Infinity,"c":01,"d":1e3,"e":.5}"#,
                r#"{"a":null,"b":null,"c":null,"d":1e3,"e":null}"#,
            ),
            (r#"{"a":[1,2,],"b":{"c":True,},}"#, r#"{"a":[1,2],"b":{"c":true}}"#),
            ("{/* \" */\"a\"// }\n:# ]\n1}", r#"{"a":1}"#),
            (r#"{'a"b':'it\'s "so"',c:"d"}"#, r#"{"a\"b":"it's \"so\"","c":"d"}"#),
            (
                "{\"a\":\"x\ny\\q\\ud800\\uD83D\\uDE00\\u0022\"}",
                "{\"a\":\"x\\u000ayq\u{fffd}\u{1f600}\\\"\"}",
            ),
            (r#"{"a":"\u005c"} and then"#, r#"{"a":"\\"}"#),
            (r#" [ ] "#, "[]"),
        ];
        for (text, strict) in table {
            assert_eq!(to_strict(text.as_bytes()).as_deref(), Some(strict), "{text}");
            serde_json::from_str::<Value>(strict).unwrap();
        }
        assert_eq!(to_strict(b"{\"a\":\"\xff\"}").as_deref(), Some("{\"a\":\"\u{fffd}\"}"));
        let deep = "[".repeat(200);
        for text in [
            "",
            "{",
            "{\"a\"}",
            "{\"a\":1 \"b\":2}",
            "[,]",
            "[1,,2]",
            "{\"a\":x}",
            "[}",
            "{:1}",
            "{a:}",
            "[1:2]",
            &deep,
        ] {
            assert_eq!(to_strict(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn strict_json_stays_what_it_is(value in any::<Vec<(String, i64)>>()) {
            let value = serde_json::to_value(value).unwrap();
            let text = value.to_string();
            prop_assert_eq!(serde_json::from_str::<Value>(&to_strict(text.as_bytes()).unwrap()).unwrap(), value);
        }

        #[test]
        fn any_bytes_become_strict_json_or_nothing(text in "[\\[\\]{}:,\"'\\\\/*#a1N \\n]{0,40}") {
            if let Some(strict) = to_strict(text.as_bytes()) {
                serde_json::from_str::<Value>(&strict).unwrap();
            }
        }
    }
}
