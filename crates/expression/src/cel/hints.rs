//! Hints for error messages, for people who write CEL like another language.

use super::signatures::FUNCTIONS;
use crate::facts::ATTRIBUTES;

/// Words and symbols of other languages, and their equivalents in CEL.
const FOREIGN: [(&str, &str); 17] = [
    ("and", "join conditions with '&&'"),
    ("&", "join conditions with '&&'"),
    ("or", "join conditions with '||'"),
    ("|", "join conditions with '||'"),
    ("not", "negate a condition with '!'"),
    ("is", "compare values with '=='"),
    ("=", "compare values with '=='"),
    ("===", "compare values with '=='"),
    ("<>", "compare values with '!='"),
    ("!==", "compare values with '!='"),
    ("=~", "test a pattern with `STRING.matches(\"PATTERN\")`"),
    ("like", "test a pattern with `STRING.matches(\"PATTERN\")`"),
    ("then", "write a choice as `CONDITION ? VALUE : OTHER`"),
    ("if", "write a choice as `CONDITION ? VALUE : OTHER`"),
    ("between", "write a range as `LEAST <= VALUE && VALUE <= MOST`"),
    ("&&&", "join conditions with '&&'"),
    ("|||", "join conditions with '||'"),
];

/// Values of other languages, and their equivalents in CEL.
const VALUES: [(&str, &str); 6] = [
    ("True", "true"),
    ("TRUE", "true"),
    ("False", "false"),
    ("FALSE", "false"),
    ("None", "null"),
    ("nil", "null"),
];

/// Functions of other languages, and their equivalents in CEL.
const FOREIGN_FUNCTIONS: [(&str, &str); 14] = [
    ("len", "size"),
    ("length", "size"),
    ("count", "size"),
    ("lower", "lowerAscii"),
    ("toLower", "lowerAscii"),
    ("toLowerCase", "lowerAscii"),
    ("upper", "upperAscii"),
    ("toUpper", "upperAscii"),
    ("toUpperCase", "upperAscii"),
    ("includes", "contains"),
    ("strip", "trim"),
    ("regex", "matches"),
    ("any", "exists"),
    ("str", "string"),
];

/// Returns the hint for a syntax error, if there is one.
pub(super) fn of_syntax(source: &str) -> Option<String> {
    if let Some(hint) = has_with_brackets(source) {
        return Some(hint);
    }
    let words = outside_strings(source);
    let mut before = "";
    for word in words {
        let hint = FOREIGN.iter().find(|(foreign, _)| word.eq_ignore_ascii_case(foreign));
        if let (Some((_, hint)), false) = (hint, before == ".") {
            return Some((*hint).to_owned());
        }
        let is_infix = ["contains", "startsWith", "endsWith", "matches", "exists"].contains(&word);
        if is_infix && before != "." {
            return Some(format!("`{word}` is called as `x.{word}(..)`"));
        }
        before = word;
    }
    None
}

/// Returns the hint for an unknown fact that is a single word, if there is one.
pub(super) fn of_word(word: &str) -> Option<String> {
    if let Some((_, value)) = VALUES.iter().find(|(foreign, _)| *foreign == word) {
        return Some(format!("did you mean `{value}`?"));
    }
    let attribute =
        ATTRIBUTES.iter().find(|attribute| attribute.name == word && attribute.root != "destination");
    attribute.map(|attribute| format!("did you mean `{}.{word}`?", attribute.root))
}

/// Returns the hint for an unknown function, if there is one.
pub(super) fn of_function(name: &str) -> Option<&'static str> {
    let (_, known) = FOREIGN_FUNCTIONS.iter().find(|(foreign, _)| *foreign == name)?;
    let known = FUNCTIONS.iter().map(|function| function.name).find(|name| name == known).unwrap_or(known);
    Some(known)
}

/// Recognises `has(request.headers["x-tier"])`, which CEL's macro does not accept.
fn has_with_brackets(source: &str) -> Option<String> {
    let (_, argument) = source.split_once("has(")?;
    let (argument, _) = argument.split_once(')')?;
    let (map, name) = argument.trim().strip_suffix(']')?.rsplit_once('[')?;
    let name = name.trim();
    let quoted = name.len() > 2
        && [('\'', '\''), ('"', '"')].iter().any(|(a, b)| name.starts_with(*a) && name.ends_with(*b));
    quoted.then(|| format!("`has` takes no brackets; write `{name} in {}`", map.trim()))
}

/// Returns the words and symbols of an expression outside of strings.
fn outside_strings(source: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 1,
        '=' | '<' | '>' | '!' | '~' | '&' | '|' => 2,
        _ => 0,
    };
    let mut words = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' | '\'' => {
                let inside = rest.get(1..).and_then(|inside| inside.find(first));
                inside.map_or(rest.len(), |end| end.saturating_add(2))
            }
            first if kind(first) == 0 => first.len_utf8(),
            first => rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len()),
        };
        let Some((word, further)) = rest.split_at_checked(end) else { break };
        if !word.trim().is_empty() {
            words.push(word);
        }
        rest = further;
    }
    words
}
